"""How fast ranks reach each other: one step of ranks where training's would be, which measure it; what they found as rows, and as a line to type.

`cpt preflight --collectives`. The ranks get what training's get: command line, environment, container. They leave one report, written by rank 0.
"""

from __future__ import annotations

import dataclasses
import math
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cpt.config.run import RunConfig
from cpt.config.running import Runtime, Scheduler
from cpt.core.artifacts import Artifact
from cpt.core.errors import CptError
from cpt.core.nodes import fold
from cpt.core.paths import AttemptPaths, RunPaths
from slurm import client, script
from slurm.here import Here, LocalStep
from slurm.steps import meeting

_LOOK = 0.2
"""Seconds between two looks for the report."""

_LAG = 3.0
"""Seconds that a shared file system may take to show it."""

_LEAVE = 20.0
"""Seconds that ranks may take to leave by themselves."""

_START = 120.0
"""Seconds in which all ranks should have imported torch."""

_PORTS = 500
"""Different meeting points of one job."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectivesRequest(Artifact):
    """What the ranks are asked. Bandwidths are bus bandwidths in bytes a second, 0 where only peers can tell."""

    token: str
    nodes: list[str]
    """In the order of their ranks."""
    ranks_per_node: int
    leaves: list[list[str]]
    inside: float
    """Expected between the ranks of a node."""
    between: float
    """Expected between nodes."""
    size: int
    """Bytes of a buffer."""
    repeats: int
    seconds: float
    """Patience with one round."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupReport(Artifact):
    """One group of one round; a node alone was measured between its own ranks."""

    round: int
    nodes: list[str]
    all_reduce: float
    all_gather: float
    expected: float
    """What it was judged by."""
    slow: bool
    failed: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Culprit(Artifact):
    """As `cpt.topology.culprits.Finding`."""

    kind: str
    nodes: list[str]
    other: list[str]
    bandwidth: float
    expected: float
    exclude: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectivesReport(Artifact):
    """What was measured, and who is slow."""

    token: str
    groups: list[GroupReport]
    culprits: list[Culprit]
    silent: list[str]
    """Nodes whose ranks gave no answer; then the search ended there."""
    said: str
    """About them."""
    seconds: float

    @property
    def exclude(self) -> list[str]:
        """Nodes without which the rest should be fast."""
        return list(dict.fromkeys([*self.silent, *(node for culprit in self.culprits for node in culprit.exclude)]))


def request_path(attempt: AttemptPaths) -> Path:
    """Of the request."""
    return attempt.preflight / "collectives"


def report_path(attempt: AttemptPaths) -> Path:
    """Of rank 0's report."""
    return attempt.preflight / "collectives.json"


def ask(config: RunConfig, nodes: Sequence[str], expected: tuple[float, float]) -> CollectivesRequest:
    """Of these nodes. `expected` is (inside, between). Bandwidth is only reached by large buffers: 512 MiB on GPUs, 4 MiB on CPUs."""
    gpus = config.cluster.gpus_per_node > 0
    leaves: list[list[str]] = []
    if config.cluster.scheduler is Scheduler.slurm and config.slurm.topology:
        leaves = [list(found) for found in client.fabric(config.cluster).leaves(nodes).values()]
    return CollectivesRequest(
        token=secrets.token_hex(8),
        nodes=list(nodes),
        ranks_per_node=config.slurm.tasks_per_node,
        leaves=leaves,
        inside=expected[0],
        between=expected[1],
        size=2**29 if gpus else 2**22,
        repeats=10 if gpus else 15,
        seconds=120.0 if gpus else 60.0,
    )


def limit(config: RunConfig, nodes: int) -> float:
    """Seconds that it may take: a round for each halving and a few more."""
    return _START + (120.0 if config.cluster.gpus_per_node else 60.0) * (3 + math.log2(max(1, nodes)))


def measure(config: RunConfig, nodes: Sequence[str], expected: tuple[float, float], beside: Path) -> CollectivesReport:
    """In a folder of its own in `beside`, which is gone afterwards. Raises `CptError` when no report comes in time."""
    request = ask(config, nodes, expected)
    if len(nodes) * request.ranks_per_node < 2:
        return CollectivesReport(token=request.token, groups=[], culprits=[], silent=[], said="", seconds=0.0)
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".collectives-", dir=beside.absolute()) as scratch:
        run = RunPaths(Path(scratch))
        request.save(request_path(run.attempt(0)))
        return _wait(run.attempt(0), request, _start(config, run, nodes), limit(config, len(nodes)))


def _start(config: RunConfig, run: RunPaths, nodes: Sequence[str]) -> subprocess.Popen[bytes] | LocalStep:
    python = sys.executable if config.cluster.runtime is Runtime.bare else config.cluster.rank_python
    command = [python, "-m", "jobs.cli", "preflight", "--bandwidth-rank", "--run"]
    if config.cluster.scheduler is Scheduler.local:
        return Here(config, rank_command=command).start(run, 0, nodes)
    shaped = dataclasses.replace(config, slurm=dataclasses.replace(config.slurm, nodes=len(nodes)))  # spares are measured too
    first, *rest = script.rank_step(shaped, run, sys.executable, command)
    log = str(run.attempt(0).log("%t")).replace("%", "%%").replace("%%t.log", "%t.log")
    point = meeting(nodes[0], os.environ["SLURM_JOB_ID"], secrets.randbelow(_PORTS), None)
    environment = os.environ | script.environment(config) | point | ({"SLURM_CONF": config.cluster.slurm_conf} if config.cluster.slurm_conf else {})
    return subprocess.Popen([first, f"--nodelist={','.join(nodes)}", f"--output={log}", *rest], env=environment, start_new_session=True)


def _wait(attempt: AttemptPaths, request: CollectivesRequest, step: subprocess.Popen[bytes] | LocalStep, seconds: float) -> CollectivesReport:
    """Until the report is there; a step that ended without one has until the file system has caught up."""
    path, until, code = report_path(attempt), time.monotonic() + seconds, None
    try:
        while time.monotonic() < until:
            if path.is_file():
                return CollectivesReport.load(path)
            if code is None and (code := step.poll()) is not None:
                until = min(until, time.monotonic() + _LAG)
            time.sleep(_LOOK)
    finally:
        _end(step)
    how = f"ended with {code}" if code is not None else f"gave no report in {seconds:.0f} s"
    raise CptError("\n".join([f"collectives: the ranks' step {how}", *_last_words(attempt, len(request.nodes) * request.ranks_per_node)]))


def _end(step: subprocess.Popen[bytes] | LocalStep) -> None:
    """Ranks leave by themselves; those that cannot are ended: srun ends its own when it is told twice."""
    until = time.monotonic() + _LEAVE
    while step.poll() is None and time.monotonic() < until:
        time.sleep(_LOOK)
    if step.poll() is None:
        step.kill() if isinstance(step, LocalStep) else _end_srun(step)


def _end_srun(step: subprocess.Popen[bytes]) -> None:
    for stop in (step.terminate, step.kill):
        stop()
        try:
            step.wait(_LAG)
            return
        except subprocess.TimeoutExpired:
            continue


def _last_words(attempt: AttemptPaths, ranks: int) -> Iterator[str]:
    """The last line of the first ranks that said something."""
    logs = [attempt.log(rank) for rank in range(ranks)]
    said = {path.stem: path.read_text(errors="replace").strip().splitlines()[-1:] for path in logs if path.is_file()}
    yield from [f"{name}: {lines[0]}" for name, lines in said.items() if lines][:4]


def rows(report: CollectivesReport) -> list[tuple[str, ...]]:
    """(round, nodes, all-reduce, all-gather, expected, verdict): a row for each slow group; the others of a round and size as one, by their slowest."""
    found: dict[tuple[object, ...], list[GroupReport]] = {}
    for group in report.groups:
        key = (group.round, len(group.nodes), group.nodes[0] if group.slow else "")
        found.setdefault(key, []).append(group)
    return [_row(groups) for groups in found.values()]


def _row(groups: Sequence[GroupReport]) -> tuple[str, ...]:
    least = min(groups, key=lambda group: group.all_reduce)
    names = fold(least.nodes) if len(groups) == 1 else f"{len(groups)} groups of {len(least.nodes)}"
    speeds = [rate(value) if value else "-" for value in (least.all_reduce, min(group.all_gather for group in groups), least.expected)]
    return str(least.round + 1), names, *speeds, least.failed or ("slow" if least.slow else "")


def lines(report: CollectivesReport, config: RunConfig) -> Iterator[str]:
    """Who is slow, by how much, and what to type."""
    if not report.groups and not report.silent:
        yield "one rank has nobody to talk to: nothing was measured"
        return
    if report.silent:
        yield report.said
    yield from (_sentence(culprit) for culprit in report.culprits)
    rounds = len({group.round for group in report.groups})
    if not report.culprits and not report.silent:
        whole = max(report.groups, key=lambda group: len(group.nodes))
        yield f"nobody is slow: {rate(whole.all_reduce)} in {fold(whole.nodes)}, {rounds} round{'s' if rounds > 1 else ''}, {report.seconds:.0f} s"
        return
    yield f"found in {rounds} rounds, {report.seconds:.0f} s{_without(report)}"
    if report.exclude:
        yield f"leave out: slurm.exclude=[{','.join(dict.fromkeys([*config.slurm.exclude, *report.exclude]))}]"


def _sentence(culprit: Culprit) -> str:
    names, by = fold(culprit.nodes), f"{rate(culprit.bandwidth)} where {rate(culprit.expected)} are due"
    match culprit.kind:
        case "inside":
            return f"{names} is slow inside, between its own ranks: {by}"
        case "node":
            return f"{names} is slow to every other node: {by}"
        case "link":
            return f"{' and '.join(culprit.nodes)} are slow with each other, fast with others: {by}; look at the path between them"
        case "joint":
            return f"what joins {names} with {fold(culprit.other)} is slow, each side is fast by itself: {by}; look at the switches between them"
        case _:
            return f"{names}: slow, and no node known to be good is left to tell which of them: {by}"


def _without(report: CollectivesReport) -> str:
    """The last round's proof, when it is one."""
    last = [group for group in report.groups if group.round == report.groups[-1].round] if report.groups else []
    fast = report.exclude and len(last) == 1 and not last[0].slow
    return f"; without {fold(report.exclude)} {rate(last[0].all_reduce)} between the other {len(last[0].nodes)}" if fast else ""


def rate(value: float) -> str:
    """Bytes a second in decimal units, as data sheets and nccl-tests write them."""
    return f"{value / 1e9:.3g} GB/s" if value >= 1e9 else f"{value / 1e6:.3g} MB/s"
