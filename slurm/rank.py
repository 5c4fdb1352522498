"""One rank's last word, for errors that training itself did not record."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cpt.core.attempts import RankRecord
from cpt.core.errors import EXIT_DONE, EXIT_RESUME, CptError, UserError
from cpt.core.paths import RunPaths
from cpt.core.world import World


@contextmanager
def last_word(run: RunPaths, attempt: int, world: World) -> Iterator[None]:
    """Write how this rank ended before its error goes on. What the user must fix is `fatal`: no other attempt cures it."""
    try:
        yield
    except Exception as error:
        record = run.attempt(attempt).rank(world.rank)
        if not record.is_file():
            _describe(error, world).save(record)
        raise


def exit_code(code: int, world: World) -> int:
    """What a rank exits with. Of several, a saved stop is no failure: its siblings, perhaps still writing, would be killed for it."""
    return EXIT_DONE if code == EXIT_RESUME and world.world_size > 1 else code


def signature(error: BaseException) -> str:
    """Exception type and innermost frame: equal for the same crash in another attempt, on another node."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{where}"


def _describe(error: Exception, world: World) -> RankRecord:
    outcome = "fatal" if isinstance(error, UserError) else "crash"
    message = str(error) if isinstance(error, CptError) else repr(error)
    return RankRecord(rank=world.rank, host=world.node_name, outcome=outcome, step=0, signature=signature(error), message=message)
