"""A live model as lm-eval sees one: nothing but a function from token ids to logits. No export, no second copy of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lm_eval.api.model import TemplateLM

Logits = Callable[[npt.NDArray[np.int64]], torch.Tensor]
"""Ids [b, s] -> logits [b, s, vocab], float32."""

TOKENS_PER_BATCH = 2048
"""Padded tokens in one call: with a vocabulary of 49k the logits take 400 MB."""

TokenRequest = tuple[tuple[str, str], list[int], list[int]]
"""(texts, context ids, continuation ids), lm-eval's own form."""


class LogitsModel(TemplateLM):
    """Log-likelihood requests only: generation without a cache is too slow to be of use."""

    def __init__(self, logits: Logits, tokenizer: Any, end_of_text: int, max_length: int) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self._logits = logits
        self._end_of_text = end_of_text
        self._max_length = max_length

    @property
    def eot_token_id(self) -> int:
        """Also stands for an empty context."""
        return self._end_of_text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Plain text: the base was pretrained on documents that begin without a special token."""
        return [int(token) for token in self.tokenizer.encode(string, add_special_tokens=False)]

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """As inherited, without a progress bar: this runs in jobs, where a bar is a line of noise."""
        return list(super().loglikelihood(requests, disable_tqdm=True))

    def _loglikelihood_tokens(self, requests: list[TokenRequest], **kwargs: Any) -> list[tuple[float, bool]]:
        """(sum of log probabilities, whether greedy decoding would say it) of each continuation."""
        results: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for batch in batches([len(context) + len(continuation) for _, context, continuation in requests]):
            for place, result in zip(batch, self._score([requests[index] for index in batch]), strict=True):
                results[place] = result
        return results

    def _score(self, requests: Sequence[TokenRequest]) -> Iterator[tuple[float, bool]]:
        rows = [(context + continuation)[-(self._max_length + 1) :] for _, context, continuation in requests]
        # Right padding: a causal model's earlier positions cannot see it.
        ids = np.zeros((len(rows), max(map(len, rows)) - 1), dtype=np.int64)
        for line, row in zip(ids, rows, strict=True):
            line[: len(row) - 1] = row[:-1]
        logits = self._logits(ids)
        for index, (row, (_, _, continuation)) in enumerate(zip(rows, requests, strict=True)):
            wanted = torch.tensor(row[-len(continuation) :], device=logits.device)
            scores = logits[index, len(row) - 1 - len(wanted) : len(row) - 1].float().log_softmax(dim=-1)
            yield float(scores.gather(1, wanted[:, None]).sum()), bool((scores.argmax(dim=-1) == wanted).all())

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Not offered: held-out loss is measured on tokenized windows, see `heldout`."""
        raise NotImplementedError("held-out loss is measured by cpt.evaluate.heldout")

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Not offered: export the model and generate with an inference engine."""
        raise NotImplementedError("generation tasks run on an exported model")


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices grouped by length, longest first, so that a batch holds at most `TOKENS_PER_BATCH` padded tokens (or one row)."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
