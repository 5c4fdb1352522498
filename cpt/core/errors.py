"""Errors that carry data; one boundary (`jobs.cli`) renders them and picks the exit code.

Exit codes: 0 done, 1 ours, 2 yours (fix the config), 75 resume me, 80 hold for a human.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

EXIT_DONE = 0
EXIT_OURS = 1
EXIT_YOURS = 2
EXIT_RESUME = 75
EXIT_HOLD = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing wrong with the input, in the three parts that a user needs.

    `where` is a dotted config path or a file, `what` its value or state, `why` the rule it breaks, `fix` what to type.
    """

    where: str
    what: str
    why: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}\n    why: {self.why}\n    fix: {self.fix}"


class CptError(Exception):
    """A failure of ours: exit code 1."""

    exit_code = EXIT_OURS


class UserError(CptError):
    """Input that the user can fix: exit code 2. Carries every problem found, not only the first."""

    exit_code = EXIT_YOURS

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class MissingInput(UserError):
    """A file or folder that an earlier stage should have left is not there."""

    def __init__(self, *, path: object, why: str, fix: str) -> None:
        super().__init__(Problem(where=str(path), what="not found", why=why, fix=fix))


class Hold(CptError):
    """The run must wait for a human: exit code 80."""

    exit_code = EXIT_HOLD
