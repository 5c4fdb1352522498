"""`published.yaml` as workloads with what was measured of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from cpt.config.compose import CONFIG_FOLDER
from cpt.config.hardware import HardwareConfig, RatesConfig
from cpt.config.model import ModelConfig
from cpt.config.parallel import ParallelConfig, Recompute
from cpt.config.training import Precision
from cpt.plan.flops import flops_per_token
from cpt.plan.workload import Program, Workload

ROWS = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One row: a workload and what its source says of it; 0 where it says nothing. Seconds, tokens a second and GPU, GiB."""

    work: Workload
    source: str
    machine: str
    label: str
    seconds: float
    days: float
    """For 1T tokens."""
    tokens: float
    teraflops: float
    """Printed beside `tokens`."""
    whole_attention: bool
    """Whether those count the masked half of attention."""
    gib: float
    calibrates: bool
    outside: str
    """Why its step time is known not to come out; empty where it must."""

    @property
    def flops_per_token(self) -> float:
        """In the row's own convention, of the model as it is."""
        extra = 2 if self.work.program.counts_ends else 0
        model = replace(self.work.model, num_layers=self.work.model.num_layers - extra)
        return flops_per_token(model, self.work.sequence_length, self.whole_attention)


def published(path: Path = ROWS) -> list[Published]:
    """All rows, in order."""
    content = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path)))
    return [row for group in content["steps"] for row in _rows(content, group)]


def _rows(content: Mapping[str, Any], group: Mapping[str, Any]) -> Iterator[Published]:
    for row in group["rows"]:
        yield _row(content, {**group, **row})


def _row(content: Mapping[str, Any], row: Mapping[str, Any]) -> Published:
    work = _work(content, row)
    step_tokens = work.global_batch_size * work.sequence_length / work.world_size
    tokens = row.get("tokens", 0.0)
    partial = Published(
        work=work,
        source=row["source"],
        machine=row["machine"],
        label=_label(row, work),
        seconds=row.get("seconds") or (step_tokens / tokens if tokens else 0.0),
        days=row.get("days", 0.0),
        tokens=tokens,
        teraflops=row.get("teraflops", 0.0),
        whole_attention=row.get("whole_attention", False),
        gib=row.get("gib", 0.0),
        calibrates=row.get("calibrates", False),
        outside=row.get("outside", ""),
    )
    if partial.seconds:
        return partial
    rate = row["flops"] if "flops" in row else row["mfu"] * work.hardware.peak_flops
    return replace(partial, seconds=step_tokens * partial.flops_per_token / rate)


def _work(content: Mapping[str, Any], row: Mapping[str, Any]) -> Workload:
    machine = dict(content["machines"][row["machine"]])
    layout = row["layout"]
    program = Program(**content["programs"][row["program"]])
    parallel = ParallelConfig(
        tensor_parallel_size=layout["tp"],
        context_parallel_size=layout.get("cp", 1),
        pipeline_parallel_size=layout["pp"],
        virtual_pipeline_size=layout.get("vp", 1),
        sequence_parallel=layout["tp"] > 1,
        recompute=Recompute(row.get("recompute", "none")),
        overlap_grad_reduce=True,
        overlap_param_gather=True,
    )
    return Workload(
        model=_layers(_model(content, row["model"]), row.get("layers", 0), program),
        parallel=parallel,
        hardware=replace(_hardware(machine.pop("hardware")), **machine),
        rates=RatesConfig(),
        world_size=row["gpus"],
        node_ranks=8,
        global_batch_size=row["batch"],
        micro_batch_size=row.get("micro_batch", 1),
        sequence_length=row.get("sequence", 8192),
        precision=Precision.bf16,
        fp8=row["precision"] == "fp8",
        program=program,
    )


@cache
def _hardware(name: str) -> HardwareConfig:
    return cast(HardwareConfig, _typed(HardwareConfig, f"cluster/hardware/{name}"))


def _model(content: Mapping[str, Any], name: str) -> ModelConfig:
    """One of the file's own, a GPT with tied embeddings and a feed-forward of two matrices; or one of `hydra_conf/model`."""
    shape = content["models"].get(name)
    return _gpt(name, shape["layers"], shape["hidden"], shape["heads"], shape["vocabulary"]) if shape else model(name)


def _gpt(name: str, layers: int, hidden: int, heads: int, vocabulary: int) -> ModelConfig:
    return ModelConfig(
        name=name,
        num_layers=layers,
        hidden_size=hidden,
        ffn_hidden_size=8 * hidden // 3,
        num_attention_heads=heads,
        num_query_groups=heads,
        kv_channels=hidden // heads,
        vocab_size=vocabulary,
        tied_embeddings=True,
    )


@cache
def model(name: str) -> ModelConfig:
    """One of `hydra_conf/model`."""
    return cast(ModelConfig, _typed(ModelConfig, f"model/{name}"))


def _layers(whole: ModelConfig, layers: int, program: Program) -> ModelConfig:
    return replace(whole, num_layers=(layers or whole.num_layers) + (2 if program.counts_ends else 0))


def _typed(schema: type, name: str) -> Any:
    """A config file of `hydra_conf` by itself."""
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(CONFIG_FOLDER / f"{name}.yaml")))


def _label(row: Mapping[str, Any], work: Workload) -> str:
    parallel = work.parallel
    sizes = {
        "TP": parallel.tensor_parallel_size,
        "CP": parallel.context_parallel_size,
        "PP": parallel.pipeline_parallel_size,
        "VP": parallel.virtual_pipeline_size,
    }
    layout = " ".join(f"{name}{size}" for name, size in sizes.items() if size > 1) or "DP"
    layers = f" ({row['layers']} layers)" if "layers" in row else ""
    sequence = f" {work.sequence_length // 1024}k" if work.sequence_length != 8192 else ""
    return f"{row['model']}{layers}{sequence} {row['precision']} {layout} {'FSDP ' if work.program.fully_sharded else ''}x {work.world_size}"
