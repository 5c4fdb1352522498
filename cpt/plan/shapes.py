"""Which layouts and node counts would work, found by trying them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from cpt.config.parallel import Recompute
from cpt.config.run import RunConfig
from cpt.config.validate import common_divisor, divisors, layout_problems, nearest
from cpt.plan.memory import fullest_rank
from cpt.plan.workload import workload

_NODE_FACTORS = (1, 2, 4, 8, 16)


def valid_nodes(config: RunConfig, count: int = 8) -> list[int]:
    """Node counts nearest to the chosen one that keep layout and global batch, e.g. after a node is lost."""
    limit = config.cluster.max_nodes or 2 * config.slurm.nodes
    options = [nodes for nodes in range(1, limit + 1) if not any(layout_problems(_with(config, {"slurm.nodes": nodes})))]
    return nearest(options, config.slurm.nodes, count)


def that_fit(config: RunConfig, count: int = 3) -> list[list[str]]:
    """Overrides that make the run fit into `cluster.hardware.memory`: fewest nodes first, then fewest changes, then the shortest pipeline."""
    found: list[tuple[tuple[int, ...], list[str]]] = []
    for settings in _neighbors(config):
        candidate = _with(config, settings)
        if any(layout_problems(candidate)) or fullest_rank(workload(candidate))["total"] > config.cluster.hardware.memory:
            continue
        changed = [f"{path}={str(value).lower()}" for path, value in settings.items() if _get(config, path) != value]
        found.append(((candidate.slurm.nodes, len(changed), candidate.parallel.pipeline_parallel_size, candidate.parallel.tensor_parallel_size), changed))
    return [changed for _, changed in sorted(found)[:count]]


def _neighbors(config: RunConfig) -> Iterator[dict[str, object]]:
    """TP inside a node, any PP, experts spread inside a node, the chosen recompute or full, the chosen nodes or more."""
    parallel, moe = config.parallel, config.model.moe
    tensors = [n for n in divisors(common_divisor(config.model)) if config.slurm.tasks_per_node % n == 0]
    spreads = [n for n in divisors(moe.num_experts) if config.slurm.tasks_per_node % n == 0 or n == parallel.expert_parallel_size] if moe else [1]
    recomputes = dict.fromkeys((parallel.recompute, Recompute.full))
    for factor, tensor, pipeline, spread, recompute in itertools.product(_NODE_FACTORS, tensors, divisors(config.model.num_layers), spreads, recomputes):
        yield {
            "slurm.nodes": config.slurm.nodes * factor,
            "parallel.tensor_parallel_size": tensor,
            "parallel.pipeline_parallel_size": pipeline,
            "parallel.expert_parallel_size": spread,
            "parallel.sequence_parallel": parallel.sequence_parallel or bool(moe and tensor > 1),  # which megatron-core wants with experts
            "parallel.recompute": recompute,
        }


def _with(config: RunConfig, settings: dict[str, object]) -> RunConfig:
    """A changed copy; sealed configs cannot be changed themselves."""
    for path, value in settings.items():
        section, name = path.split(".")
        config = replace(config, **{section: replace(getattr(config, section), **{name: value})})
    return config


def _get(config: RunConfig, path: str) -> object:
    section, name = path.split(".")
    return getattr(getattr(config, section), name)
