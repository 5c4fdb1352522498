"""Keep megatron-core's and torch's import-time advice out of the user's log. Errors still come through."""

from __future__ import annotations

import logging
import os
import sys
import warnings


def install() -> None:
    """Before torch and megatron are imported: they speak while they load."""
    for name in ("megatron", "torch.utils.cpp_extension", "nvidia_resiliency_ext"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars belong on a terminal, not into a log
    for module in ("megatron", "torch", "transformers"):
        warnings.filterwarnings("ignore", module=rf"{module}\b.*")
    warnings.filterwarnings("ignore", message="Apex is not installed|Transformer Engine and Apex are not installed")
    warnings.filterwarnings("ignore", category=SyntaxWarning)
