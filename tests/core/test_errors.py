"""An error to the user has three parts and an exit code."""

from __future__ import annotations

from cpt.core.errors import Hold, MissingInput, Problem, UserError


def test_every_problem_is_said() -> None:
    first = Problem(where="train.seed", what="is -1", why="must be positive", fix="seed=1")
    second = Problem(where="data.bin", what="is short", why="the disk was full", fix="cpt prepare")
    error = UserError([first, second])
    assert error.exit_code == 2
    assert str(error) == "train.seed: is -1\n    why: must be positive\n    fix: seed=1\ndata.bin: is short\n    why: the disk was full\n    fix: cpt prepare"
    assert UserError(first).problems == (first,)


def test_exit_codes_of_the_others() -> None:
    assert MissingInput(path="x", why="y", fix="z").exit_code == 2
    assert Hold("wait").exit_code == 80
