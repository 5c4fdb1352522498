"""Which backend a run attends with: chosen on the nodes once, the same on every rank, and kept by later attempts."""

from __future__ import annotations

import torch.distributed as dist

from cpt.config.run import RunConfig
from cpt.config.training import Attention
from cpt.core.errors import Problem, UserError
from cpt.core.manifest import DataManifest
from cpt.core.paths import RunPaths
from cpt.core.world import World
from cpt.engine import fp8
from cpt.engine.attention import ForwardPlan
from cpt.engine.kernels import Kernel, resolve
from cpt.engine.parallel import agree_on
from cpt.tracking.journal import ATTEMPT_BEGIN, read_events


def forward_plan(config: RunConfig, kernel: Kernel, manifest: DataManifest | None) -> ForwardPlan:
    """`manifest` knows the end-of-document token; only document masking needs it."""
    train = config.train
    boundary = manifest.end_of_document_id if manifest and train.document_masking else None
    return ForwardPlan(kernel, train.attention_dropout, train.hidden_dropout, train.fp8, boundary)


def choose_kernel(config: RunConfig, run: RunPaths, world: World) -> Kernel:
    """What `train.attention` means in this attempt. Collective.

    `auto` chooses for the first attempt and later ones keep it: a node where it does not load is refused, for it would train
    with other rounding, and slower. Another backend named by the user is taken (and journaled, as every attempt's is). Raises
    `UserError` when it cannot be had here, or when nodes have different versions.
    """
    train, earlier = config.train, agree_on(earlier_backend(run))
    keeps = train.attention is Attention.auto and earlier is not None
    kernel = resolve(earlier if keeps and earlier else train.attention, train.precision, train.attention_dropout)
    fp8.check(train.fp8)
    found: list[tuple[str, str]] = [("", "")] * world.world_size
    dist.all_gather_object(found, (str(kernel), world.node_name))
    if len({name for name, _ in found}) > 1:
        raise UserError(_uneven(dict(found)))
    return kernel


def earlier_backend(run: RunPaths) -> Attention | None:
    """What the last attempt attended with, None before the first."""
    names = [str(event.fields["attention"]).split()[0] for event in read_events(run) if event.name == ATTEMPT_BEGIN]
    return Attention(names[-1]) if names else None


def _uneven(examples: dict[str, str]) -> Problem:
    """`examples`: backend -> a node that has it."""
    return Problem(
        where="train.attention",
        what="is not the same on all nodes: " + ", ".join(f"{name} on {node}" for name, node in sorted(examples.items())),
        why="ranks would compute with other rounding and at other speeds",
        fix="install the same packages everywhere, or train.attention=sdpa",
    )
