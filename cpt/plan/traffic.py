"""Seconds of collectives, by latency and bandwidth: a ring of n ranks moves (n - 1) / n of its bytes in n - 1 hops (Thakur et al. 2005).

Each is what one rank waits for where nothing hides it; `step` says what does.
"""

from __future__ import annotations

from cpt.plan.workload import Workload

NODE = 0.82
"""Share of NVLink's line rate that collectives reach: about 370 of 450 GB/s (NVIDIA, nccl-tests issue 212)."""

NETWORK = 0.9
"""Share of an adapter's line rate."""

_TRANSFERS = 6
"""Of the ten all-gathers and reduce-scatters of a layer under sequence parallelism those that no product of its own runs beside: four forward, two backward."""

_HIDDEN_TRANSFERS = 8
"""Those that the pieces of products hide, where the program does that, each but for its first piece."""


def ring(size: float, ranks: int, work: Workload, inside: int) -> float:
    """All-gather or reduce-scatter of `size` bytes in all; `inside` of the ranks share a node, and each has its own adapter."""
    if ranks == 1:
        return 0.0
    hardware, crosses = work.hardware, inside < ranks
    rate = hardware.node_bandwidth * NODE
    if crosses:
        rate = min(rate, inside * hardware.network_bandwidth * NETWORK)
    hops = ranks - 1 if not crosses else inside - 1 + ranks // inside - 1
    return (ranks - 1) / ranks * size / rate + hops * (hardware.network_latency if crosses else hardware.node_latency)


def tensor(work: Workload) -> float:
    """Of one layer and micro-batch, forward and backward, that is waited for."""
    parallel = work.parallel
    ranks = parallel.tensor_parallel_size
    once = ring(work.tokens * work.model.hidden_size * work.value_bytes, ranks, work, min(ranks, work.node_ranks))
    return _HIDDEN_TRANSFERS * once / ranks if work.program.hides_tensor else _TRANSFERS * once


def tensor_again(work: Workload) -> float:
    """Of a layer's forward pass alone, but for its last transfer, whose result is kept."""
    ranks = work.parallel.tensor_parallel_size
    once = ring(work.tokens * work.model.hidden_size * work.value_bytes, ranks, work, min(ranks, work.node_ranks))
    return 3 * once / (ranks if work.program.hides_tensor else 1)


def context(work: Workload) -> float:
    """Of one layer and micro-batch: keys and values of all ranks, forward and again for the backward pass, and their gradients."""
    model, parallel = work.model, work.parallel
    ranks, tensor_ranks = parallel.context_parallel_size, parallel.tensor_parallel_size
    size = 2 * work.tokens * ranks * model.kv_channels * model.num_query_groups / tensor_ranks * work.value_bytes
    return 3 * ring(size, ranks, work, max(1, min(ranks, work.node_ranks // tensor_ranks)))


def experts(work: Workload) -> float:
    """Of one layer with experts and micro-batch: each token's copies to the ranks of its experts and back, forward and backward."""
    parallel, model = work.parallel, work.model
    ranks = parallel.expert_parallel_size
    size = work.tokens * model.moe.topk * model.hidden_size * work.value_bytes * (1 if not parallel.sequence_parallel else 1 / parallel.tensor_parallel_size)
    return 4 * ring(size, ranks, work, min(ranks, work.node_ranks))


def pipeline(work: Workload) -> float:
    """One activation from a stage to the next, over the network."""
    parallel, hardware = work.parallel, work.hardware
    if parallel.pipeline_parallel_size == 1:
        return 0.0
    size = work.tokens * work.model.hidden_size * work.value_bytes / (parallel.tensor_parallel_size if parallel.sequence_parallel else 1)
    crosses = work.world_size > work.node_ranks
    rate = hardware.network_bandwidth * NETWORK if crosses else hardware.node_bandwidth * NODE
    return size / rate + (hardware.network_latency if crosses else hardware.node_latency)


def data(work: Workload, parameters: int) -> tuple[float, float]:
    """(gradients reduced and scattered, weights gathered) once a step, for a stage's `parameters` on a rank."""
    inside = max(1, min(work.holders, work.node_ranks // work.parallel.tensor_parallel_size))
    sizes = (parameters * work.program.gradient_bytes, parameters * work.value_bytes)
    reduced, gathered = (ring(size, work.holders, work, inside) for size in sizes)
    return reduced, gathered


def gathered_layer(work: Workload, parameters: float) -> float:
    """Fully sharded: one layer's weights gathered twice and its gradients scattered, each micro-batch, in compute precision."""
    inside = max(1, min(work.holders, work.node_ranks // work.parallel.tensor_parallel_size))
    return 3 * ring(parameters * work.value_bytes, work.holders, work, inside)
