"""All layouts of a run on its ranks, cheapest step first, each other one with what it loses by."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cpt.config.parallel import ParallelConfig, Recompute, RecomputeModule
from cpt.config.run import RunConfig
from cpt.config.validate import common_divisor, divisors, layout_problems
from cpt.core import units
from cpt.core.errors import Problem, UserError
from cpt.plan.memory import fullest_rank
from cpt.plan.step import PARTS, step_seconds
from cpt.plan.workload import Workload, workload

_CONTEXT = (1, 2, 4, 8, 16)
_MICRO_BATCHES = (1, 2, 4, 8)

_RECOMPUTES: tuple[tuple[Recompute, tuple[RecomputeModule, ...]], ...] = (
    (Recompute.none, (RecomputeModule.core_attn,)),
    (Recompute.selective, (RecomputeModule.mlp,)),
    (Recompute.full, (RecomputeModule.core_attn,)),
)
_EXPERT_RECOMPUTE = (Recompute.selective, (RecomputeModule.mlp, RecomputeModule.moe))


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A layout that fits. `step` is seconds by part, `memory` bytes by part on the fullest rank."""

    parallel: ParallelConfig
    micro_batch_size: int
    replicas: int
    step: dict[str, float]
    memory: dict[str, int]

    @property
    def seconds(self) -> float:
        """Of a step."""
        return self.step["total"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """`fitting`, best first; of all others how many for which reason."""

    world_size: int
    fitting: list[Candidate]
    refused: dict[str, int]
    smallest: int
    """Bytes of the fullest rank in the layout that needs least."""

    @property
    def tried(self) -> int:
        """Layouts that were looked at."""
        return len(self.fitting) + sum(self.refused.values())

    def summary(self, config: RunConfig) -> str:
        """How many were looked at, and what became of the others."""
        others = "".join(f", {count:,} {reason}" for reason, count in sorted(self.refused.items()))
        room = units.size(config.cluster.hardware.memory)
        return f"{config.model.name} on {self.world_size} ranks: {self.tried:,} layouts, {len(self.fitting):,} fit into {room}{others}"


def search(config: RunConfig) -> Found:
    """Every layout of `config`'s ranks, batch and model, pruned by divisibility, then by memory, ranked by predicted step time.

    Ties go to the shorter pipeline, then to less recomputation. The choice of how gradients and weights overlap stays with the config.
    """
    base = workload(config)
    refused: Counter[str] = Counter()
    fitting, smallest = [], 0
    for parallel, micro_batch in _layouts(config):
        if not _divides(base, parallel, micro_batch) or any(layout_problems(_with(config, parallel, micro_batch))):
            refused["do not divide"] += 1
            continue
        work = replace(base, parallel=parallel, micro_batch_size=micro_batch)
        memory = fullest_rank(work)
        smallest = min(smallest or memory["total"], memory["total"])
        if memory["total"] > base.hardware.memory:
            refused["do not fit"] += 1
            continue
        fitting.append(Candidate(parallel=parallel, micro_batch_size=micro_batch, replicas=work.replicas, step=step_seconds(work), memory=memory))
    return Found(world_size=base.world_size, fitting=sorted(fitting, key=_rank), refused=dict(refused), smallest=smallest)


def _rank(candidate: Candidate) -> tuple[float, int, float]:
    return round(candidate.seconds, 6), candidate.parallel.pipeline_parallel_size, candidate.step["recompute"]


def _layouts(config: RunConfig) -> Iterator[tuple[ParallelConfig, int]]:
    """TP inside a node, any PP and number of chunks, rows over up to 16 ranks, experts inside a node."""
    model, slurm = config.model, config.slurm
    tensors = [size for size in divisors(common_divisor(model)) if slurm.tasks_per_node % size == 0]
    contexts = [1] if model.mla or model.moe else [size for size in _CONTEXT if slurm.world_size % size == 0]
    experts = [size for size in divisors(model.moe.num_experts) if slurm.tasks_per_node % size == 0] if model.moe else [1]
    recomputes = [*_RECOMPUTES, *([_EXPERT_RECOMPUTE] if model.moe else [])]
    stages = [(stages, chunks) for stages in divisors(model.num_layers) for chunks in divisors(model.num_layers // stages) if stages > 1 or chunks == 1]
    for tensor, context, (pipeline, chunks), expert, micro_batch in itertools.product(tensors, contexts, stages, experts, _MICRO_BATCHES):
        for recompute, modules in recomputes:
            parallel = replace(
                config.parallel,
                tensor_parallel_size=tensor,
                context_parallel_size=context,
                pipeline_parallel_size=pipeline,
                virtual_pipeline_size=chunks,
                expert_parallel_size=expert,
                sequence_parallel=tensor > 1,
                recompute=recompute,
                recompute_modules=list(modules),
                recompute_layers=0,
            )
            yield parallel, micro_batch


def _divides(work: Workload, parallel: ParallelConfig, micro_batch: int) -> bool:
    """The cheap half of `layout_problems`."""
    if work.world_size % parallel.model_parallel_size:
        return False
    rows = micro_batch * parallel.data_parallel_size(work.world_size) * parallel.micro_batch_group
    return work.global_batch_size % rows == 0


def _with(config: RunConfig, parallel: ParallelConfig, micro_batch: int) -> RunConfig:
    return replace(config, parallel=parallel, train=replace(config.train, micro_batch_size=micro_batch))


def lost_by(candidate: Candidate, winner: Candidate) -> str:
    """`+6.2 %: tensor +0.9 s, bubble +0.2 s`: what makes it slower, largest first."""
    worse = sorted(((candidate.step[part] - winner.step[part], part) for part in PARTS), reverse=True)
    parts = ", ".join(f"{part} +{seconds:.2g} s" for seconds, part in worse[:2] if seconds > 0.001 * winner.seconds)
    return f"+{candidate.seconds / winner.seconds - 1:.1%}: {parts}" if parts else f"+{candidate.seconds / winner.seconds - 1:.1%}"


def rows(found: Found, config: RunConfig, count: int) -> list[tuple[str, ...]]:
    """(rank, layout, recompute, step, fullest rank, against the best) of the first `count`; the config's own layout last, if it is not among them."""
    ranked = list(enumerate(found.fitting, 1))
    shown = ranked[:count] + [(place, one) for place, one in ranked[count:] if _same(one, config)][:1]
    return [_row(place, one, found.fitting[0], _same(one, config)) for place, one in shown]


def _row(place: int, candidate: Candidate, best: Candidate, chosen: bool) -> tuple[str, ...]:
    against = "best" if place == 1 else lost_by(candidate, best)
    recompute = str(candidate.parallel.recompute)
    if candidate.parallel.recompute is Recompute.selective:
        recompute = f"{','.join(candidate.parallel.recompute_modules)}"
    return (
        f"{place}{' (chosen)' if chosen else ''}",
        name(candidate),
        recompute,
        f"{candidate.seconds:.3g} s",
        units.size(candidate.memory["total"]),
        against,
    )


def name(candidate: Candidate) -> str:
    """`TP 4 x CP 2 x PP 4 in 5 chunks x DP 15, micro-batch 1`."""
    parallel = candidate.parallel
    sizes = (("TP", parallel.tensor_parallel_size), ("CP", parallel.context_parallel_size), ("PP", parallel.pipeline_parallel_size))
    layout = " x ".join(f"{word} {size}" for word, size in sizes if size > 1)
    chunks = f" in {parallel.virtual_pipeline_size} chunks" if parallel.virtual_pipeline_size > 1 else ""
    experts = f", EP {parallel.expert_parallel_size}" if parallel.expert_parallel_size > 1 else ""
    return f"{layout + chunks + ' x ' if layout else ''}DP {candidate.replicas}{experts}, micro-batch {candidate.micro_batch_size}"


def _same(candidate: Candidate, config: RunConfig) -> bool:
    """Where nothing is recomputed, which modules would be does not matter."""
    mine, its = config.parallel, candidate.parallel
    compared = [name for name in SEARCHED if name != "recompute_modules" or mine.recompute is Recompute.selective]
    return config.train.micro_batch_size == candidate.micro_batch_size and all(getattr(mine, name) == getattr(its, name) for name in compared)


def found_yaml(found: Found, config: RunConfig) -> str:
    """The best layout as a choice of the group `parallel`; it sets the micro-batch, too. Raises `UserError` when nothing fits."""
    import yaml

    best = best_of(found, config)
    chosen = {name: _plain(getattr(best.parallel, name)) for name in (*SEARCHED, "overlap_grad_reduce", "overlap_param_gather")}
    content = {"parallel": chosen, "train": {"micro_batch_size": best.micro_batch_size}}
    head = f"# @package _global_\n# {found.summary(config)}; {best.seconds:.3g} s a step predicted. Written by `cpt plan --search`.\n"
    return head + yaml.safe_dump(content, sort_keys=False)


def best_of(found: Found, config: RunConfig) -> Candidate:
    """Raises `UserError` when nothing fits."""
    if found.fitting:
        return found.fitting[0]
    room, least = units.size(config.cluster.hardware.memory), units.size(found.smallest)
    why = f"no layout fits into {room}: the one that needs least needs {least}" if found.smallest else "no layout divides it"
    fix = "slurm.nodes=<more>, or another train.global_batch_size"
    raise UserError(Problem(where="slurm.nodes", what=f"is {config.slurm.nodes} x {config.slurm.tasks_per_node} ranks", why=why, fix=fix))


def losses(config: RunConfig, counts: Sequence[int] = (1, 2, 4)) -> list[tuple[str, ...]]:
    """(nodes lost, nodes left, with the chosen layout, with the best one): what goes on without waiting for new nodes, and how fast."""
    found: dict[int, Candidate | None] = {}
    lefts = [(lost, config.slurm.nodes - lost) for lost in counts if lost < config.slurm.nodes]
    return [(str(lost), str(left), _kept(config, left), _best(config, left, found)) for lost, left in lefts]


def _usable(config: RunConfig, left: int) -> int:
    """The most nodes up to `left` that the chosen layout can use; 0 when none."""
    return next((nodes for nodes in range(left, 0, -1) if not any(layout_problems(_on(config, nodes)))), 0)


def _kept(config: RunConfig, left: int) -> str:
    nodes = _usable(config, left)
    return _speed(nodes, step_seconds(workload(_on(config, nodes)))["total"]) if nodes else "none"


def _best(config: RunConfig, left: int, found: dict[int, Candidate | None]) -> str:
    """The fastest of all layouts on `left` nodes or fewer, down to as many as the chosen layout can use. `found` keeps what was searched."""
    tried = range(left, max(1, _usable(config, left)) - 1, -1)
    for nodes in tried:
        if nodes not in found:
            found[nodes] = next(iter(search(_on(config, nodes)).fitting), None)
    fastest = min(((one.seconds, -nodes, one) for nodes in tried if (one := found[nodes])), key=lambda item: item[:2], default=None)
    return f"{_speed(-fastest[1], fastest[0])}: {name(fastest[2])}" if fastest else "none"


def _on(config: RunConfig, nodes: int) -> RunConfig:
    return replace(config, slurm=replace(config.slurm, nodes=nodes))


def _speed(nodes: int, seconds: float) -> str:
    return f"{nodes} nodes, {seconds:.3g} s a step"


SEARCHED = (
    "tensor_parallel_size",
    "context_parallel_size",
    "pipeline_parallel_size",
    "virtual_pipeline_size",
    "expert_parallel_size",
    "sequence_parallel",
    "recompute",
    "recompute_modules",
    "recompute_layers",
)
"""Fields of `parallel` that a search decides."""


def _plain(value: object) -> object:
    return [str(item) for item in value] if isinstance(value, list) else str(value) if isinstance(value, Recompute) else value
