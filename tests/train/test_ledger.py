"""The ledger against an independent recount: every row that trained a model, told by its text, with the manifest's own numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpt.checkpoint import CheckpointStore
from cpt.config.seal import read_config
from cpt.core.paths import RunPaths
from cpt.core.world import World
from cpt.data import open_manifest
from cpt.data.indexed import IndexedTokens
from cpt.tracking.journal import read_events, series
from jobs import cli, launch
from tests.ranks import run_ranks
from tests.tiny import make_run
from tests.train.test_exact_anomaly import poisoned

pytestmark = pytest.mark.engine

GRAM = 8


def trained_rows(world: World, run: RunPaths, attempt: int, stop_at: int) -> list[Any]:
    """Rows of every update that was made, [8, 65] each; update 6 is skipped, and someone stops the run after `stop_at`."""
    from cpt.train import journaling

    stepped, rows = journaling.Recorder.stepped, list[Any]()

    def kept(self: Any, state: Any, batch: Any, *rest: Any) -> None:
        rows.append(batch.tokens.numpy().copy())
        stepped(self, state, batch, *rest)
        if state.step == stop_at:
            run.triggers.mkdir(exist_ok=True)
            (run.triggers / "stop").touch()

    journaling.Recorder.stepped = kept  # type: ignore[method-assign]
    poisoned(world, run, attempt, [44])
    return rows


def grams(tokens: Any) -> set[bytes]:
    return {window.tobytes() for window in np.lib.stride_tricks.sliding_window_view(np.asarray(tokens, dtype=np.int64), GRAM)}


def test_the_ledger_is_what_a_recount_finds(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a skipped batch, a stop, and another mixture from there on."""
    monkeypatch.setattr(launch, "main", lambda _: 0)
    run = make_run(root, "recounted", [])
    rows = run_ranks(1, trained_rows, run, 0, 10)[0]
    (run.triggers / "stop").unlink()
    assert cli.main(["resume", str(run.root), "mixture.domain_share=0.8", "mixture.weights={french: 3, german: 1}"]) == 0
    rows += run_ranks(1, trained_rows, run, 1, 99)[0]
    assert len(rows) == 19
    (resumed,) = [event.fields for event in read_events(run) if event.name == "resume"]
    assert (resumed["step"], resumed["next_sample"]) == (10, 80), "nine updates were made of ten batches"

    config = read_config(run.config)
    manifest, folder = open_manifest(config), config.runs.data("sample").root
    texts = {source.name: grams(IndexedTokens(source.train.prefixes(folder)).read(0, source.train.tokens)) for source in manifest.sources}
    found = Counter(max(texts, key=lambda name: len(grams(row) & texts[name])) for batch in rows for row in batch)
    assert len(found) == len(texts), "every source is read"
    for source in manifest.sources:
        tokens = found[source.name] * 64
        assert series(run, f"data/tokens/{source.name}")[20] == tokens
        assert series(run, f"data/epochs/{source.name}")[20] == pytest.approx(tokens / ((source.train.tokens - 1) // 64 * 64), abs=1e-6)
    assert CheckpointStore(run.checkpoints).record(20).data.tokens == {name: 64 * count for name, count in found.items()}
    for kind, metric in (("language", "language_tokens"), ("group", "group_tokens")):
        sums = Counter[str]()
        for source in manifest.sources:
            sums[getattr(source, kind)] += 64 * found[source.name]
        assert {name: series(run, f"data/{metric}/{name}")[20] for name in sums} == sums
