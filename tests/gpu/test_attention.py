"""Flash kernels against torch's on a GPU: forward and backward, grouped heads, segments, queries and keys of other lengths.

Both compute in bf16 with fp32 sums; a result differs from fp32 attention by rounding of its inputs and outputs, about
2^-8 of its size. Tolerance: twice torch's own bf16 error against fp32, as flash-attn's tests have it, plus 1e-5.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest

from cpt.config.training import Attention, Precision

pytestmark = pytest.mark.gpu

SHAPES = {"MHA": (8, 8, 128, 128), "GQA": (8, 2, 128, 128), "MLA": (8, 8, 192, 128)}
LENGTHS = [(128, 128), (64, 200), (1, 77), (300, 300)]


@pytest.fixture(params=[Attention.flash2, Attention.flash4])
def kernel(request: pytest.FixtureRequest) -> Any:
    """Each backend that this machine has."""
    import torch

    from cpt.engine.kernels import _PACKAGES, _obstacle, resolve

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if obstacle := _obstacle(request.param, Precision.bf16, 0.0):
        pytest.skip(obstacle)
    print(_PACKAGES[request.param], metadata.version(_PACKAGES[request.param]))
    return resolve(request.param, Precision.bf16)


def tensors(shape: str, dtype: Any, *sizes: tuple[int, ...]) -> list[Any]:
    """q, k, v with leading `sizes` (of queries, of keys), on the GPU, wanting gradients."""
    import torch

    heads, groups, size, value_size = SHAPES[shape]
    torch.manual_seed(0)
    found = [
        torch.randn(*lead, n, d, device="cuda")
        for lead, n, d in zip((sizes[0], sizes[1], sizes[1]), (heads, groups, groups), (size, size, value_size), strict=True)
    ]
    return [tensor.bfloat16().to(dtype).requires_grad_() for tensor in found]


def results(call: Any, inputs: list[Any]) -> list[Any]:
    """Output and the three gradients, fp32."""
    import torch

    out = call(*inputs)
    weight = torch.linspace(-1, 1, out.numel(), device="cuda").reshape(out.shape).to(out.dtype)
    return [tensor.float() for tensor in (out, *torch.autograd.grad((out * weight).sum(), inputs))]


def check(flash: list[Any], torch_bf16: list[Any], exact: list[Any]) -> None:
    for name, found, other, true in zip(("out", "dq", "dk", "dv"), flash, torch_bf16, exact, strict=True):
        allowed = 2 * float((other - true).abs().max()) + 1e-5
        assert float((found - true).abs().max()) <= allowed, name


@pytest.mark.parametrize("shape", SHAPES)
def test_flash_equals_sdpa_on_whole_rows(shape: str, kernel: Any) -> None:
    import torch

    from cpt.engine.kernels import SDPA

    assert SDPA.dense
    low, high = (tensors(shape, dtype, (2, 512), (2, 512)) for dtype in (torch.bfloat16, torch.float32))
    call: Any = lambda dense: lambda q, k, v: dense(q, k, v, None, 0.0)  # noqa: E731
    check(results(call(kernel.dense), low), results(call(SDPA.dense), low), results(call(SDPA.dense), high))


@pytest.mark.parametrize("shape", SHAPES)
def test_flash_equals_sdpa_on_segments(shape: str, kernel: Any) -> None:
    import torch

    from cpt.engine.kernels import SDPA
    from cpt.engine.segments import Segments

    cumulative = torch.tensor([(0, 0), *LENGTHS], dtype=torch.int32, device="cuda").cumsum(0, dtype=torch.int32)
    parts = Segments(LENGTHS, cumulative[:, 0].contiguous(), cumulative[:, 1].contiguous(), None)
    queries, keys = (int(total) for total in cumulative[-1])
    low, high = (tensors(shape, dtype, (queries,), (keys,)) for dtype in (torch.bfloat16, torch.float32))
    call: Any = lambda varlen: lambda q, k, v: varlen(q, k, v, parts, 0.1, 0.0)  # noqa: E731
    check(results(call(kernel.varlen), low), results(call(SDPA.varlen), low), results(call(SDPA.varlen), high))
