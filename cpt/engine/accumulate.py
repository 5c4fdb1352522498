"""Weight gradients added to the gradient buffer by the matrix product itself, in torch alone: megatron-core asks apex's CUDA extension for that.

Without it every product is written to a new tensor, read again and added: for a weight of n values 12 n bytes of traffic and 4 n of memory
that this saves. On CUDA a bf16 product is added in fp32 before it is rounded, as the extension does.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import torch

from cpt.config.training import Precision

APEX = "apex"
TORCH = "torch addmm"
NONE = "none"


def install(precision: Precision) -> str:
    """Which kernel adds weight gradients: apex's where it is installed, torch's where a small product of this precision shows that it can, else none."""
    import megatron.core.tensor_parallel.layers as layers

    if layers._grad_accum_fusion_available and not isinstance(layers.fused_weight_gradient_mlp_cuda, SimpleNamespace):
        return APEX
    if not works(torch.bfloat16 if precision is Precision.bf16 else torch.float32):
        return NONE
    layers.fused_weight_gradient_mlp_cuda = SimpleNamespace(wgrad_gemm_accum_fp32=add_product)
    layers._grad_accum_fusion_available = True
    return TORCH


@cache
def works(dtype: torch.dtype) -> bool:
    """Whether torch has the kernel for this type on this device (CPUs: fp32 alone), and adds what it should."""
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    source, grad_output = (torch.arange(256.0, device=device).reshape(16, 16).remainder(number).to(dtype) for number in (7, 5))
    main_grad = torch.ones(16, 16, device=device)
    try:
        add_product(source, grad_output, main_grad)
    except (RuntimeError, NotImplementedError, TypeError):
        return False
    return bool(torch.equal(main_grad, 1 + grad_output.float().t() @ source.float()))


def add_product(source: torch.Tensor, grad_output: torch.Tensor, main_grad: torch.Tensor) -> None:
    """main_grad [out, in] fp32 += grad_output [n, out]^T source [n, in]."""
    if source.dtype is torch.float32:
        main_grad.addmm_(grad_output.t(), source)
    else:
        torch.addmm(main_grad, grad_output.t(), source, out_dtype=torch.float32, out=main_grad)
