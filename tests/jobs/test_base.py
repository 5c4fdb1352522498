"""The first commands of a new user, as the README says them: without an experiment, so without a budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.core.errors import UserError
from jobs import base, prepare

pytestmark = pytest.mark.engine


def test_a_base_and_a_corpus_need_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["model=tiny", "corpus=sample", f"run_root={tmp_path}"]
    with pytest.raises(UserError, match="fix: cpt base model=tiny"):
        prepare.main(wanted)
    assert base.main(wanted) == 0
    said = capsys.readouterr().out
    assert "parity: largest logit difference" in said and "next: cpt prepare" in said
    assert prepare.main(wanted) == 0
    assert base.main(wanted) == 0, "again"
