"""The stand-in rank, with a held-out loss of the domain that depends on one setting: lowest at `optimizer.lr_ratio=0.1`."""

import math
import sys
from pathlib import Path

import stand_in

from cpt.config.seal import read_config
from cpt.core.paths import RunPaths
from slurm.environment import attempt_from_environment, world_from_environment


def main() -> int:
    run = RunPaths(Path(sys.argv[1]))
    world, attempt = world_from_environment(), attempt_from_environment(run)
    loss = 2 + math.log10(read_config(run.config).optimizer.lr_ratio / 0.1) ** 2
    row = {"step": 0, "values": {"heldout/loss/domain": loss}, "consumed_samples": 0, "consumed_tokens": 0, "seq": -1}
    stand_in.journal(run, attempt, world, "metrics", row)
    return stand_in.main()


if __name__ == "__main__":
    sys.exit(main())
