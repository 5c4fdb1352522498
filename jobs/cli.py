"""`cpt <verb> [overrides]`: compose, validate, seal, run, exit code. Errors are rendered here and nowhere else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

VERBS = {
    "prepare": "raw text -> filtered, deduplicated, tokenized corpus with a manifest",
    "base": "fetch the base's weights and prove that the engine computes the same logits",
    "train": "train here, or with -m as a sweep: one job array, returns at once",
    "sweep": "table of a sweep's trials; writes the chosen setting as a config",
    "plan": "layout, memory, steps, cost; refuses what cannot work",
    "mix": "what is read and how often: show a mixture, compare two, verify bytes and shares, trace a sample to its documents",
    "launch": "write the run directory and submit it",
    "preflight": "ask every node how it is before ranks start there",
    "topology": "how nodes and GPUs are wired: discover, draw, rank order and hop counts, network settings for NCCL",
    "status": "what a run or sweep does, how far it is, what it cost",
    "why": "what failed last, where first, and what was done about it",
    "resume": "show what the next attempt would start from, and submit it",
    "checkpoint": "list a run's checkpoints; verify their bytes against checksums",
    "evaluate": "held-out loss and benchmarks of the base and of the last checkpoint",
    "export": "checkpoint -> Hugging Face folder, refused unless its logits are the engine's",
    "report": "one self-contained report.html",
    "sync": "copy a run's journal to MLflow",
    "config": "show a composed config with every key",
    "devcluster": "a real SLURM on this machine, whose nodes can be killed, cut off and spoiled",
    "bench": "measure one thing here: launch, and what `cpt bench` lists",
    "demo": "the whole job on real text",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns 0 done, 1 ours, 2 yours, 75 resume me, 80 hold."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        print(f"cpt: no verb {verb!r}\n\n{usage()}", file=sys.stderr)
        return 2
    from cpt.core.errors import CptError, UserError

    try:
        return int(importlib.import_module(f"jobs.{verb}").main(rest) or 0)
    except UserError as error:
        print(f"cpt {verb}: {len(error.problems)} problem(s), nothing was started\n", file=sys.stderr)
        print("\n\n".join(f"  {problem}" for problem in error.problems), file=sys.stderr)
        return error.exit_code
    except CptError as error:
        print(f"cpt {verb}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def usage() -> str:
    """All verbs, a line each."""
    width = max(map(len, VERBS))
    lines = "\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())
    return f"usage: cpt <verb> [group=choice] [section.key=value] ...\n\n{lines}\n\nA run is `experiment=<name>` plus overrides: cpt plan experiment=ellama_70b"


if __name__ == "__main__":
    sys.exit(main())
