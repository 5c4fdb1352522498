"""All problems at once, each with its dotted path. Sections know their own; rules between sections are here."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from cpt.config.model import ModelConfig
from cpt.config.parallel import ParallelConfig, Recompute, RecomputeModule
from cpt.config.run import RunConfig
from cpt.config.running import Runtime, minutes
from cpt.config.section import Section
from cpt.config.training import Attention
from cpt.core.errors import Problem


def validate(config: RunConfig) -> Iterator[Problem]:
    """Everything wrong that can be known without looking at files."""
    yield from _walk(config, "")
    yield from _names(config)
    yield from _machines(config)
    yield from _fast_tier(config)
    yield from _attention(config)
    yield from layout_problems(config)


def _walk(section: Section, path: str) -> Iterator[Problem]:
    for problem in section.problems():
        fix = f"{path}{problem.fix}" if problem.fix.startswith(f"{problem.where}=") else problem.fix
        yield dataclasses.replace(problem, where=f"{path}{problem.where}", fix=fix)
    for name, child in section.sections():
        yield from _walk(child, f"{path}{name}.")


def _names(config: RunConfig) -> Iterator[Problem]:
    """Names that become folders."""
    for path, name in (("name", config.name), ("corpus.name", config.corpus.name), ("model.name", config.model.name), ("sweep.name", config.sweep.name)):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            yield Problem(where=path, what=f"is {name!r}", why="names a folder: letters, digits, _ . -", fix=f"{path}=<a plain name>")


def _machines(config: RunConfig) -> Iterator[Problem]:
    """The job against the limits of its cluster, but for the number of nodes, which is part of the layout."""
    cluster, slurm = config.cluster, config.slurm
    if slurm.nodes <= cluster.max_nodes < slurm.nodes + slurm.spare_nodes:
        why = f"with slurm.nodes={slurm.nodes} that is more than the {cluster.max_nodes} that cluster {cluster.name} gives one job"
        yield Problem(where="slurm.spare_nodes", what=f"is {slurm.spare_nodes}", why=why, fix=f"slurm.spare_nodes={cluster.max_nodes - slurm.nodes}")
    if 0 < minutes(cluster.max_time) < slurm.minutes:
        why = f"the longest of cluster {cluster.name} is {cluster.max_time}; a run that needs more goes on by itself in the next job"
        yield Problem(where="slurm.time", what=f"is {slurm.time}", why=why, fix=f"slurm.time={cluster.max_time}")
    if 0 < cluster.gpus_per_node < slurm.tasks_per_node:
        why = f"cluster {cluster.name} has {cluster.gpus_per_node} GPUs per node, and no two ranks can share one"
        yield Problem(where="slurm.tasks_per_node", what=f"is {slurm.tasks_per_node}", why=why, fix=f"slurm.tasks_per_node={cluster.gpus_per_node}")
    for name, value in (("cpu_bind", cluster.cpu_bind), ("mem_bind", cluster.mem_bind)):
        yield from _binding(name, value, slurm.tasks_per_node)


def _binding(name: str, value: str, tasks: int) -> Iterator[Problem]:
    """srun starts a list that is too short from its beginning again: the last ranks would run far from their GPUs."""
    kind, _, places = value.partition(":")
    if kind.rpartition(",")[2] in ("map_cpu", "mask_cpu", "map_ldom", "mask_ldom", "map_mem", "mask_mem") and len(places.split(",")) < tasks:
        why = f"slurm.tasks_per_node is {tasks}, and each needs an entry"
        yield Problem(where=f"cluster.{name}", what=f"is {value}", why=why, fix=f"cluster.{name}={kind}:<{tasks} entries>")


def _fast_tier(config: RunConfig) -> Iterator[Problem]:
    """What a container writes where nothing is mounted is gone with it."""
    folder, cluster = config.checkpoint.fast_folder, config.cluster
    targets = [mount.split(":")[1] for mount in cluster.mounts if mount.count(":")]
    if folder and cluster.runtime is not Runtime.bare and not any(PurePosixPath(folder).is_relative_to(target) for target in targets):
        why = f"is not mounted into the {cluster.runtime} container, whose own files are gone when its ranks are"
        fix = f"cluster.mounts=['{folder}:{folder}'], with the path itself where it is a variable"
        yield Problem(where="checkpoint.fast_folder", what=f"is {folder}", why=why, fix=fix)


def _attention(config: RunConfig) -> Iterator[Problem]:
    """What latent attention and experts have not been shown to give right."""
    model, train = config.model, config.train
    if model.mla and train.document_masking:
        why = f"the latent attention of {model.name} is not told where documents end"
        yield Problem(where="train.document_masking", what="is true", why=why, fix="train.document_masking=false")
    if (model.mla or model.moe) and config.parallel.context_parallel_size > 1:
        why = f"neither latent attention nor experts have been tested with shared rows, and {model.name} has one of them"
        yield Problem(
            where="parallel.context_parallel_size", what=f"is {config.parallel.context_parallel_size}", why=why, fix="parallel.context_parallel_size=1"
        )
    if (model.mla or model.moe) and train.attention is Attention.transformer_engine:
        why = f"the layers of {model.name} are not among those taken from it"
        yield Problem(where="train.attention", what=f"is {train.attention}", why=why, fix="train.attention=auto")


def layout_problems(config: RunConfig) -> Iterator[Problem]:
    """Which shapes megatron-core can cut, and which fit the cluster; each with the neighbors that would work."""
    parallel = config.parallel
    if (
        min(
            parallel.tensor_parallel_size,
            parallel.context_parallel_size,
            parallel.pipeline_parallel_size,
            parallel.virtual_pipeline_size,
            config.slurm.world_size,
        )
        < 1
    ):
        return  # said by the sections themselves
    yield from _model_cuts(config)
    yield from _rank_counts(config)
    yield from _expert_ranks(config)
    yield from _lengths(config)
    yield from _fp8_shapes(config)
    yield from _recompute(config)


def _model_cuts(config: RunConfig) -> Iterator[Problem]:
    model, parallel = config.model, config.parallel
    tensor, pipeline, virtual = parallel.tensor_parallel_size, parallel.pipeline_parallel_size, parallel.virtual_pipeline_size
    uneven = [name for name, length in _cut_lengths(model).items() if length % tensor]
    if uneven:
        yield Problem(
            where="parallel.tensor_parallel_size",
            what=f"is {tensor}",
            why=f"model.{uneven[0]}={_cut_lengths(model)[uneven[0]]} must divide by it",
            fix=f"parallel.tensor_parallel_size={_options(divisors(common_divisor(model)))}",
        )
    if model.num_layers % pipeline:
        yield Problem(
            where="parallel.pipeline_parallel_size",
            what=f"is {pipeline}",
            why=f"model.num_layers={model.num_layers} must divide by it",
            fix=f"parallel.pipeline_parallel_size={_options(divisors(model.num_layers))}",
        )
    elif model.num_layers % (pipeline * virtual):
        yield Problem(
            where="parallel.virtual_pipeline_size",
            what=f"is {virtual}",
            why=f"model.num_layers={model.num_layers} / pipeline_parallel_size={pipeline} must divide by it",
            fix=f"parallel.virtual_pipeline_size={_options(divisors(model.num_layers // pipeline))}",
        )


def _rank_counts(config: RunConfig) -> Iterator[Problem]:
    """Nodes x ranks against the layout, replicas against the global batch, nodes against the cluster."""
    slurm, parallel, train, limit = config.slurm, config.parallel, config.train, config.cluster.max_nodes
    if limit and slurm.nodes > limit:
        yield Problem(
            where="slurm.nodes", what=f"is {slurm.nodes}", why=f"cluster {config.cluster.name} gives one job at most {limit}", fix=f"slurm.nodes={limit}"
        )
    if slurm.world_size % parallel.model_parallel_size:
        options = _options(_node_counts(config))
        yield Problem(
            where="slurm.nodes",
            what=f"is {slurm.nodes} x {slurm.tasks_per_node} ranks = {slurm.world_size}",
            why=f"one replica needs {_replica(parallel)} = {parallel.model_parallel_size} ranks",
            fix=f"slurm.nodes={options}" if options else "parallel=single",
        )
        return
    replicas = parallel.data_parallel_size(slurm.world_size)
    rows = train.micro_batch_size * replicas * parallel.micro_batch_group
    if rows > 0 and train.global_batch_size % rows:
        interleaved = f" x pipeline_parallel_size {parallel.pipeline_parallel_size} (interleaved)" if parallel.virtual_pipeline_size > 1 else ""
        lower = train.global_batch_size // rows * rows
        yield Problem(
            where="train.global_batch_size",
            what=f"is {train.global_batch_size}",
            why=f"must divide by micro_batch_size {train.micro_batch_size} x data_parallel_size {replicas}{interleaved} = {rows}",
            fix=f"train.global_batch_size={_options([n for n in (lower, lower + rows) if n])}",
        )


def _replica(parallel: ParallelConfig) -> str:
    context = f" x CP {parallel.context_parallel_size}" if parallel.context_parallel_size > 1 else ""
    return f"TP {parallel.tensor_parallel_size}{context} x PP {parallel.pipeline_parallel_size}"


def _node_counts(config: RunConfig) -> list[int]:
    """Nearest to the chosen count: those that hold whole replicas and, if any do, also keep the global batch."""
    slurm, replica, train = config.slurm, config.parallel.model_parallel_size, config.train
    most = config.cluster.max_nodes or 4 * slurm.nodes + replica
    whole = [nodes for nodes in range(1, most + 1) if nodes * slurm.tasks_per_node % replica == 0]
    rows = {nodes: train.micro_batch_size * config.parallel.micro_batch_group * (nodes * slurm.tasks_per_node // replica) for nodes in whole}
    keep = [nodes for nodes in whole if rows[nodes] > 0 and train.global_batch_size % rows[nodes] == 0]
    return nearest(keep or whole, slurm.nodes)


def _lengths(config: RunConfig) -> Iterator[Problem]:
    length, known, parallel = config.train.sequence_length, config.model.max_position_embeddings, config.parallel
    if known and length > known:
        yield Problem(where="train.sequence_length", what=f"is {length}", why=f"the base knows {known} positions", fix=f"train.sequence_length={known}")
    if 0 < config.model.sliding_window < length:
        why = f"the base looks back {config.model.sliding_window} tokens, the engine over the whole sequence; up to that length both are the same"
        yield Problem(where="train.sequence_length", what=f"is {length}", why=why, fix=f"train.sequence_length={config.model.sliding_window}")
    if length % (multiple := parallel.sequence_multiple):
        cuts = [f"sequence_parallel cuts it into tensor_parallel_size={parallel.tensor_parallel_size} parts"] * parallel.sequence_parallel
        cuts += [f"context_parallel_size={parallel.context_parallel_size} into two chunks a rank"] * (parallel.context_parallel_size > 1)
        yield Problem(where="train.sequence_length", what=f"is {length}", why=", ".join(cuts), fix=f"train.sequence_length={-(-length // multiple) * multiple}")


def _fp8_shapes(config: RunConfig) -> Iterator[Problem]:
    """Both sides of every matrix on a rank, and the tokens of a micro-batch, in blocks of 16 or 32."""
    model, parallel, train, multiple = config.model, config.parallel, config.train, config.train.fp8.multiple
    tensor = parallel.tensor_parallel_size
    heads, groups = model.num_attention_heads // tensor, max(1, model.num_query_groups // tensor)
    tokens = train.micro_batch_size * train.sequence_length // parallel.context_parallel_size // (tensor if parallel.sequence_parallel else 1)
    sides = {
        "model.hidden_size": model.hidden_size,
        "model.ffn_hidden_size over tensor_parallel_size": model.ffn_hidden_size // tensor,
        "channels of the heads of a rank": heads * model.kv_channels,
        "queries, keys and values of a rank": (heads + 2 * groups) * model.kv_channels,
        "tokens of a micro-batch on a rank": tokens,
    }
    if odd := [f"{name}: {size}" for name, size in sides.items() if size % multiple]:
        why = f"its matrices come in multiples of {multiple}, unlike {'; '.join(odd)}"
        yield Problem(where="train.fp8", what=f"is {train.fp8}", why=why, fix="train.fp8=none, or another tensor_parallel_size or micro_batch_size")


def _expert_ranks(config: RunConfig) -> Iterator[Problem]:
    """Experts are spread over the ranks of a pipeline stage, TP x DP."""
    moe, parallel, ranks = config.model.moe, config.parallel, config.slurm.world_size // config.parallel.pipeline_parallel_size
    spread, allowed = parallel.expert_parallel_size, divisors(math.gcd(moe.num_experts, ranks)) if moe and ranks else [1]
    if spread not in allowed:
        why = f"must divide model.moe.num_experts={moe.num_experts} and the {ranks} ranks of a pipeline stage" if moe else "the model has no experts"
        yield Problem(
            where="parallel.expert_parallel_size", what=f"is {spread}", why=why, fix=f"parallel.expert_parallel_size={_options(nearest(allowed, spread))}"
        )
    if (moe or config.model.mla) and parallel.tensor_parallel_size > 1 and not parallel.sequence_parallel:
        whose = "routes its own tokens to experts" if moe else "compresses its own tokens' keys and values"
        yield Problem(
            where="parallel.sequence_parallel",
            what="is false",
            why=f"each of the {parallel.tensor_parallel_size} tensor-parallel ranks {whose}",
            fix="parallel.sequence_parallel=true",
        )


def _recompute(config: RunConfig) -> Iterator[Problem]:
    """Parts and layers that the model does not have."""
    model, parallel = config.model, config.parallel
    parts = {RecomputeModule.moe: model.moe, RecomputeModule.shared_experts: model.moe.shared_experts}
    if missing := [module for module, part in parts.items() if parallel.recomputes(module) and not part]:
        left = ",".join(module for module in parallel.recompute_modules if module not in missing)
        yield Problem(
            where="parallel.recompute_modules",
            what=f"names {', '.join(missing)}",
            why=f"{model.name} has none",
            fix=f"parallel.recompute_modules=[{left}]" if left else "parallel.recompute=none",
        )
    layers = model.num_layers // (parallel.pipeline_parallel_size * parallel.virtual_pipeline_size)
    if parallel.recompute is Recompute.full and parallel.recompute_layers > layers > 0:
        why = f"a model chunk has {layers} layers"
        yield Problem(where="parallel.recompute_layers", what=f"is {parallel.recompute_layers}", why=why, fix="parallel.recompute_layers=0")


def _cut_lengths(model: ModelConfig) -> dict[str, int]:
    """What tensor parallelism cuts; routed experts it does not."""
    lengths = {name: getattr(model, name) for name in ("num_attention_heads", "num_query_groups", "ffn_hidden_size")}
    if model.mla:
        lengths["mla.kv_lora_rank + mla.qk_pos_emb_head_dim"] = model.mla.kv_lora_rank + model.mla.qk_pos_emb_head_dim
    if model.moe.shared_experts:
        lengths["moe.shared_experts * moe.ffn_hidden_size"] = model.moe.shared_experts * model.moe.ffn_hidden_size
    return lengths


def common_divisor(model: ModelConfig) -> int:
    """The number that every tensor-parallel cut must divide."""
    return math.gcd(*_cut_lengths(model).values())


def divisors(number: int) -> list[int]:
    """All divisors of a positive number, ascending."""
    return [n for n in range(1, number + 1) if number % n == 0]


def nearest(options: list[int], wanted: int, count: int = 4) -> list[int]:
    """The `count` options closest to `wanted`, ascending."""
    return sorted(sorted(options, key=lambda n: abs(n - wanted))[:count])


def _options(numbers: list[int]) -> str:
    return " or ".join(str(n) for n in numbers)
