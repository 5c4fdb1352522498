"""The fast tier on nodes that are folders: what is lost with a node is taken from its neighbor, and nothing wrong is ever resumed from."""

from __future__ import annotations

import dataclasses
import errno
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from cpt.checkpoint import CheckpointStore, fast
from cpt.checkpoint.fast import FastFolder, Part, network_type, node_folder
from cpt.checkpoint.records import Receipt
from cpt.checkpoint.store import rank_file
from cpt.core.errors import UserError
from cpt.core.paths import RunPaths
from cpt.core.world import World
from cpt.tracking.journal import read_events, series
from slurm.attempts import last_full_step, last_step
from tests.ranks import Ranks, run_ranks
from tests.tiny import make_run, train_rank
from tests.train.test_exact_anomaly import poisoned
from tests.train.test_exact_resume import wait_for
from tests.train.test_saving import train_until

pytestmark = pytest.mark.engine

STEPS = [
    "train.train_tokens=5120",
    "checkpoint.interval=8",
    "train.precision=fp32",
    "train.hidden_dropout=0.1",
    "evaluate.interval=0",
    "evaluate.at_start=false",
]
"""Ten steps; a full save after the eighth and at the end."""
TP2 = ["slurm.tasks_per_node=4", "parallel.tensor_parallel_size=2", "parallel.sequence_parallel=true"]
DP3 = ["slurm.tasks_per_node=3", "checkpoint.interval=5", "train.global_batch_size=6", "train.train_tokens=3840"]
"""Full at 5, fast at 2, 4, 6, 8."""


def place(run: RunPaths) -> Path:
    return run.root.parent / "disks"


def disk(run: RunPaths, node: int) -> FastFolder:
    return FastFolder(node_folder(str(place(run)), run, f"node{node}"))


def new_run(root: Path, name: str, overrides: list[str]) -> RunPaths:
    return make_run(root, name, [*STEPS, f"checkpoint.fast_folder={root / 'disks'}", "checkpoint.fast_interval=2", *overrides])


def on_nodes(world: World, per_node: int, order: list[int] | None = None) -> World:
    """This rank on its node; `order`: node numbers."""
    node = world.rank // per_node
    return dataclasses.replace(world, local_rank=world.rank % per_node, node_name=f"node{order[node] if order else node}")


def train_on(world: World, run: RunPaths, attempt: int, per_node: int, order: list[int] | None = None) -> int:
    return train_rank(on_nodes(world, per_node, order), run, attempt)


def die_after(world: World, run: RunPaths, attempt: int, per_node: int, step: int, order: list[int] | None = None) -> int:
    """All ranks are gone at once, after `step` and the saves until then."""
    from cpt.train import loop

    follow_up = loop.follow_up

    def stop(job: Any, at: Any) -> None:
        follow_up(job, at)
        if job.state.step == step:
            job.savers.finish()
            raise KeyboardInterrupt

    loop.follow_up = stop  # type: ignore[assignment]
    try:
        return train_on(world, run, attempt, per_node, order)
    except KeyboardInterrupt:
        return -1


def resumes(run: RunPaths) -> list[dict[str, Any]]:
    return [event.fields for event in read_events(run) if event.name == "resume"]


def events(run: RunPaths, name: str) -> list[dict[str, Any]]:
    return [event.fields for event in read_events(run) if event.name == name]


@pytest.fixture(scope="module")
def killed(root: Path) -> tuple[RunPaths, RunPaths]:
    """TP2 x DP2 on two nodes: a run that nobody disturbed, and one whose ranks died after step 6, saved fast at 2, 4 and 6."""
    straight, run = new_run(root, "fast-straight", TP2), new_run(root, "fast-killed", TP2)
    assert run_ranks(4, train_on, straight, 0, 2) == [0] * 4
    assert run_ranks(4, die_after, run, 0, 2, 6) == [-1] * 4
    return straight, run


def again(killed: tuple[RunPaths, RunPaths], name: str, root: Path, nodes: int = 2) -> RunPaths:
    """The killed run and its disks once more, under another name."""
    run = RunPaths(root / name)
    shutil.copytree(killed[1].root, run.root)
    for node in range(nodes):
        shutil.copytree(disk(killed[1], node).folder, disk(run, node).folder)
    return run


def assert_same(run: RunPaths, straight: RunPaths) -> None:
    assert series(run, "train/loss") == series(straight, "train/loss")
    mine, other = (CheckpointStore(which.checkpoints).record(10) for which in (run, straight))
    assert (mine.files, mine.train) == (other.files, other.train)


def test_a_fast_save_is_on_two_disks_and_a_run_that_ended_leaves_none(killed: tuple[RunPaths, RunPaths]) -> None:
    straight, run = killed
    assert not disk(straight, 0).folder.parent.exists() and not straight.fast.exists()
    for node in range(2):
        assert disk(run, node).steps() == [4, 6]
        assert sorted(disk(run, node).receipts(6)) == [0, 1, 2, 3]
    assert (last_step(run), last_full_step(run)) == (6, 0)
    assert [row["step"] for row in events(run, "fast_saved")] == [2, 4, 6] and not events(run, "checkpoint_saved")


def test_exact_resume_on_the_same_nodes(killed: tuple[RunPaths, RunPaths], root: Path) -> None:
    run = again(killed, "fast-same", root)
    assert run_ranks(4, train_on, run, 1, 2) == [0] * 4
    assert [(row["step"], row["tier"], row["fetched"], row["generators"]) for row in resumes(run)] == [(6, "fast", {}, "restored")]
    assert_same(run, killed[0])


def test_exact_resume_through_the_neighbor_of_a_lost_node(killed: tuple[RunPaths, RunPaths], root: Path) -> None:
    """A spare takes the place of node 1, whose files are on node 0; nodes come in another order."""
    run = again(killed, "fast-spare", root)
    disk(run, 1).close()
    assert run_ranks(4, train_on, run, 1, 2, [2, 0]) == [0] * 4
    assert resumes(run)[0]["step"] == 6 and resumes(run)[0]["tier"] == "fast"
    assert resumes(run)[0]["fetched"] == {f"{rank_file(rank)} on node2": "node0" for rank in range(4)}
    assert_same(run, killed[0])


def test_exact_resume_where_a_byte_has_turned(killed: tuple[RunPaths, RunPaths], root: Path) -> None:
    run = again(killed, "fast-flipped", root)
    path = disk(run, 0).path(6) / rank_file(1)
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    assert run_ranks(4, train_on, run, 1, 2) == [0] * 4
    assert events(run, "fast_passed")[0]["damaged"] == {f"node0/6/{rank_file(1)}": "has other bytes than were written"}
    assert resumes(run)[0]["fetched"] == {f"{rank_file(1)} on node0": "node1"}
    assert_same(run, killed[0])


def test_what_is_not_whole_is_passed_over(killed: tuple[RunPaths, RunPaths], root: Path) -> None:
    """Of step 6 rank 3's file is nowhere, step 4 is whole: what the last save left is not mixed with the one before."""
    run = again(killed, "fast-torn", root)
    for node in range(2):
        (disk(run, node).path(6) / rank_file(3)).unlink()
    assert run_ranks(4, train_on, run, 1, 2) == [0] * 4
    assert resumes(run)[0]["step"] == 4
    assert events(run, "fast_passed")[0]["steps"] == {"6": "files of ranks [3] are on no node"}
    assert_same(run, killed[0])


def test_a_stop_right_after_a_fast_save_still_saves_in_full(root: Path) -> None:
    run = new_run(root, "fast-stopped", [])
    assert run_ranks(1, train_until, run, 0, 6) == [75]
    assert CheckpointStore(run.checkpoints).steps() == [6] and not run.fast.exists()


def slow_copies(world: World, run: RunPaths, attempt: int, per_node: int) -> int:
    """What comes of step 6 from a neighbor takes its time."""
    from cpt.checkpoint.copies import Arriving

    take = Arriving.take

    def slowly(self: Any, segment: int, piece: memoryview) -> None:
        if segment and "00000006" in str(self.path):
            time.sleep(1.0)
        take(self, segment, piece)

    Arriving.take = slowly  # type: ignore[method-assign]
    return train_on(world, run, attempt, per_node)


def test_a_save_that_is_killed_while_it_is_copied_is_invisible(killed: tuple[RunPaths, RunPaths], root: Path) -> None:
    run = new_run(root, "fast-torn-copy", TP2)
    ranks = Ranks(4, slow_copies, run, 0, 2)
    wait_for(lambda: all(list(disk(run, node).begin_path(6).glob("*.part")) for node in range(2)))
    ranks.kill()
    assert all(disk(run, node).steps() == [2, 4] for node in range(2))
    assert run_ranks(4, train_on, run, 1, 2) == [0] * 4
    assert resumes(run)[0]["step"] == 4
    assert_same(run, killed[0])


def choose(world: World, run: RunPaths, amendments: int, newer_than: int = 0) -> tuple[int, dict[str, str]]:
    """(step that would be resumed from, what was passed over)."""
    from cpt import engine
    from cpt.config.parallel import ParallelConfig
    from cpt.train.fast import FastTier, Ring

    ring_world = on_nodes(world, 1)
    engine.initialize(world, ParallelConfig(), 1)
    found, search = FastTier(Ring.of(ring_world), disk(run, world.rank), 1, amendments).choose(newer_than, [(0, 4), (0, 6), (1, 6)])
    engine.finalize()
    return found.part.step if found else 0, search.passed


def test_what_was_saved_under_other_settings_is_passed_over(killed: tuple[RunPaths, RunPaths], root: Path) -> None:
    run = again(killed, "fast-amended", root)
    assert run_ranks(2, choose, run, 0) == [(6, {})] * 2
    assert run_ranks(2, choose, run, 1) == [(0, {"6": "settings were amended since", "4": "settings were amended since"})] * 2


def test_what_is_older_than_the_newest_full_one_is_not_used(killed: tuple[RunPaths, RunPaths], root: Path) -> None:
    run = again(killed, "fast-older", root)
    assert run_ranks(2, choose, run, 0, 6) == [(0, {})] * 2
    assert run_ranks(2, choose, run, 0, 5) == [(6, {})] * 2


def test_files_of_the_same_step_of_another_attempt_are_not_mixed_in(killed: tuple[RunPaths, RunPaths], root: Path) -> None:
    """A node that was away kept step 6 of attempt 0; the others have trained on and hold step 6 of attempt 1."""
    run = again(killed, "fast-mixed", root)
    path = disk(run, 1).path(6) / "part.json"
    dataclasses.replace(Part.load(path), attempt=1).save(path)
    for node in (0, 1):
        (disk(run, 1).path(6) / f"rank_{2 * node:05d}.json").unlink()
    assert run_ranks(2, choose, run, 0) == [(6, {"6": "files of ranks [0, 2] are on no node"})] * 2, "that of attempt 0, all of which is on its node"
    for rank in (1, 3):
        (disk(run, 0).path(6) / f"rank_{rank:05d}.json").unlink()
    found, _ = run_ranks(2, choose, run, 0)
    assert found == (4, {"6": "files of ranks [1, 3] are on no node"}), "each attempt has half of it"


def poisoned_and_killed(world: World, run: RunPaths, attempt: int) -> int:
    """The ninth update has no finite gradient; in the first attempt the rank dies two steps after it went back for that."""
    from cpt.train import loop

    follow_up = loop.follow_up

    def stop(job: Any, at: Any) -> None:
        follow_up(job, at)
        if attempt == 0 and job.state.rollbacks and job.state.step == 7:
            raise KeyboardInterrupt

    loop.follow_up = stop  # type: ignore[assignment]
    try:
        return poisoned(world, run, attempt, [64])
    except KeyboardInterrupt:
        return -1


def test_a_rollback_leaves_no_fast_checkpoint_of_what_it_went_back_from(root: Path) -> None:
    run = new_run(root, "fast-rollback", ["checkpoint.interval=5", "checkpoint.fast_interval=4", "train.anomaly.non_finite=rollback"])
    assert run_ranks(1, poisoned_and_killed, run, 0) == [-1]
    assert [row["step"] for row in events(run, "fast_saved")] == [4, 8]
    assert not list(place(run).glob(f"{run.root.name}-*/*/step_*")) and not run.fast.exists() and last_step(run) == 5
    assert run_ranks(1, poisoned_and_killed, run, 1) == [0]
    assert [(row["step"], row["tier"]) for row in resumes(run)] == [(5, "full")]


def test_words_that_cannot_be_read_count_as_none(killed: tuple[RunPaths, RunPaths], root: Path) -> None:
    """Of one node the record of step 6, of the other a receipt that would leave a hole in a tensor."""
    run = again(killed, "fast-words", root)
    (disk(run, 0).path(6) / "part.json").write_text("{")
    path = disk(run, 1).path(6) / "rank_00000.json"
    receipt = Receipt.load(path)
    receipt.tensors.popitem()
    receipt.save(path)
    found, other = run_ranks(2, choose, run, 0)
    assert found == other and found[0] == 4 and "of the" in found[1]["6"]


def test_another_layout_reads_what_it_needs_of_all_files(killed: tuple[RunPaths, RunPaths], root: Path) -> None:
    run = again(killed, "fast-layout", root)
    run.config.write_text(new_run(root, "fast-layout-to", ["slurm.tasks_per_node=2", "parallel.pipeline_parallel_size=2"]).config.read_text())
    disk(run, 1).close()
    assert run_ranks(2, train_on, run, 1, 1) == [0, 0]
    assert resumes(run)[0]["step"] == 6 and "seeded anew" in resumes(run)[0]["generators"]
    assert list(series(run, "train/loss")) == list(range(1, 11))


def test_steps_that_were_computed_again_are_never_resumed_from(killed: tuple[RunPaths, RunPaths], root: Path) -> None:
    """Two other nodes have gone on from the base meanwhile, and both are lost: what the first two hold is no past of this run any more."""
    run = again(killed, "fast-superseded", root)
    assert run_ranks(4, die_after, run, 1, 2, 4, [7, 8]) == [-1] * 4
    assert last_step(run) == 4 and not resumes(run)
    assert run_ranks(4, train_on, run, 2, 2) == [0] * 4
    assert "went on from before it" in events(run, "fast_passed")[0]["steps"]["6"]
    assert not resumes(run)
    assert_same(run, killed[0])


@pytest.mark.slow
def test_of_three_nodes_one_can_be_lost_and_two_fall_back_to_the_full_tier(root: Path) -> None:
    run, straight = new_run(root, "fast-three", DP3), new_run(root, "fast-three-straight", DP3)
    assert run_ranks(3, train_on, straight, 0, 1) == [0] * 3
    assert run_ranks(3, die_after, run, 0, 1, 9) == [-1] * 3
    assert [sorted(disk(run, node).receipts(8)) for node in range(3)] == [[0, 2], [0, 1], [1, 2]]
    assert (last_step(run), last_full_step(run)) == (8, 5)
    one, two = (again((straight, run), f"fast-three-{name}", root, nodes=3) for name in ("one", "two"))
    disk(one, 1).close()
    for node in (0, 1):
        disk(two, node).close()
    for lost in (one, two):
        assert run_ranks(3, train_on, lost, 1, 1) == [0] * 3
        assert_same(lost, straight)
    assert [(row["step"], row["tier"], row.get("fetched")) for row in (resumes(one)[0], resumes(two)[0])] == [
        (8, "fast", {f"{rank_file(0)} on node1": "node0", f"{rank_file(1)} on node1": "node2"}),
        (5, "full", None),
    ]
    assert events(two, "fast_passed")[0]["steps"] == {"8": "files of ranks [0] are on no node", "6": "files of ranks [0] are on no node"}


def full_disk(world: World, run: RunPaths, attempt: int, per_node: int) -> int:
    """Rank 3 finds no room in its second fast save."""
    from cpt.checkpoint import writer

    write, saves = writer.write, []

    def fail(*arguments: Any) -> None:
        saves.append(0)
        if len(saves) == 2 and world.rank == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*arguments)

    writer.write = fail
    return die_after(world, run, attempt, per_node, 6)


@pytest.mark.slow
def test_a_full_disk_of_a_node_costs_one_fast_save_and_is_said(killed: tuple[RunPaths, RunPaths], root: Path) -> None:
    run = new_run(root, "fast-full", TP2)
    assert run_ranks(4, full_disk, run, 0, 2) == [-1] * 4
    assert [row["step"] for row in events(run, "fast_saved")] == [2, 6]
    assert events(run, "fast_failed") == [{"step": 4, "ranks": 1, "why": "node1: [Errno 28] No space left on device"}]
    for node in range(2):
        assert disk(run, node).steps() == [2, 6] and not list(disk(run, node).folder.glob(".step*"))
    assert run_ranks(4, train_on, run, 1, 2) == [0] * 4
    assert_same(run, killed[0])


@pytest.mark.parametrize("place", ["relative/folder", "$NOT_SET_ANYWHERE/x"])
def test_a_folder_that_is_no_place_on_a_node_is_refused(place: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no absolute path"):
        node_folder(place, RunPaths(tmp_path), "node0")


def test_a_disk_that_other_nodes_see_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "network_type", lambda _: "nfs4")
    with pytest.raises(UserError, match="nfs4 file system: other nodes see it"):
        node_folder("/shared/fast", RunPaths(tmp_path), "node0")


def test_a_file_system_that_other_nodes_see_is_known(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/sda / ext4 rw 0 0\nserver:/x /shared nfs4 rw 0 0\ntmpfs /shared/local tmpfs rw 0 0\nbee /my\\040work beegfs rw 0 0\n")
    found = {path: network_type(Path(path), mounts) for path in ("/tmp", "/shared/runs", "/shared/local/x", "/my work/x", "/sharedx")}
    assert found == {"/tmp": "", "/shared/runs": "nfs4", "/shared/local/x": "", "/my work/x": "beegfs", "/sharedx": ""}
