"""Two loaders, one row of samples: exchanged mid-run, started again anywhere, and honest about what stops them."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from cpt.config.seal import read_config, to_yaml
from cpt.core.amendments import segments
from cpt.core.artifacts import write_text
from cpt.core.errors import UserError
from cpt.core.paths import RunPaths
from cpt.core.world import World
from cpt.mix import plan_mixture
from cpt.tracking.journal import series
from tests.ranks import run_ranks
from tests.tiny import make_run, tiny_config, train_rank
from tests.train.test_exact_anomaly import poisoned

pytestmark = pytest.mark.engine

TEN_STEPS = "train.train_tokens=5120"
"""With a checkpoint in the middle."""


def use(run: RunPaths, loader: str) -> None:
    write_text(run.config, to_yaml(tiny_config(Path(read_config(run.config).run_root), f"loader={loader}", "slurm.tasks_per_node=2", TEN_STEPS)))


def readers() -> int:
    return sum(thread.name == "reader" for thread in threading.enumerate())


def counted(world: World, run: RunPaths, attempt: int) -> tuple[int, int]:
    """Exit code, and reader threads that are left."""
    return train_rank(world, run, attempt), readers()


def poisoned_and_counted(world: World, run: RunPaths, bad: Sequence[int]) -> tuple[int, int]:
    return poisoned(world, run, 0, bad), readers()


def broken(world: World, run: RunPaths) -> tuple[str, int]:
    """What training raised, and reader threads that are left."""
    from cpt.train.feed import Feed

    read = Feed._read

    def failing(feed: Any, start: int) -> Any:
        if start == 48:
            raise OSError("the file system is gone")
        return read(feed, start)

    Feed._read = failing  # type: ignore[method-assign]
    with pytest.raises(OSError, match="the file system is gone") as raised:
        train_rank(world, run, 0)
    return str(raised.value), readers()


@pytest.mark.slow
def test_half_with_one_loader_and_half_with_the_other_is_the_same_run(root: Path) -> None:
    overrides = ["slurm.tasks_per_node=2", TEN_STEPS]
    straight = make_run(root, "loader_straight", overrides)
    assert run_ranks(2, counted, straight, 0) == [(0, 0), (0, 0)]
    for first, second in (("memmap", "dali"), ("dali", "memmap")):
        run = RunPaths(root / f"loader_{first}_{second}")
        make_run(root, run.root.name, overrides)
        use(run, first)
        assert run_ranks(2, counted, run, 0) == [(0, 0), (0, 0)]
        shutil.rmtree(run.checkpoints / "step_00000010")
        use(run, second)
        assert run_ranks(2, counted, run, 1) == [(0, 0), (0, 0)]
        for name in ("train/loss", "train/grad_norm", "data/batch_crc32"):
            assert series(run, name) == series(straight, name), (first, second, name)


@pytest.mark.parametrize("loader", ["memmap", "dali"])
def test_what_stops_the_reader_is_raised_in_the_loop_at_its_step(root: Path, loader: str) -> None:
    """DALI asks for batches before they are due: an error then must not take with it what was read well."""
    run = make_run(root, f"loader_broken_{loader}", [f"loader={loader}", "loader.depth=3"])
    assert run_ranks(1, broken, run) == [("the file system is gone", 0)]
    assert max(series(run, "train/loss")) == 6  # all before sample 48


@pytest.mark.slow
def test_what_was_read_ahead_is_dropped_by_a_skip_and_by_a_rollback(root: Path) -> None:
    """Whatever the loader and however far ahead: the run that skips or goes back is the same. Held, it leaves no thread either."""
    ways = [["loader=memmap", "loader.depth=1"], ["loader=dali", "loader.depth=3"]]
    for action, code in (("skip", 0), ("rollback", 0), ("stop", 80)):
        runs = [
            make_run(root, f"ahead_{action}_{way[0]}", [f"train.anomaly.non_finite={action}", "train.train_tokens=4608", "checkpoint.interval=3", *way])
            for way in ways
        ]
        for run in runs:
            assert run_ranks(1, poisoned_and_counted, run, [36]) == [(code, 0)]
        for metric in ("train/loss", "data/batch_crc32", "data/tokens/listings"):
            assert series(runs[0], metric) == series(runs[1], metric), (action, metric)
        assert len(series(runs[0], "train/loss")) == {"skip": 8, "rollback": 9, "stop": 4}[action]


@pytest.mark.parametrize("loader", ["memmap", "dali"])
def test_it_starts_again_wherever_another_state_stands(root: Path, loader: str) -> None:
    assert run_ranks(1, _moved, root, loader) == [[(0, 8), (8, 16), (16, 24), (40, 48), (24, 32), (32, 40)]]


def _moved(_world: World, root: Path, loader: str) -> list[tuple[int, int]]:
    """Samples of the batches that one feed gives for states that follow each other, and for some that do not."""
    from cpt.data import MixtureDataset, open_manifest, open_mixture
    from cpt.train import feed as feeding
    from cpt.train.state import TrainState

    class OneRank:
        rows = staticmethod(range)
        gather = staticmethod(lambda mine, *_: mine.numpy())

    config = tiny_config(root, f"loader={loader}")
    manifest = open_manifest(config)
    plan = plan_mixture(config.mixture, manifest, config.train.train_tokens, config.train.sequence_length)
    data: MixtureDataset = open_mixture(config, manifest, segments(plan))
    feed, state = feeding.Feed(data, cast(Any, OneRank()), config), TrainState()
    found, opened, open_loader = [], list[int](), feeding.open_loader
    feeding.open_loader = lambda *given: opened.append(len(found)) or open_loader(*given)  # type: ignore[func-returns-value]

    def read() -> None:
        batch = feed.next(state)
        np.testing.assert_array_equal(batch.tokens.numpy(), data.batch(batch.samples.start, batch.samples.stop).tokens)
        found.append((batch.samples.start, batch.samples.stop))

    for _ in range(2):
        read()
        state.advance(8)
    state.skipped.append([100, 104])  # in place, as training does
    read()
    state.advance(8)
    state.skipped[0] = [16, 32]  # as many windows and samples trained on as it expects, but not the same ones
    read()
    state.become(TrainState(step=3, consumed_samples=24))
    read()
    state.advance(8)
    read()
    feed.close()
    assert opened == [0, 2, 3, 4], "only where it must"
    assert not readers()
    return found


def test_a_loader_that_is_not_installed_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from cpt.config.loader import LoaderConfig, LoaderKind
    from cpt.train.loaders import require_installed

    require_installed(LoaderConfig(kind=LoaderKind.dali))
    monkeypatch.setitem(sys.modules, "nvidia.dali.fn", None)
    require_installed(LoaderConfig())
    with pytest.raises(UserError, match=r"loader\.kind: is dali") as raised:
        require_installed(LoaderConfig(kind=LoaderKind.dali))
    assert raised.value.problems[0].fix == "install nvidia-dali-cuda130 there, or loader=memmap"


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["memmap", "dali"])
def test_rows_are_on_the_device_and_are_those_that_were_read(kind: str) -> None:
    import itertools

    import torch

    from cpt.config.loader import LoaderConfig, LoaderKind
    from cpt.data import row_checksums
    from cpt.data.reading import Reader
    from cpt.train.loaders import Rows, open_loader

    def read(start: int) -> Rows:
        tokens = np.random.default_rng(start).integers(0, 128_000, (8, 4097))
        return Rows(start, tokens, row_checksums(tokens))

    loader = open_loader(LoaderConfig(kind=LoaderKind(kind)), Reader(read, itertools.count(0, 8), 2), 8)
    for step in range(20):
        rows, tokens = loader.next()
        assert rows.start == 8 * step and tokens.is_cuda and tokens.dtype == torch.int64
        np.testing.assert_array_equal(tokens.cpu().numpy(), read(8 * step).tokens)
    loader.close()
