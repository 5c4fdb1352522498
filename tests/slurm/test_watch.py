"""Who is silent, who does not get on: beats on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cpt.config.running import SlurmConfig
from cpt.core.attempts import Ending
from cpt.core.heartbeat import Beat, Phase
from slurm.watch import Monitor, Pulse, Trouble, describe, limits

CONFIG = SlurmConfig(heartbeat_seconds=5, silence_seconds=30, start_seconds=1800, hang_seconds=600, hang_factor=10)
EVERYBODY = {"node1", "node2", "node3"}


class Ranks:
    """Six ranks on three nodes that beat every five seconds and do a step a second, each unless it is told otherwise."""

    def __init__(self, longest: dict[str, float] | None = None) -> None:
        self.now = 0.0
        self.monitor = Monitor(CONFIG, longest=dict(longest or {"step": 1.0}))
        self.answering = set(EVERYBODY)
        self.asked: list[set[str]] = []
        self.beats = {rank: beat(rank) for rank in range(6)}

    def run(self, seconds: float, silent: Sequence[int] = (), stuck: Sequence[int] = ()) -> Trouble | None:
        """The first trouble within `seconds`. Who is stuck beats, but does no step."""
        end = self.now + seconds
        while self.now < end:
            self.now += 5
            for rank in set(range(6)) - set(silent):
                self.beats[rank] = beat(rank, step=self.beats[rank].step, at=self.now) if rank in stuck else beat(rank, step=int(self.now), at=self.now)
            self.monitor.see(self.beats.values(), self.now)
            if trouble := self.monitor.trouble(self.now, self.answers):
                return trouble
        return None

    def answers(self, nodes: Sequence[str]) -> set[str]:
        self.asked.append(set(nodes))
        return self.answering & set(nodes)


def beat(rank: int, phase: Phase = Phase.step, step: int = 0, at: float = 0.0, since: float | None = None) -> Beat:
    return Beat(rank=rank, host=f"node{rank // 2 + 1}", pid=100 + rank, phase=phase, step=step, since=at if since is None else since, time=at)


def test_all_is_well_and_nobody_is_asked() -> None:
    ranks = Ranks()
    assert ranks.run(4000) is None
    assert ranks.asked == []


def test_a_silent_node_whose_daemon_is_silent_too_is_lost() -> None:
    ranks = Ranks()
    ranks.run(100)
    ranks.answering.discard("node2")
    found = ranks.run(100, silent=[2, 3], stuck=[0, 1, 4, 5])
    assert found is not None and found.ending is Ending.node_lost
    assert (found.nodes, found.ranks, found.seconds) == (["node2"], [2, 3], 30)
    assert "no heartbeat for 30 s" in found.message


def test_two_nodes_are_lost_at_once() -> None:
    ranks = Ranks()
    ranks.run(100)
    ranks.answering = {"node1"}
    found = ranks.run(100, silent=[2, 3, 4, 5])
    assert found is not None and (found.ending, found.nodes) == (Ending.node_lost, ["node2", "node3"])


def test_a_silent_rank_beside_one_that_beats_is_no_lost_node() -> None:
    """Its daemon is not even asked; what the rank does is for the limits of a hang to say."""
    ranks = Ranks()
    ranks.run(100)
    ranks.answering.discard("node2")
    assert ranks.run(500, silent=[3]) is None
    assert ranks.asked == []
    ranks.answering.add("node2")
    found = ranks.run(200, silent=[3], stuck=[0, 1, 2, 4, 5])
    assert found is not None and (found.ending, found.nodes, found.ranks) == (Ending.hang, ["node2"], [3])
    assert found.seconds == 600 and found.message.endswith("silent: rank 3 on node2")


def test_a_slow_file_system_loses_no_node() -> None:
    """All are silent, all daemons answer: only the much longer limit of a hang ends it."""
    ranks = Ranks()
    ranks.run(100)
    assert ranks.run(595, silent=range(6)) is None
    assert ranks.asked[0] == EVERYBODY
    found = ranks.run(10, silent=range(6))
    assert found is not None and found.ending is Ending.hang


def test_a_file_system_that_comes_back_is_forgotten() -> None:
    ranks = Ranks()
    ranks.run(100)
    ranks.run(300, silent=range(6))
    assert ranks.run(700) is None


def test_ranks_that_beat_and_do_not_get_on_are_stuck() -> None:
    ranks = Ranks()
    ranks.run(100)
    assert ranks.run(595, stuck=range(6)) is None
    found = ranks.run(10, stuck=range(6))
    assert found is not None and (found.ending, found.nodes, found.ranks) == (Ending.hang, [], [])
    assert found.message == "no progress for 600 s in phase step after step 100 (allowed 600 s); no rank differs from the others"


def test_who_is_behind_is_blamed_when_all_beat() -> None:
    ranks = Ranks()
    ranks.run(100)
    ranks.run(10, stuck=[4])
    found = ranks.run(1000, stuck=range(6))
    assert found is not None and (found.ending, found.nodes, found.ranks) == (Ending.hang, ["node3"], [4])
    assert found.message.endswith("behind: rank 4 on node3")


def test_a_node_that_is_cut_off_is_noticed_though_its_ranks_beat() -> None:
    """Heartbeats go through the file system, which may have a network of its own."""
    ranks = Ranks()
    ranks.run(100)
    ranks.answering.discard("node3")
    found = ranks.run(100, stuck=range(6))
    assert found is not None and (found.ending, found.nodes, found.ranks) == (Ending.node_lost, ["node3"], [4, 5])
    assert 30 < found.seconds <= 50, "asked twice"


def test_a_daemon_that_was_restarted_loses_no_node() -> None:
    ranks = Ranks()
    ranks.run(100)
    ranks.answering.discard("node3")
    assert ranks.run(35, stuck=range(6)) is None
    ranks.answering.add("node3")
    assert ranks.run(500, stuck=range(6)) is None


def test_as_long_as_others_get_on_no_daemon_is_asked() -> None:
    ranks = Ranks()
    ranks.answering.clear()
    assert ranks.run(1000) is None


def test_a_rank_that_is_done_is_not_silent() -> None:
    monitor = Monitor(CONFIG)
    monitor.see([beat(rank, Phase.done, 20) for rank in range(6)], 0.0)
    assert monitor.trouble(100_000.0, lambda _: set()) is None


def test_before_the_first_step_there_is_more_time() -> None:
    monitor = Monitor(CONFIG, longest={"step": 1.0})
    for now in range(0, 1800, 5):
        monitor.see([beat(rank, Phase.start, at=now, since=0.0) for rank in range(6)], now)
        assert monitor.trouble(now, set) is None
    found = monitor.trouble(1800.0, set)
    assert found is not None and found.ending is Ending.hang and "in phase start" in found.message


def test_limits_come_from_what_was_measured() -> None:
    assert limits(CONFIG, {}) == dict.fromkeys(Phase, 1800.0)
    measured = limits(CONFIG, {"step": 4.0, "save": 90.0, "start": 5000.0})
    assert measured[Phase.step] == 600, "the least, for a quick step may follow a slow one"
    assert measured[Phase.save] == 900
    assert measured[Phase.evaluate] == 1800, "not yet seen"
    assert measured[Phase.start] == 1800


@pytest.mark.parametrize(
    ("before", "after", "longest"),
    [
        (beat(0, Phase.step, 10, since=50.0), beat(0, Phase.step, 11, since=54.0), {"step": 4.0}),
        (beat(0, Phase.step, 10, since=50.0), beat(0, Phase.step, 15, since=60.0), {"step": 2.0}),
        (beat(0, Phase.save, 10, since=50.0), beat(0, Phase.step, 10, since=80.0), {"save": 30.0}),
        (beat(0, Phase.start, 0, since=0.0), beat(0, Phase.step, 0, since=80.0), {}),
    ],
    ids=["a step", "several steps between two beats share their time", "a save", "a start is not measured"],
)
def test_what_a_phase_took(before: Beat, after: Beat, longest: dict[str, float]) -> None:
    monitor = Monitor(CONFIG)
    monitor.see([before], 0.0)
    monitor.see([after], 1.0)
    assert monitor.longest == longest


def test_the_longest_stays_the_longest() -> None:
    monitor = Monitor(CONFIG, longest={"step": 8.0})
    for moment in range(3):
        monitor.see([beat(0, Phase.step, moment, since=float(moment))], moment)
    assert monitor.longest == {"step": 8.0}


def test_many_ranks_are_not_all_named() -> None:
    pulses = {rank: Pulse(beat(rank), 0.0, 0.0) for rank in range(20)}
    assert describe(pulses, most=2) == "rank 0 on node1, rank 1 on node1 and 18 more"
