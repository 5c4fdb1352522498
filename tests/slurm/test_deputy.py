"""Who watches the supervisor: on a clock that the test moves, beside a fake SLURM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.config.seal import to_yaml
from cpt.core.artifacts import write_json, write_text
from cpt.core.paths import RunPaths
from slurm import client, deputy
from slurm.recovery import RunState


class Over(Exception):
    """The story ends, and the deputy still watched."""


@dataclass
class World:
    """A clock, a supervisor that beats until a moment, a daemon that answers until another; and what SLURM was asked for."""

    run: RunPaths
    beats_until: float = 0.0
    answers_until: float = 0.0
    until: float = 300.0
    now: float = 1000.0
    said: list[tuple[str, ...]] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now - 1000 > self.until:
            raise Over
        if self.now - 1000 <= self.beats_until:
            self.beat()

    def strftime(self, _: str) -> str:
        return "12:00:00"

    def beat(self) -> None:
        beat = {"rank": -1, "host": "node1", "pid": 1, "phase": "start", "step": 0, "since": 0.0, "time": self.now}
        write_json(self.run.supervisor, beat)

    def answering(self, daemons: object, nodes: list[str]) -> set[str]:
        return set(nodes) if self.now - 1000 <= self.answers_until else set()


Make = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    def world(*overrides: str, **how: float) -> World:
        made = World(RunPaths(tmp_path), **how)
        write_text(made.run.config, to_yaml(config(*overrides)))
        made.beat()
        monkeypatch.setattr(deputy, "time", made)
        monkeypatch.setattr(deputy, "answering", made.answering)
        monkeypatch.setattr(client, "daemons", lambda cluster, nodes: dict.fromkeys(nodes, ("10.0.0.1", 6818)))
        for name, answer in (("requeue", None), ("submit", "8"), ("cancel", None)):
            monkeypatch.setattr(client, name, saying(made, name, answer))
        return made

    return world


def config(*overrides: str) -> RunConfig:
    return compose_config(["train.train_tokens=81920", "slurm.nodes=2", "slurm.heartbeat_seconds=5", "slurm.silence_seconds=30", *overrides])


def saying(world: World, name: str, answer: str | None) -> Callable[..., str | None]:
    def command(_: object, *arguments: Any) -> str | None:
        world.said.append((name, *map(str, arguments)))
        return answer

    return command


def test_silent_and_without_a_daemon_its_job_is_requeued(make: Make) -> None:
    world = make(beats_until=100)
    said = deputy.keep_watch(world.run, "7_3", "node1")
    assert world.said == [("requeue", "7_3")]
    assert 100 + 30 <= world.now - 1000 <= 100 + 32 and "node1 was silent for 30 s" in said


def test_silent_but_answering_it_may_be_the_file_system(make: Make) -> None:
    world = make(beats_until=100, answers_until=1000)
    with pytest.raises(Over):
        deputy.keep_watch(world.run, "7", "node1")
    assert world.said == []


def test_as_long_as_it_beats_nobody_is_asked(make: Make) -> None:
    world = make(beats_until=1000)
    with pytest.raises(Over):
        deputy.keep_watch(world.run, "7", "node1")
    assert world.said == []


def test_a_daemon_that_dies_later_is_noticed_then(make: Make) -> None:
    world = make(beats_until=10, answers_until=200)
    deputy.keep_watch(world.run, "7", "node1")
    assert world.said == [("requeue", "7")] and world.now - 1000 > 200


def test_a_supervisor_that_never_beat_is_missed_too(make: Make) -> None:
    world = make()
    world.run.supervisor.unlink()
    deputy.keep_watch(world.run, "7", "node1")
    assert world.said == [("requeue", "7")]


def test_where_users_may_not_requeue_the_next_job_takes_over(make: Make) -> None:
    world = make("slurm.requeue=false")
    RunState(job="7", streak={"node_lost": 1}).save(world.run.state)
    deputy.keep_watch(world.run, "7", "node1")
    assert world.said == [("submit", str(world.run.script)), ("cancel", "7")], "it is there before this one goes"
    assert RunState.load(world.run.state) == RunState(job="7", streak={"node_lost": 1}, successor="8")


def test_what_the_supervisor_starts_is_this_program(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    world = make()
    python, *module, _, root, _, job, _, host = deputy.command("python3", world.run, "7", "node1")
    assert [python, *module] == ["python3", "-m", "slurm.deputy"] and (job, host) == ("7", "node1")
    assert deputy.main(["--run", root, "--job", job, "--host", host]) == 0
    assert world.said == [("requeue", "7")] and "deputy: node1 was silent" in capfd.readouterr().err
