"""Write, answer, compare, publish: a folder whose logits in transformers are not the checkpoint's in the engine never gets its name.

No step holds the whole model, so a checkpoint of any size and layout is exported on one machine with the memory of a few layers.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import psutil
import torch

from cpt.checkpoint import CheckpointStore
from cpt.checkpoint.reader import CheckpointReader
from cpt.config.model import ModelConfig
from cpt.config.run import RunConfig
from cpt.config.training import Precision
from cpt.convert.parity import FILE, read_reference, relative_difference, transformers_logits
from cpt.convert.streaming import Read
from cpt.core import units
from cpt.core.artifacts import read_json, sha256_file, sync_folder, write_text
from cpt.core.errors import CptError, MissingInput
from cpt.core.paths import RunPaths
from cpt.core.records import ExportRecord
from cpt.export.shards import write_shards
from cpt.train.streamed import engine_logits, from_checkpoint

TOLERANCE = 1e-4
"""Allowed difference of fp32 logits, relative to the largest: the same weights through two implementations."""
PROMPT = "Package: "
_WEIGHTS = {".safetensors", ".bin", ".pth", ".pt", ".gguf", ".h5", ".msgpack", ".onnx"}
"""Files of the base that are not copied: its weights are not these."""


def export_run(run: RunPaths, config: RunConfig) -> ExportRecord:
    """Export the newest complete checkpoint to `run.export`.

    Raises `MissingInput` when there is none, `CptError` when the folder would answer otherwise than the engine.
    """
    store = CheckpointStore(run.checkpoints)
    step = store.latest()
    if step is None:
        raise MissingInput(path=run.checkpoints, why="no checkpoint is complete yet", fix=f"cpt status {run.root}")
    dtype = torch.bfloat16 if config.train.precision is Precision.bf16 else torch.float32
    read = from_checkpoint(CheckpointReader(store.check(step)), dtype)
    base, temp = config.runs.base(config.model.name), run.export.with_name(f".export.{os.getpid()}.tmp")
    try:
        write_folder(read, config, base, temp, dtype)
        difference = answers(temp, read, config.model, read_reference(base).tokens)
        return _publish(run, temp, step, difference, continuation(temp, config.model))
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def write_folder(read: Read, config: RunConfig, base: Path, folder: Path, dtype: torch.dtype) -> None:
    """Weights in `dtype` from the checkpoint; config, tokenizer and template as the base has them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_shards(read, config.model, folder, config.export.shard_bytes)
    for file in base.iterdir():
        if file.is_file() and file.name != FILE and not file.name.endswith(".index.json") and file.suffix not in _WEIGHTS:
            shutil.copy(file, folder)
    settings = read_json(base / "config.json") | {"dtype": str(dtype).removeprefix("torch.")}
    settings.pop("torch_dtype", None)  # what older transformers called it
    write_text(folder / "config.json", json.dumps(settings, indent=2) + "\n")


def answers(folder: Path, read: Read, model: ModelConfig, tokens: torch.Tensor) -> float:
    """Largest logit difference over the largest logit. Raises `CptError` when it is beyond `TOLERANCE`."""
    difference = relative_difference(transformers_logits(folder, tokens), engine_logits(model, read, tokens))
    if not difference <= TOLERANCE:
        raise CptError(f"export refused: logits of the exported folder differ from the engine's by {difference:.3g}, allowed is {TOLERANCE}")
    return difference


@torch.no_grad()
def continuation(folder: Path, model: ModelConfig) -> str:
    """What transformers greedily makes of `PROMPT`; where the model does not fit into this machine's memory, that."""
    needs, free = 4 * model.parameters, psutil.virtual_memory().available
    if needs > 0.8 * free:
        return f"(nothing generated: the model needs {units.size(needs)} here, {units.size(free)} are free)"
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    prompt = torch.tensor([tokenizer.encode(PROMPT)])
    generated = loaded.generate(prompt, max_new_tokens=48, do_sample=False, pad_token_id=0, attention_mask=torch.ones_like(prompt))
    return str(tokenizer.decode(generated[0]))


def _publish(run: RunPaths, temp: Path, step: int, difference: float, sample: str) -> ExportRecord:
    record = ExportRecord(
        step=step,
        checkpoint=CheckpointStore(run.checkpoints).path(step).name,
        logit_difference=difference,
        tolerance=TOLERANCE,
        sample=sample,
        files={file.name: sha256_file(file) for file in sorted(temp.iterdir())},
    )
    sync_folder(temp)
    shutil.rmtree(run.export, ignore_errors=True)
    os.replace(temp, run.export)
    sync_folder(run.root)
    record.save(run.export_record)
    return record
