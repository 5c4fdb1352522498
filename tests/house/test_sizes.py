"""Size budgets. Over budget is listed for a human to judge; over the fence fails."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.cli import VERBS

FILE, FUNCTION, ARGUMENTS, ENTRY = 300, 40, 6, 60
FILE_FENCE, FUNCTION_FENCE, ARGUMENTS_FENCE = 400, 60, 8


@dataclass(frozen=True)
class Measure:
    """One number of one thing, its budget and the fence that must hold."""

    what: str
    size: int
    budget: int
    fence: int


def sources(repository: Path) -> list[Path]:
    return sorted(path for storey in ("cpt", "slurm", "jobs") for path in (repository / storey).rglob("*.py"))


def measures(repository: Path) -> Iterator[Measure]:
    for path in sources(repository):
        name, text = str(path.relative_to(repository)), path.read_text()
        entry = path.parent.name == "jobs" and path.stem in VERBS
        yield Measure(name, len(text.splitlines()), ENTRY if entry else FILE, ENTRY if entry else FILE_FENCE)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                where = f"{name}:{node.lineno} {node.name}"
                yield Measure(f"{where} (lines)", (node.end_lineno or 0) - node.lineno + 1, FUNCTION, FUNCTION_FENCE)
                arguments = [argument.arg for argument in [*node.args.posonlyargs, *node.args.args] if argument.arg not in ("self", "cls")]
                yield Measure(f"{where} (positional arguments)", len(arguments), ARGUMENTS, ARGUMENTS_FENCE)


def test_nothing_is_over_the_fence(repository: Path) -> None:
    found = list(measures(repository))
    assert len(found) > 100  # the walk found the code
    if over_budget := [measure for measure in found if measure.size > measure.budget]:
        listed = "\n".join(f"  {measure.what}: {measure.size}, budget {measure.budget}" for measure in sorted(over_budget, key=lambda measure: -measure.size))
        warnings.warn(f"over budget, for a human to judge:\n{listed}", stacklevel=1)
    assert [measure for measure in found if measure.size > measure.fence] == []


@pytest.mark.parametrize("word", ["utils", "helpers", "common", "misc", "manager", "handler"])
def test_no_module_is_called(repository: Path, word: str) -> None:
    names = [path.relative_to(repository) for path in sources(repository)]
    assert [name for name in names if word in name.stem.split("_")] == []


def test_code_says_no_later(repository: Path) -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "X" + "XX")
    assert [
        f"{path}:{number}" for path in sources(repository) for number, line in enumerate(path.read_text().splitlines(), 1) if any(m in line for m in marks)
    ] == []
