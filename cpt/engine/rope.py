"""Rotary frequencies as the base has them: Hugging Face's formulas, because megatron-core's are cut short.

megatron-core takes the base of the frequencies as a whole number, and of Llama 3.1's scaling only the factor; the other three it holds to be 1, 4 and 8192.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from cpt.config.model import ModelConfig, RopeKind, RopeScaling


def inverse_frequencies(model: ModelConfig, device: torch.device) -> torch.Tensor:
    """[kv_channels / 2] fp32, radians a position: theta^(-2i / kv_channels), scaled as `model.rope_scaling` says."""
    channels = torch.arange(0, model.kv_channels, 2, dtype=torch.int64).to(device, torch.float32)
    plain = 1.0 / (model.rope_theta ** (channels / model.kv_channels))
    return _llama3(plain, model.rope_scaling) if model.rope_scaling.kind is RopeKind.llama3 else plain


def _llama3(plain: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    """Wavelengths beyond original / low are stretched by `factor`, those below original / high kept, a linear ramp in frequency between."""
    original = scaling.original_max_position_embeddings
    wavelength = 2 * math.pi / plain
    ramp = (original / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    between = (1 - ramp) * plain / scaling.factor + ramp * plain
    stretched = torch.where(wavelength > original / scaling.low_freq_factor, plain / scaling.factor, between)
    return torch.where(wavelength < original / scaling.high_freq_factor, plain, stretched)


def restart_with_documents(gpt: Any) -> None:
    """Angles from each micro-batch's own positions: `gpt` is called with `packed_seq_params=Documents`.

    Rotation is relative and nothing looks across documents, so this only keeps the angles as small as in a document alone.
    """
    now: dict[str, torch.Tensor] = {}
    gpt.register_forward_pre_hook(lambda _, args, kwargs: now.update(positions=kwargs["packed_seq_params"].positions), with_kwargs=True)
    gpt.rotary_pos_emb.register_forward_hook(lambda rotary, args, angles: angles_at(now["positions"], rotary.inv_freq))


def angles_at(positions: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """positions [b, s], radians a position [d / 2] -> radians [s, b, 1, d], as megatron-core's rotary embedding gives them."""
    half = positions.T[:, :, None, None].to(frequencies.device, torch.float32) * frequencies
    return torch.cat((half, half), dim=-1)
