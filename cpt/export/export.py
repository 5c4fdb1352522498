"""Write, reload with transformers, compare, publish: a folder whose logits are not the engine's never gets its name."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from cpt.config.run import RunConfig
from cpt.config.training import Precision
from cpt.convert import export_weights
from cpt.convert.parity import FILE, read_reference, relative_difference
from cpt.core.artifacts import read_json, sha256_file, sync_folder, write_text
from cpt.core.errors import CptError
from cpt.core.paths import RunPaths
from cpt.core.records import ExportRecord
from cpt.train import Session, open_session

TOLERANCE = 1e-4
"""Allowed difference of fp32 logits, relative to the largest: the same weights through two implementations."""
PROMPT = "Package: "


def export_run(run: RunPaths, config: RunConfig) -> ExportRecord:
    """Export the newest complete checkpoint to `run.export`. Raises `CptError` when the folder would answer differently."""
    base = config.runs.base(config.model.name)
    temp = run.export.with_name(f".export.{os.getpid()}.tmp")
    session = open_session(config, run, "latest", Precision.fp32)
    try:
        write_folder(session, config, base, temp)
        tokens = read_reference(base).tokens
        logits, sample = reload(temp, tokens)
        difference = relative_difference(logits, session.logits(tokens.numpy()).cpu())
        if not difference <= TOLERANCE:
            raise CptError(f"export refused: logits of the reloaded folder differ from the engine's by {difference:.3g}, allowed is {TOLERANCE}")
        return _publish(run, temp, session, difference, sample)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
        session.close()


def write_folder(session: Session, config: RunConfig, base: Path, folder: Path) -> None:
    """Weights from the session; config, tokenizer and template as the base has them."""
    shutil.rmtree(folder, ignore_errors=True)
    dtype = torch.bfloat16 if config.train.precision is Precision.bf16 else torch.float32
    export_weights(session.engine.chunks, config.model, folder, dtype)
    for file in base.iterdir():
        if file.is_file() and file.name != FILE and ".safetensors" not in file.name:
            shutil.copy(file, folder)
    settings = read_json(base / "config.json") | {"dtype": str(dtype).removeprefix("torch.")}
    write_text(folder / "config.json", json.dumps(settings, indent=2) + "\n")


@torch.no_grad()
def reload(folder: Path, tokens: torch.Tensor) -> tuple[torch.Tensor, str]:
    """fp32 logits [1, s, v] of `tokens` [1, s], and a greedy continuation of `PROMPT`, both by transformers."""
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    prompt = torch.tensor([tokenizer.encode(PROMPT)])
    generated = model.generate(prompt, max_new_tokens=48, do_sample=False, pad_token_id=0, attention_mask=torch.ones_like(prompt))
    return model(tokens).logits.float(), str(tokenizer.decode(generated[0]))


def _publish(run: RunPaths, temp: Path, session: Session, difference: float, sample: str) -> ExportRecord:
    record = ExportRecord(
        step=session.step,
        checkpoint=Path(session.source).name,
        logit_difference=difference,
        tolerance=TOLERANCE,
        sample=sample,
        files={file.name: sha256_file(file) for file in sorted(temp.iterdir())},
    )
    shutil.rmtree(run.export, ignore_errors=True)
    os.replace(temp, run.export)
    sync_folder(run.root)
    record.save(run.export_record)
    return record
