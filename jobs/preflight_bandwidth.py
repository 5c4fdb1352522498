"""What `cpt preflight` shows; for `--collectives` how fast ranks reach each other and who makes it slow, and one rank's own half of that."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cpt.core.errors import EXIT_DONE, EXIT_OURS
from cpt.core.paths import RunPaths
from cpt.topology.bisect import diagnose
from cpt.topology.culprits import Measured, Verdict
from slurm import collectives
from slurm.collectives import CollectivesReport, CollectivesRequest, Culprit, GroupReport

if TYPE_CHECKING:
    from cpt.config.run import RunConfig
    from cpt.engine.bandwidth import Crew
    from slurm.preflight import Findings


def show(findings: Findings) -> None:
    """Nodes as a table, equal ones folded, and who is unfit."""
    from rich.table import Table

    from jobs.console import open_console
    from slurm import preflight

    free = f"{findings.free_bytes / 1e9:.0f} GB free where the run lies"
    table = Table("nodes", "GPUs", "versions", "attention", "verdict", title=free, box=None, title_justify="left")
    for row in preflight.rows(findings):
        table.add_row(*row)
    console = open_console()
    console.print(table)
    console.print(preflight.summary(findings))


def longer(config: RunConfig) -> RunConfig:
    """With time for the collectives in the job that a preflight starts for itself."""
    nodes = config.slurm.nodes + config.slurm.spare_nodes
    return replace(config, slurm=replace(config.slurm, preflight_seconds=config.slurm.preflight_seconds + collectives.limit(config, nodes)))


def ask(config: RunConfig, nodes: Sequence[str], folder: Path | None) -> int:
    """Measure between these nodes, say who is slow. 1 when somebody is."""
    from rich.table import Table

    from jobs.console import open_console

    report = collectives.measure(config, nodes, expected(config), folder or config.runs.root)
    table = Table("round", "nodes", "all-reduce", "all-gather", "expected", "verdict", title="bus bandwidth", box=None, title_justify="left")
    for row in collectives.rows(report):
        table.add_row(*row)
    console = open_console()
    console.print(table)
    for line in collectives.lines(report, config):
        console.print(line)
    return EXIT_OURS if report.culprits or report.silent else EXIT_DONE


def expected(config: RunConfig) -> tuple[float, float]:
    """(between a node's ranks, between nodes) in bytes a second, as `cpt plan` counts on; CPUs share cores and memory with all else, so there peers tell."""
    from cpt.plan.traffic import NETWORK, NODE

    hardware = config.cluster.hardware
    if not config.cluster.gpus_per_node:
        return 0.0, 0.0
    inside, adapters = hardware.node_bandwidth * NODE, config.slurm.tasks_per_node * hardware.network_bandwidth * NETWORK
    return inside, min(inside, adapters) if config.slurm.tasks_per_node > 1 else adapters


def rank(run: RunPaths) -> int:
    """Measure what rank 0 asks for; rank 0 searches, and reports."""
    started, attempt = time.monotonic(), run.attempt(0)
    from slurm.environment import world_from_environment

    world, request = world_from_environment(), CollectivesRequest.load(collectives.request_path(attempt))
    from cpt.engine.bandwidth import Crew, Silent, Trial

    crew: Crew | None = None
    verdict, silent = Verdict(findings=(), rounds=()), None
    try:
        crew = Crew(world, request.nodes, request.ranks_per_node, Trial(size=request.size, repeats=request.repeats, seconds=request.seconds))
        if world.rank:
            crew.follow()
            return EXIT_DONE
        leaves = [tuple(leaf) for leaf in request.leaves]
        verdict = crew.lead(diagnose(request.nodes, request.ranks_per_node, (request.inside, request.between), leaves))
    except Silent as found:
        silent = found
    CollectivesReport(
        token=request.token,
        groups=groups(crew, verdict) if crew else [],
        culprits=culprits(verdict),
        silent=list(silent.nodes) if silent else [],
        said=str(silent or ""),
        seconds=round(time.monotonic() - started, 1),
    ).save(collectives.report_path(attempt))
    return EXIT_DONE


def groups(crew: Crew, verdict: Verdict) -> list[GroupReport]:
    """What was measured, with the verdicts there are."""
    judged: dict[tuple[int, tuple[str, ...]], Measured] = {(number, m.nodes): m for number, row in enumerate(verdict.rounds) for m in row}
    found = []
    for number, row in enumerate(crew.rounds):
        for nodes, speeds in row.items():
            m = judged.get((number, nodes))
            verdicts = {"expected": m.expected if m else 0.0, "slow": m.slow if m else False}
            speed = {"all_reduce": speeds.all_reduce, "all_gather": speeds.all_gather, "failed": speeds.failed}
            found.append(GroupReport(round=number, nodes=list(nodes), **verdicts, **speed))  # type: ignore[arg-type]
    return found


def culprits(verdict: Verdict) -> list[Culprit]:
    """As records."""
    return [
        Culprit(kind=f.kind, nodes=list(f.nodes), other=list(f.other), bandwidth=f.bandwidth, expected=f.expected, exclude=list(f.exclude))
        for f in verdict.findings
    ]
