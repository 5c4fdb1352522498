"""Stands in for a training rank: same files, same signals, no torch. Its behavior is `behave.json` in the run directory.

steps, save_every, seconds (a step), and `crash`: {"rank", "step", "kind": exit | fatal | kill, "attempts": how many of them}.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from cpt.core.artifacts import write_json, write_text
from cpt.core.attempts import RankRecord, StopRecord
from cpt.core.paths import RunPaths
from slurm.environment import attempt_from_environment, world_from_environment
from slurm.rank import exit_code


def main() -> int:
    run = RunPaths(Path(sys.argv[1]))
    world, attempt = world_from_environment(), attempt_from_environment(run)
    behave = {"steps": 20, "save_every": 5, "seconds": 0.1, "crash": None} | json.loads((run.root / "behave.json").read_text())
    told = []
    signal.signal(signal.SIGUSR2, lambda *_: told.append(1))
    step = json.loads(run.latest.read_text())["step"] if run.latest.exists() else 0
    print(f"attempt {attempt} rank {world.rank} of {world.world_size} on {world.node_name} via {world.master_addr}:{world.master_port} from {step}", flush=True)
    while step < behave["steps"] and not told:
        time.sleep(behave["seconds"])
        step += 1
        meet(run.attempt(attempt).root / "beat", world, step, told)
        misbehave(behave["crash"], run, world, attempt, step)
        if world.rank == 0 and step % behave["save_every"] == 0:
            write_json(run.latest, {"step": step})
    if world.rank == 0:
        write_json(run.latest, {"step": step})
        StopRecord(reason="signal" if told else "done", step=step, attempt=attempt).save(run.stopped)
    return exit_code(75 if told else 0, world)


def meet(folder, world, step, told):
    """All ranks are at this step, as after an all-reduce; without this a slow rank's crash would find the others far ahead."""
    folder.mkdir(exist_ok=True)
    write_text(folder / str(world.rank), str(step))
    while not told and any(int(read(folder / str(rank))) < step for rank in range(world.world_size)):
        time.sleep(0.01)


def read(path):
    return path.read_text() if path.exists() else "0"


def misbehave(crash, run, world, attempt, step):
    if not crash or (crash["rank"], crash["step"]) != (world.rank, step) or attempt >= crash.get("attempts", 99):
        return
    if crash["kind"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    outcome = "fatal" if crash["kind"] == "fatal" else "crash"
    record = RankRecord(rank=world.rank, host=world.node_name, outcome=outcome, step=step, signature="Boom at stand_in.py", message="told to")
    record.save(run.attempt(attempt).rank(world.rank))
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
