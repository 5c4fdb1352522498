"""Kernels against attention written out, and the choice between them: by name, never quietly another."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest

from cpt.config.training import Attention, Precision
from cpt.core.errors import UserError

pytestmark = pytest.mark.engine


def attend(q: Any, k: Any, v: Any, scale: float) -> Any:
    """[s, heads, d], [t, groups, d], [t, groups, d_v] -> [s, heads, d_v] in fp64, the last query seeing every key."""
    import torch

    k, v = (tensor.repeat_interleave(q.shape[1] // tensor.shape[1], dim=1) for tensor in (k, v))
    scores = torch.einsum("shd,thd->hst", q.double(), k.double()) * scale
    hidden = torch.ones(len(q), len(k), dtype=torch.bool).triu(len(k) - len(q) + 1)
    return torch.einsum("hst,thd->shd", scores.masked_fill(hidden, float("-inf")).softmax(-1), v.double())


@pytest.mark.parametrize(("heads", "groups", "size", "value_size"), [(4, 2, 16, 16), (3, 1, 24, 16)], ids=["GQA", "other value size"])
def test_segments_are_attention_problems_of_their_own(heads: int, groups: int, size: int, value_size: int) -> None:
    import torch

    import cpt.engine  # noqa: F401
    from cpt.engine.kernels import SDPA
    from cpt.engine.segments import Segments

    assert SDPA.dense and SDPA.varlen
    random = torch.Generator().manual_seed(0)
    lengths = [(5, 5), (3, 9), (1, 4), (6, 6)]
    queries, keys = (sum(column) for column in zip(*lengths, strict=True))
    q = torch.randn(queries, heads, size, generator=random)
    k, v = (torch.randn(keys, groups, d, generator=random) for d in (size, value_size))
    empty = torch.zeros(0)
    out = SDPA.varlen(q, k, v, Segments(lengths, empty, empty, None), 0.3, 0.0)
    parts = zip(
        *(tensor.split(column) for tensor, column in ((q, [n for n, _ in lengths]), (k, [n for _, n in lengths]), (v, [n for _, n in lengths]))), strict=True
    )
    expected = [attend(*part, scale=0.3) for part in parts]
    torch.testing.assert_close(out.double(), torch.cat(expected), rtol=0, atol=2e-6)
    torch.testing.assert_close(SDPA.dense(q[None, :5], k[None, :5], v[None, :5], 0.3, 0.0)[0].double(), expected[0], rtol=0, atol=2e-6)


def test_narrow_values_do_not_make_torch_keep_every_score() -> None:
    """Latent attention has keys of 192 and values of 128: for those alone torch on a CPU keeps [heads, s, s] for the backward pass."""
    import torch

    from cpt.engine.kernels import SDPA

    assert SDPA.dense
    length, kept = 256, []
    q, k, v = (torch.randn(1, length, 2, d, requires_grad=True) for d in (24, 24, 16))

    def keep(tensor: Any) -> Any:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        SDPA.dense(q, k, v, None, 0.0)
    assert kept
    assert max(kept) < length * length


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A Hopper device and nothing but torch installed."""
    import torch

    import cpt.engine  # noqa: F401

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    return monkeypatch


def install(device: pytest.MonkeyPatch, *packages: str) -> None:
    """Said to be there, and without a module that could be imported: a broken install."""
    original = metadata.version
    device.setattr(metadata, "version", lambda name: "9.9" if name in packages else original(name))


def test_auto_without_flash_is_sdpa_and_says_so() -> None:
    import torch

    import cpt.engine  # noqa: F401
    from cpt.engine.kernels import resolve

    assert str(resolve(Attention.auto, Precision.bf16)) == f"sdpa {torch.__version__}"


@pytest.mark.parametrize("choice", [Attention.flash2, Attention.flash4, Attention.transformer_engine])
def test_an_explicit_choice_is_never_replaced(choice: Attention, device: pytest.MonkeyPatch) -> None:
    from cpt.engine.kernels import resolve

    with pytest.raises(UserError, match=r"package [a-z0-9-]+ is not installed") as caught:
        resolve(choice, Precision.bf16)
    assert caught.value.problems[0].fix.startswith("pip install ")


def test_auto_refuses_a_broken_package_instead_of_going_slow(device: pytest.MonkeyPatch) -> None:
    from cpt.engine.kernels import resolve

    install(device, "flash-attn")
    with pytest.raises(UserError, match="is installed, but does not load") as caught:
        resolve(Attention.auto, Precision.bf16)
    assert caught.value.problems[0].what == "would be flash2"


@pytest.mark.parametrize(
    ("capability", "precision", "dropout", "expected"),
    [
        ((9, 0), Precision.bf16, 0.0, "flash4"),
        ((9, 0), Precision.bf16, 0.1, "flash2"),
        ((8, 0), Precision.bf16, 0.0, "flash2"),
        ((7, 5), Precision.bf16, 0.0, "sdpa"),
        ((9, 0), Precision.fp32, 0.0, "sdpa"),
    ],
)
def test_auto_takes_the_first_that_can_do_the_work(
    capability: tuple[int, int], precision: Precision, dropout: float, expected: str, device: pytest.MonkeyPatch
) -> None:
    import torch

    from cpt.engine import kernels

    install(device, "flash-attn", "flash-attn-4")
    device.setattr(torch.cuda, "get_device_capability", lambda: capability)
    device.setattr(kernels, "_load", lambda name: name)
    assert kernels.resolve(Attention.auto, precision, dropout) == Attention(expected)
