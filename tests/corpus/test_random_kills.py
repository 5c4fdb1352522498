"""Preparing killed at random moments, processes and all, again and again: it goes on to the bytes of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from cpt.config.run import RunConfig
from cpt.corpus.pipeline import plan_corpus
from cpt.corpus.prepare import finished, prepare
from tests.corpora import configure, give_tokenizer
from tests.corpus.own import quiet

SHARDS = "corpus.shard_bytes=60000"
CHILD = """
import sys
from pathlib import Path
from cpt.corpus import work
from cpt.corpus.prepare import prepare
from tests.corpora import configure
if __name__ == "__main__":
    work._SMALL = 0
    prepare(configure(Path(sys.argv[1]), sys.argv[2]), lambda progress: None, workers=2)
"""


def contents(config: RunConfig) -> dict[str, bytes]:
    """Every file but records, which say how long it took."""
    root = config.runs.data("sample").root
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.suffix in (".bin", ".idx", ".ids", ".jsonl", ".npy", ".npz", ".parquet")
    }


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_random_kills_change_no_byte(root: Path, tmp_path: Path, tokenizer_file: Path, repository: Path, seed: int) -> None:
    give_tokenizer(tmp_path / "other", tokenizer_file)
    undisturbed = configure(tmp_path / "other", SHARDS)
    prepare(undisturbed, quiet)
    (tmp_path / "child.py").write_text(CHILD)
    random, kills = Random(seed), 0
    while True:
        child = subprocess.Popen(
            [sys.executable, str(tmp_path / "child.py"), str(root), SHARDS],
            cwd=repository,
            env=os.environ | {"PYTHONPATH": str(repository)},
            start_new_session=True,
        )
        try:
            assert child.wait(timeout=random.uniform(2, 9) + kills / 2) == 0
            break
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            kills += 1
    print(f"\nseed {seed}: {kills} kills")
    assert kills
    config = configure(root, SHARDS)
    assert finished(plan_corpus(config)) is not None
    assert contents(config) == contents(undisturbed)
    assert not list(config.runs.data("sample").root.rglob("*.tmp"))
