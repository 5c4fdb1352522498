"""Watches the supervisor from another node, because SLURM does not.

A job with `--no-kill` stays RUNNING when its batch host dies: the nodes that are left are held, with nobody on them, until the time
limit. So one task on another node looks at the supervisor's heartbeat, and when that stops and SLURM's daemon on the batch host does not
answer either, it asks for the requeue that the supervisor cannot ask for any more.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cpt.config.run import RunConfig
from cpt.config.seal import read_config
from cpt.core.heartbeat import Beat, read_beat
from cpt.core.paths import RunPaths
from slurm import attempts, client
from slurm.probe import answering


def keep_watch(run: RunPaths, job: str, host: str) -> str:
    """Returns when the supervisor is lost and the job is on its way back; what is left of the job, this process too, ends with that."""
    config = read_config(run.config)
    daemons = client.daemons(config.cluster, [host])
    seen: Beat | None = None
    changed = time.monotonic()
    while True:
        if (beat := read_beat(run.supervisor)) != seen:
            seen, changed = beat, time.monotonic()
        silent = time.monotonic() - changed
        if silent >= config.slurm.silence_seconds and not answering(daemons, [host]):
            bring_back(run, config, job)
            return f"{host} was silent for {silent:.0f} s and does not answer: job {job} is brought back"
        time.sleep(min(1.0, config.slurm.heartbeat_seconds))


def bring_back(run: RunPaths, config: RunConfig, job: str) -> None:
    """Requeue, or, where the site does not let its users, submit the next job of the chain and let this one go."""
    if config.slurm.requeue:
        client.requeue(config.cluster, job)
        return
    successor = client.submit(config.cluster, run.script)
    dataclasses.replace(attempts.load_state(run), successor=successor).save(run.state)
    client.cancel(config.cluster, job)


def command(python: str, run: RunPaths, job: str, host: str) -> list[str]:
    """What the supervisor starts on another node."""
    return [python, "-m", "slurm.deputy", "--run", str(run.root), "--job", job, "--host", host]


def main(arguments: Sequence[str] | None = None) -> int:
    """One task of a step of its own."""
    parser = argparse.ArgumentParser(prog="slurm.deputy", description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--job", required=True)
    parser.add_argument("--host", required=True)
    given = parser.parse_args(arguments)
    sys.stderr.write(f"{time.strftime('%H:%M:%S')}  deputy: {keep_watch(RunPaths(given.run), given.job, given.host)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
