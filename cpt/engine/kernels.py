"""Which code computes attention: one choice on each node, made by name, refused by name, never quietly another one.

q [.., heads, d], k [.., groups, d] and v [.., groups, d_v] may differ in length and head size. The causal mask is aligned at
the bottom right: the last query sees every key.

    dense   [b, s, heads, d]           -> [b, s, heads, d_v]
    varlen  [t, heads, d] in segments  -> [t, heads, d_v]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

import torch
from torch.nn.functional import pad, scaled_dot_product_attention

from cpt.config.training import Attention, Precision
from cpt.core.errors import Problem, UserError
from cpt.engine.segments import Segments

Dense = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float | None, float], torch.Tensor]
"""(q, k, v, softmax scale or None for d ** -0.5, dropout)."""
Varlen = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Segments, float | None, float], torch.Tensor]

_PACKAGES = {Attention.flash2: "flash-attn", Attention.flash4: "flash-attn-4", Attention.transformer_engine: "transformer-engine"}
_CAPABILITIES = {Attention.flash2: range(8, 13), Attention.flash4: range(9, 11), Attention.transformer_engine: range(8, 13)}
"""Major compute capabilities for which each package has kernels."""


@dataclass(frozen=True)
class Kernel:
    """What was chosen. `transformer_engine` brings whole layers of its own, so it has no functions here."""

    name: Attention
    version: str
    dense: Dense | None = None
    varlen: Varlen | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def resolve(choice: Attention, precision: Precision, dropout: float = 0.0) -> Kernel:
    """`choice` on this machine. `auto` is the first of flash4, flash2 that is installed and can do the work, else sdpa.

    Raises `UserError` when an explicit choice cannot be had, and when `auto` meets a package that is installed and broken:
    a slow node in a fast job is worse than a refusal.
    """
    if choice is Attention.sdpa:
        return _load(choice)
    if choice is not Attention.auto:
        if obstacle := _obstacle(choice, precision, dropout):
            raise UserError(
                Problem(where="train.attention", what=f"is {choice}", why=obstacle, fix=f"pip install {_PACKAGES[choice]}, or train.attention=auto")
            )
        return _load(choice)
    usable = (name for name in (Attention.flash4, Attention.flash2) if not _obstacle(name, precision, dropout))
    return _load(next(usable, Attention.sdpa))


def _obstacle(name: Attention, precision: Precision, dropout: float) -> str:
    """Why `name` cannot be used here; empty when it can."""
    if precision is Precision.fp32 and name is not Attention.transformer_engine:
        return f"{name} has no fp32 kernels"
    if dropout and name is Attention.flash4:
        return "flash4 has no dropout"
    if not torch.cuda.is_available():
        return "this machine has no CUDA device"
    major, minor = torch.cuda.get_device_capability()
    if major not in _CAPABILITIES[name]:
        return f"it has no kernels for compute capability {major}.{minor}"
    try:
        metadata.version(_PACKAGES[name])
    except metadata.PackageNotFoundError:
        return f"package {_PACKAGES[name]} is not installed"
    return ""


def _load(name: Attention) -> Kernel:
    if name is Attention.sdpa:
        return SDPA
    makers = {Attention.flash2: _flash2, Attention.flash4: _flash4, Attention.transformer_engine: _transformer_engine}
    try:
        return makers[name](metadata.version(_PACKAGES[name]))
    except (ImportError, OSError) as error:
        why = f"package {_PACKAGES[name]} is installed, but does not load: {error}"
        raise UserError(
            Problem(where="train.attention", what=f"would be {name}", why=why, fix="repair the package on this node, or train.attention=sdpa")
        ) from error


def _sdpa_dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None, dropout: float) -> torch.Tensor:
    q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
    mask = None
    if q.shape[2] != k.shape[2]:  # torch's own causal mask is aligned at the top left
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(k.shape[2] - q.shape[2])
    grouped = q.shape[1] != k.shape[1]
    width, v = v.shape[-1], _widen(v, q)  # else torch keeps the whole s x s matrix
    out = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, dropout_p=dropout, scale=scale, enable_gqa=grouped)
    return out[..., :width].transpose(1, 2)


def _sdpa_varlen(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, segments: Segments, scale: float | None, dropout: float) -> torch.Tensor:
    def parts() -> Iterator[torch.Tensor]:
        queries, keys = zip(*segments.lengths, strict=True)
        for one_q, one_k, one_v in zip(q.split(queries), k.split(keys), v.split(keys), strict=True):
            yield _sdpa_dense(one_q[None], one_k[None], one_v[None], scale, dropout)[0]

    return torch.cat(list(parts()))


SDPA = Kernel(Attention.sdpa, torch.__version__, _sdpa_dense, _sdpa_varlen)
"""torch's own: fused on GPUs where the shapes allow, blocks on CPUs, and one call for each segment."""


def _flash2(version: str) -> Kernel:
    from flash_attn import flash_attn_func, flash_attn_varlen_func

    def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None, dropout: float) -> torch.Tensor:
        out: torch.Tensor = flash_attn_func(q, k, _widen(v, q), dropout_p=dropout, softmax_scale=scale, causal=True)
        return out[..., : v.shape[-1]]

    def varlen(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, segments: Segments, scale: float | None, dropout: float) -> torch.Tensor:
        out: torch.Tensor = flash_attn_varlen_func(
            q,
            k,
            _widen(v, q),
            segments.cu_q,
            segments.cu_k,
            segments.longest_q,
            segments.longest_k,
            dropout_p=dropout,
            softmax_scale=scale,
            causal=True,
        )
        return out[..., : v.shape[-1]]

    return Kernel(Attention.flash2, version, dense, varlen)


def _widen(v: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """flash-attn 2 and torch's blocked kernels take one head size only; columns of zeros come out as columns of zeros."""
    return pad(v, (0, q.shape[-1] - v.shape[-1])) if v.shape[-1] != q.shape[-1] else v


def _flash4(version: str) -> Kernel:
    from flash_attn.cute import flash_attn_func, flash_attn_varlen_func

    def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None, dropout: float) -> torch.Tensor:
        return _first(flash_attn_func(q, k, v, softmax_scale=scale, causal=True))

    def varlen(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, segments: Segments, scale: float | None, dropout: float) -> torch.Tensor:
        lengths = {"cu_seqlens_q": segments.cu_q, "cu_seqlens_k": segments.cu_k, "max_seqlen_q": segments.longest_q, "max_seqlen_k": segments.longest_k}
        return _first(flash_attn_varlen_func(q, k, v, **lengths, softmax_scale=scale, causal=True))

    return Kernel(Attention.flash4, version, dense, varlen)


def _first(found: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Some releases give the log-sum-exp beside the output."""
    return found[0] if isinstance(found, tuple) else found


def _transformer_engine(version: str) -> Kernel:
    import transformer_engine.pytorch  # noqa: F401 - that it loads is the question

    return Kernel(Attention.transformer_engine, version)
