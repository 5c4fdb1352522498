"""All problems at once, each with its dotted path. Sections know their own; rules between sections are here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from cpt.config.model import ModelConfig
from cpt.config.run import RunConfig
from cpt.config.section import Section
from cpt.core.errors import Problem


def validate(config: RunConfig) -> Iterator[Problem]:
    """Everything wrong that can be known without looking at files."""
    yield from _walk(config, "")
    yield from layout_problems(config)


def _walk(section: Section, path: str) -> Iterator[Problem]:
    for problem in section.problems():
        yield dataclasses.replace(problem, where=f"{path}{problem.where}")
    for name, child in section.sections():
        yield from _walk(child, f"{path}{name}.")


def layout_problems(config: RunConfig) -> Iterator[Problem]:
    """Which shapes megatron-core can cut; each with the neighbours that would work."""
    parallel, model, train, world = config.parallel, config.model, config.train, config.slurm.world_size
    tensor, pipeline = parallel.tensor_parallel_size, parallel.pipeline_parallel_size
    if tensor < 1 or pipeline < 1 or world < 1:
        return
    for name in ("num_attention_heads", "num_query_groups", "ffn_hidden_size"):
        value = getattr(model, name)
        if value % tensor:
            yield Problem(
                where="parallel.tensor_parallel_size",
                what=f"is {tensor}",
                why=f"model.{name}={value} must divide by it",
                fix=f"parallel.tensor_parallel_size={_options(divisors(common_divisor(model)))}",
            )
            break
    if model.num_layers % pipeline:
        yield Problem(
            where="parallel.pipeline_parallel_size",
            what=f"is {pipeline}",
            why=f"model.num_layers={model.num_layers} must divide by it",
            fix=f"parallel.pipeline_parallel_size={_options(divisors(model.num_layers))}",
        )
    if world % parallel.model_parallel_size:
        nodes = [n for n in range(1, 4 * config.slurm.nodes + 1) if n * config.slurm.tasks_per_node % parallel.model_parallel_size == 0]
        yield Problem(
            where="slurm.nodes",
            what=f"is {config.slurm.nodes} x {config.slurm.tasks_per_node} ranks = {world}",
            why=f"one model replica needs TP {tensor} x PP {pipeline} = {parallel.model_parallel_size} ranks",
            fix=f"slurm.nodes={_options(nearest(nodes, config.slurm.nodes)) or parallel.model_parallel_size}",
        )
        return
    replicas = parallel.data_parallel_size(world)
    rows = train.micro_batch_size * replicas
    if rows > 0 and train.global_batch_size % rows:
        lower = train.global_batch_size // rows * rows
        yield Problem(
            where="train.global_batch_size",
            what=f"is {train.global_batch_size}",
            why=f"must divide by micro_batch_size {train.micro_batch_size} x data_parallel_size {replicas} = {rows}",
            fix=f"train.global_batch_size={_options([n for n in (lower, lower + rows) if n])}",
        )
    limit = config.cluster.max_nodes
    if limit and config.slurm.nodes > limit:
        yield Problem(
            where="slurm.nodes", what=f"is {config.slurm.nodes}", why=f"cluster {config.cluster.name} gives one job at most {limit}", fix=f"slurm.nodes={limit}"
        )
    if model.max_position_embeddings and train.sequence_length > model.max_position_embeddings:
        yield Problem(
            where="train.sequence_length",
            what=f"is {train.sequence_length}",
            why=f"the base knows {model.max_position_embeddings} positions",
            fix=f"train.sequence_length={model.max_position_embeddings}",
        )


def common_divisor(model: ModelConfig) -> int:
    """The number that every tensor-parallel cut must divide."""
    return math.gcd(model.num_attention_heads, model.num_query_groups, model.ffn_hidden_size)


def divisors(number: int) -> list[int]:
    """All divisors of a positive number, ascending."""
    return [n for n in range(1, number + 1) if number % n == 0]


def nearest(options: list[int], wanted: int, count: int = 4) -> list[int]:
    """The `count` options closest to `wanted`, ascending."""
    return sorted(sorted(options, key=lambda n: abs(n - wanted))[:count])


def _options(numbers: list[int]) -> str:
    return " or ".join(str(n) for n in numbers)
