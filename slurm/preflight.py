"""Every node is asked how it is before ranks start: who is unfit, and why. The supervisor asks, and `cpt preflight`."""

from __future__ import annotations

import math
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cpt.config.fingerprint import fingerprint
from cpt.config.run import RunConfig
from cpt.config.running import Scheduler
from cpt.core.errors import CptError
from cpt.core.nodes import fold
from cpt.core.paths import AttemptPaths, RunPaths
from cpt.core.records import PlanRecord
from slurm import client, script
from slurm.node import NodeReport, PreflightRequest, node_name, report_path, request_path

_CHECKPOINTS = 2
"""That must fit: the newest complete one, and the one being written."""

_LAG = 2.0
"""Seconds that a shared file system may take to show a report after its writer has ended."""

_LOOK = 0.1
"""Seconds between two looks at who has reported."""

_MARGIN = 2
"""Minutes that a preflight's own job has beyond the preflight."""

Start = Callable[[list[str]], "subprocess.Popen[bytes]"]
"""Starts an srun line in the environment of a step."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a preflight found."""

    nodes: Sequence[str]
    reports: Mapping[str, NodeReport]
    """Node -> its report, of those that gave one."""
    unfit: dict[str, str]
    """Node -> why no rank should start there."""

    @property
    def free_bytes(self) -> int:
        """Where the run lies, as the node sees it that sees least."""
        return min((report.free_bytes for report in self.reports.values()), default=0)


def examine(run: RunPaths, config: RunConfig, argv: Sequence[str], attempt: int, nodes: Sequence[str], start: Start) -> dict[str, str]:
    """Node -> why no rank should start there. Returns as soon as every node has reported, at the latest after `slurm.preflight_seconds`.

    `argv` is `slurm.script.preflight_step`. Raises `CptError` when not one node reports: then the question is broken, not sixty nodes.
    """
    return look(run, config, argv, attempt, nodes, start).unfit


def look(run: RunPaths, config: RunConfig, argv: Sequence[str], attempt: int, nodes: Sequence[str], start: Start) -> Findings:
    """`examine`, with the reports.

    A node that is dead to srun ends the whole step, also on nodes that were still looking: those are asked again, each by a step of its own.
    """
    paths = run.attempt(attempt)
    request = _ask(run, config, paths)
    inquiry = _Inquiry(paths, request.token, nodes, time.monotonic() + request.seconds)
    line = [*argv, "--attempt", str(attempt)]
    inquiry.wait([start(on(line, nodes))])
    if len(nodes) > 1 and inquiry.missing and time.monotonic() < inquiry.deadline:
        inquiry.wait([start(on(line, [node])) for node in inquiry.missing])
    if not inquiry.reports:
        raise CptError(f"preflight: none of {len(nodes)} nodes reported, so it is not they who fail; slurm.preflight=false goes without")
    return Findings(nodes=nodes, reports=inquiry.reports, unfit=judge(inquiry.reports, nodes))


def rehearse(config: RunConfig, folder: Path | None) -> Findings:
    """`at_hand`, in a place beside the run's own files that is gone afterwards: no attempt is counted. `folder` is a run that exists."""
    plan = RunPaths(folder).plan if folder else config.runs.plan(config.name, fingerprint(config))
    beside = folder or config.runs.root
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".preflight-", dir=beside.absolute()) as scratch:
        run = RunPaths(Path(scratch))
        if plan.is_file():
            shutil.copy(plan, run.plan)
        return at_hand(run, config)


def at_hand(run: RunPaths, config: RunConfig) -> Findings:
    """Of the nodes of the allocation that this process is in; of this machine where there is no scheduler."""
    environment = os.environ | script.environment(config)
    if config.cluster.scheduler is Scheduler.local:
        return look(run, config, script.node_argv(run), 0, [node_name()], lambda argv: subprocess.Popen(argv, env=environment))
    environment |= {"SLURM_CONF": config.cluster.slurm_conf} if config.cluster.slurm_conf else {}
    nodes = client.host_names(config.cluster, os.environ["SLURM_JOB_NODELIST"])
    step = script.preflight_step(config, run, sys.executable)
    return look(run, config, step, 0, nodes, lambda argv: subprocess.Popen(argv, env=environment))


def in_a_job(config: RunConfig, command: Sequence[str]) -> int:
    """Run `command` here, inside of a short job of its own that holds the nodes the run would get; returns its exit code."""
    client.require(config.cluster)
    options = script.placement(config) | {"no-kill": "", "job-name": "preflight", "time": str(_MARGIN + math.ceil(config.slurm.preflight_seconds / 60))}
    flags = [f"--{name}={value}" if value else f"--{name}" for name, value in options.items()]
    return subprocess.run(["salloc", *flags, *command], env=client.environment(config.cluster), check=False).returncode


def judge(reports: Mapping[str, NodeReport], nodes: Sequence[str]) -> dict[str, str]:
    """Node -> its problems in one line. Silence is one, and so is a version that most of the others do not have."""
    ordered = [reports[node] for node in nodes if node in reports]
    odd = _odd_ones(ordered)
    reasons = {node: ["did not report"] for node in nodes if node not in reports}
    reasons |= {report.node: [*report.problems, *odd.get(report.node, ())] for report in ordered}
    return {node: "; ".join(reasons[node]) for node in nodes if reasons[node]}


def _odd_ones(reports: Sequence[NodeReport]) -> dict[str, list[str]]:
    """Versions must be equal everywhere. Of two halves the one with the first node is right."""
    found: dict[str, list[str]] = {}
    for package in sorted({name for report in reports for name in report.versions}):
        usual = Counter(report.versions.get(package, "none") for report in reports).most_common(1)[0][0]
        for report in reports:
            if (version := report.versions.get(package, "none")) != usual:
                found.setdefault(report.node, []).append(f"{package} is {version}, elsewhere {usual}")
    return found


def rows(findings: Findings) -> list[tuple[str, ...]]:
    """(nodes, GPUs, versions, attention, verdict), equal ones folded; unfit ones last."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for node in findings.nodes:
        report, verdict = findings.reports.get(node), findings.unfit.get(node, "fit")
        groups.setdefault((*_facts(report), verdict), []).append(node)
    return [(fold(nodes), *facts) for facts, nodes in sorted(groups.items(), key=lambda group: group[0][-1] != "fit")]


def summary(findings: Findings) -> str:
    """`58 nodes fit; node7: clock is 93 s ahead`."""
    groups: dict[str, list[str]] = {}
    for node, why in findings.unfit.items():
        groups.setdefault(why, []).append(node)
    return "; ".join([f"{len(findings.nodes) - len(findings.unfit)} nodes fit", *(f"{fold(nodes)}: {why}" for why, nodes in groups.items())])


def _facts(report: NodeReport | None) -> tuple[str, str, str]:
    if report is None:
        return "", "", ""
    gpus = ", ".join(f"{count} x {name}" for name, count in Counter(report.gpus).items()) or "-"
    return gpus, " ".join(f"{name} {version}" for name, version in report.versions.items()), report.attention


def on(argv: Sequence[str], nodes: Sequence[str]) -> list[str]:
    """An srun line, one task on each of these nodes; a command that is none stays as it is."""
    first, *rest = argv
    return [first, f"--nodes={len(nodes)}", f"--ntasks={len(nodes)}", f"--nodelist={','.join(nodes)}", *rest] if first == "srun" else [*argv]


def _ask(run: RunPaths, config: RunConfig, paths: AttemptPaths) -> PreflightRequest:
    planned = PlanRecord.load(run.plan).checkpoint_bytes if run.plan.is_file() else 0
    request = PreflightRequest(
        token=secrets.token_hex(8),
        gpus=config.cluster.gpus_per_node,
        free_bytes=_CHECKPOINTS * planned,
        health_check=list(config.cluster.health_check),
        seconds=config.slurm.preflight_seconds,
    )
    request.save(request_path(paths))
    return request


@dataclass
class _Inquiry:
    """Reports of one preflight as they come in. `deadline` on the monotonic clock."""

    paths: AttemptPaths
    token: str
    nodes: Sequence[str]
    deadline: float
    reports: dict[str, NodeReport] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """Nodes that have not reported, in order."""
        return [node for node in self.nodes if node not in self.reports]

    def wait(self, children: Sequence[subprocess.Popen[bytes]]) -> None:
        """Until all have reported, the time is over, or nobody is left who could."""
        until = self.deadline
        try:
            while self._read() and time.monotonic() < until:
                if all(child.poll() is not None for child in children):
                    until = min(until, time.monotonic() + _LAG)
                time.sleep(_LOOK)
        finally:
            for child in children:
                _end(child, patience=0.0 if self.missing else _LAG)

    def _read(self) -> list[str]:
        for node in self.missing:
            path = report_path(self.paths, node)
            if path.is_file() and (report := NodeReport.load(path)).token == self.token:
                self.reports[node] = report
        return self.missing


def _end(child: subprocess.Popen[bytes], patience: float) -> None:
    """A node that hangs must not keep the others waiting."""
    for stop, seconds in ((lambda: None, patience), (child.terminate, _LAG), (child.kill, _LAG)):
        stop()
        try:
            child.wait(seconds)
            return
        except subprocess.TimeoutExpired:
            continue
