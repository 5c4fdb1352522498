"""Sections about how fast and how sturdy the machines are: `cluster.hardware` from data sheets, `cluster.rates` measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cpt.config.section import Section, fraction, positive
from cpt.core.errors import Problem


@dataclass(kw_only=True, slots=True)
class HardwareConfig(Section):
    """What one rank computes and sends with, by data sheet. Bytes and seconds."""

    peak_flops: float = 989e12
    """Dense bf16 FLOP/s per rank (H100 SXM: 989e12)."""
    fp8_peak_flops: float = 1979e12
    """Dense fp8 FLOP/s per rank; what a machine without fp8 says here does not matter."""
    memory: int = 80_000_000_000
    """Bytes per rank: GPU memory, or the rank's part of host memory."""
    library_memory: int = 0
    """Bytes of it that CUDA, cuBLAS and NCCL keep for themselves."""
    memory_bandwidth: float = 3.35e12
    """Bytes a second that a rank reads and writes."""
    node_bandwidth: float = 450e9
    """Bytes a second that a rank sends to ranks of its node (NVLink 4: 450e9), each way."""
    node_latency: float = 5e-6
    """Seconds of one hop of a collective inside a node."""
    network_bandwidth: float = 50e9
    """Bytes a second that a rank sends to other nodes, each way: its own adapter (NDR InfiniBand: 50e9)."""
    network_latency: float = 12e-6
    """Seconds of one hop of a collective between nodes."""
    watts: float = 1275.0
    """Of one rank at work, with its part of the node (DGX H100: 10.2 kW / 8), without cooling."""

    def problems(self) -> Iterator[Problem]:
        yield from positive(self, "peak_flops", "fp8_peak_flops", "memory", "memory_bandwidth", "node_bandwidth", "node_latency", "network_bandwidth")
        yield from positive(self, "network_latency", "watts")


@dataclass(kw_only=True, slots=True)
class RatesConfig(Section):
    """What was measured of the machines; `cpt plan --calibrate RUN` writes a file of these."""

    name: str = ""
    source: str = ""
    """What they were measured on."""
    bf16_efficiency: float = 0.6
    """Share of `hardware.peak_flops` that matrix products reach inside of a training step."""
    fp8_efficiency: float = 0.5
    """Share of `hardware.fp8_peak_flops`."""
    production: float = 1.0
    """Wall-clock of a long run over steps x predicted step time, beyond failures and saves: other jobs on the fabric, slow nodes, evaluations."""
    copy_bandwidth: float = 25e9
    """Bytes a second from a rank's device to host memory, all ranks of a node copying."""
    storage_bandwidth: float = 20e9
    """Bytes a second that the shared file system takes from a whole job."""
    node_storage_bandwidth: float = 4e9
    """Bytes a second that it takes from one node."""
    failures_per_node_day: float = 0.00379
    """Of one node: hardware and software that end a run (Llama 3, 16,384 H100: 419 in 54 days on 2,048 nodes)."""
    restart_seconds: float = 600.0
    """From a failure to the first step done again: noticing, starting, loading."""
    queue_seconds: float = 3600.0
    """Waiting in the queue when a node is lost and no spare is at hand."""

    def problems(self) -> Iterator[Problem]:
        yield from positive(self, "bf16_efficiency", "fp8_efficiency", "production", "copy_bandwidth", "storage_bandwidth", "node_storage_bandwidth")
        yield from fraction(self, "bf16_efficiency", "fp8_efficiency", "failures_per_node_day")
        for name in ("restart_seconds", "queue_seconds"):
            if getattr(self, name) < 0:
                yield Problem(where=name, what=f"is {getattr(self, name):g}", why="counts seconds", fix=f"{name}=0")


@dataclass(kw_only=True, slots=True)
class BudgetConfig(Section):
    """What a run may cost by its plan; `cpt launch` refuses one that costs more. 0 is no limit."""

    gpu_hours: float = 0.0
    price: float = 0.0
    """In `cluster.currency`, at `cluster.gpu_hour_price`."""

    def problems(self) -> Iterator[Problem]:
        for name in ("gpu_hours", "price"):
            if not getattr(self, name) >= 0:
                yield Problem(where=name, what=f"is {getattr(self, name):g}", why="is a limit; 0 is none", fix=f"{name}=0")
