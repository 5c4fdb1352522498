"""A rival in `cpt bench loaders`: megatron-core's blended GPTDataset under torch's DataLoader, as Megatron-LM trains from it. Not used for training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from torch.utils.data import DataLoader

from cpt.config.run import RunConfig


class _Tokenizer:
    """What a dataset without padding wants to know of one."""

    eod = pad = 0
    unique_identifiers: Mapping[str, str] = {}

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size


class GPTDatasetLoader:
    """Global batches in order. Each has tokens, labels, positions and a loss mask, [n, s]: all that it makes of a row, not only what we would use."""

    def __init__(self, config: RunConfig, weights: Mapping[Path, float], samples: int, workers: int) -> None:
        """`weights` of each token file's prefix; `samples` in all; indices are cached beside the files; `workers` 0 reads when asked."""
        size = config.train.global_batch_size
        blend = ([str(prefix) for prefix in weights], list(weights.values()))
        described = GPTDatasetConfig(
            random_seed=config.seed,
            sequence_length=config.train.sequence_length,
            blend=blend,
            split="1,0,0",
            tokenizer=_Tokenizer(config.model.vocab_size),
            path_to_cache=str(next(iter(weights)).parent / "megatron"),
            reset_position_ids=False,
            reset_attention_mask=False,
            eod_mask_loss=False,
            create_attention_mask=False,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about ranks, of which there is one
            data = BlendedMegatronDatasetBuilder(GPTDataset, [samples, 0, 0], lambda: True, described).build()[0]
        ahead = config.loader.depth if workers else None
        self._loader: Any = DataLoader(data, batch_size=size, num_workers=workers, prefetch_factor=ahead, pin_memory=torch.cuda.is_available())
        self._batches = iter(self._loader)

    def next(self) -> dict[str, torch.Tensor]:
        """The next global batch, on the device."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return {name: value.to(device, non_blocking=True) for name, value in next(self._batches).items()}

    def close(self) -> None:
        """End its workers."""
        del self._batches, self._loader
