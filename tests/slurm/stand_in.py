"""Stands in for a training rank: same files, same signals, same network, no torch. Its behavior is `behave.json` in the run directory.

steps, save_every, seconds (a step), and `fault`: {"rank", "step" or "after": steps of this attempt, "kind": exit | fatal | kill | stop |
disk | anomaly, "attempts": how many of them}.
Every step all ranks meet at rank 0 over TCP, as in an all-reduce: a lost peer is a connection that never answers. The loss is a
hash that each step carries on from the last, so a resumed run that lost, repeated or mixed anything up ends with another number.
"""

import errno
import hashlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from cpt.core.artifacts import write_json
from cpt.core.attempts import RankRecord, StopRecord
from cpt.core.errors import EXIT_DONE, EXIT_HOLD, EXIT_RESUME
from cpt.core.heartbeat import Phase
from cpt.core.paths import RunPaths
from slurm.environment import attempt_from_environment, deadline_from_environment, world_from_environment
from slurm.rank import alive, exit_code

DEFAULTS = {"steps": 20, "save_every": 5, "seconds": 0.1, "fault": None, "beat": 0.5, "save_seconds": 0.0}


def main() -> int:
    run = RunPaths(Path(sys.argv[1]))
    world, attempt = world_from_environment(), attempt_from_environment(run)
    behave = DEFAULTS | json.loads((run.root / "behave.json").read_text())
    with alive(run, attempt, world, behave["beat"]) as heart:
        return exit_code(train(run, world, attempt, behave, heart), world)


def train(run, world, attempt, behave, heart):
    told = []
    signal.signal(signal.SIGUSR2, lambda *_: told.append(1))
    signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    deadline = deadline_from_environment() or float("inf")
    peers = Peers(world)
    step, loss = load(run)
    first = step
    print(f"attempt {attempt} rank {world.rank} of {world.world_size} on {world.node_name} via {world.master_addr}:{world.master_port} from {step}", flush=True)
    journal(run, attempt, world, "events", {"event": "attempt_begin", "resume_step": step, "seq": 0})
    reason = "done"
    while step < behave["steps"]:
        wish = "signal" if told else "deadline" if time.time() > deadline else asked(run, world)
        if (reason := peers.agree(wish)) in ("signal", "deadline", "trigger"):
            break
        if reason == "save":
            save(run, world, step, loss, heart)
        heart.at(Phase.step, step)
        time.sleep(behave["seconds"])
        step, loss = step + 1, following(step + 1, loss)
        misbehave(behave["fault"], run, world, attempt, (step, step - first))
        if (behave["fault"] or {}).get("kind") == "anomaly" and step == behave["fault"]["step"]:  # found by all ranks alike
            reason = "anomaly"
            break
        journal(run, attempt, world, "metrics", {"step": step, "values": {"train/loss": loss}, "consumed_samples": step, "consumed_tokens": step, "seq": step})
        if step % behave["save_every"] == 0:
            save(run, world, step, loss, heart, behave["save_seconds"])
        reason = "done"
    if reason != "anomaly":
        save(run, world, step, loss, heart)
    peers.agree("")
    if world.rank == 0:
        StopRecord(reason=reason, step=step, attempt=attempt, why="loss nan" if reason == "anomaly" else "").save(run.stopped)
    return {"done": EXIT_DONE, "anomaly": EXIT_HOLD}.get(reason, EXIT_RESUME)


def asked(run, world):
    if world.rank == 0 and (run.triggers / "stop").exists():
        return "trigger"
    if world.rank == 0 and (run.triggers / "save").exists():
        (run.triggers / "save").unlink()
        return "save"
    return ""


def following(step, loss):
    """The next loss: depends on every step before it."""
    return int(hashlib.sha256(f"{step} {loss}".encode()).hexdigest()[:8], 16) / 2**32


def load(run):
    if not run.latest.exists():
        return 0, 1.0
    step = json.loads(run.latest.read_text())["step"]
    return step, json.loads((run.checkpoints / f"step_{step:08d}" / "state.json").read_text())["loss"]


def save(run, world, step, loss, heart, seconds=0.0):
    heart.at(Phase.save, step)
    time.sleep(seconds)
    if world.rank == 0:
        write_json(run.checkpoints / f"step_{step:08d}" / "state.json", {"loss": loss})
        write_json(run.latest, {"step": step})


def journal(run, attempt, world, kind, row):
    if world.rank == 0:
        path = run.metrics(attempt) if kind == "metrics" else run.events(attempt)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as file:
            file.write(json.dumps({"ts_ms": round(time.time() * 1000), "attempt": attempt} | row) + "\n")


class Peers:
    """Rank 0 hears a word of everyone and tells all of them the strongest."""

    ORDER = ("", "save", "trigger", "deadline", "signal")

    def __init__(self, world):
        self.rank, self.lines = world.rank, []
        if world.world_size == 1:
            return
        if world.rank == 0:
            server = socket.create_server(("", world.master_port), backlog=world.world_size)
            self.lines = [server.accept()[0].makefile("rw") for _ in range(world.world_size - 1)]
        else:
            self.lines = [self.call(world).makefile("rw")]

    def call(self, world):
        deadline = time.monotonic() + 60
        while True:
            try:
                line = socket.create_connection((world.master_addr, world.master_port), timeout=60)
                line.settimeout(None)
                return line
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def agree(self, wish):
        if self.rank == 0:
            words = [wish, *(self.hear(line) for line in self.lines)]
            strongest = max(words, key=self.ORDER.index)
            for line in self.lines:
                self.tell(line, strongest)
            return strongest
        self.tell(self.lines[0], wish)
        return self.hear(self.lines[0])

    def tell(self, line, word):
        line.write(f"{word}\n")
        line.flush()

    def hear(self, line):
        if not (word := line.readline()):
            raise ConnectionError("lost peer")
        return word.strip()


def misbehave(fault, run, world, attempt, done):
    step, here = done
    if not fault or fault["rank"] != world.rank or attempt >= fault.get("attempts", 99) or (step != fault.get("step") and here != fault.get("after")):
        return
    match fault["kind"]:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "disk":
            raise OSError(errno.ENOSPC, "No space left on device")
        case kind:
            record = RankRecord(
                rank=world.rank,
                host=world.node_name,
                outcome="fatal" if kind == "fatal" else "crash",
                step=step,
                time=time.time(),
                signature="Boom at stand_in.py",
                message="told to",
            )
            record.save(run.attempt(attempt).rank(world.rank))
            sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
