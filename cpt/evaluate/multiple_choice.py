"""Multiple-choice benchmarks through lm-eval, offline, over JSONL that `prepare` left beside the data."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpt.core.errors import MissingInput
from cpt.core.records import BenchmarkScore

if TYPE_CHECKING:
    from cpt.evaluate.language_model import Logits

TASK_VERSION = 1
"""Part of an item's identity: raise it when the prompt changes, and old evaluations no longer pair."""

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


def go_offline() -> None:
    """Nothing is fetched and no bars fill the log. Call before anything imports transformers, datasets or lm-eval."""
    os.environ.update(OFFLINE)


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that answers."""

    logits: Logits
    tokenizer: Path
    """tokenizer.json"""
    end_of_text: str
    max_length: int
    """Longest sequence in tokens; longer prompts lose their beginning."""


def score_benchmarks(subject: Subject, files: Mapping[str, Path], items: int) -> list[BenchmarkScore]:
    """Accuracy per benchmark over its first `items` items (0: all). Each line: {"question", "choices", "gold", "group"}."""
    for path in files.values():
        if not path.is_file():
            raise MissingInput(path=path, why="benchmarks are built beside the data", fix="cpt prepare corpus=<name>")
    if not files:
        return []
    results = _run(subject, files, items)
    return [_score(name, path, results["samples"][name]) for name, path in files.items()]


def _run(subject: Subject, files: Mapping[str, Path], items: int) -> dict[str, Any]:
    go_offline()
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="cpt-tasks-") as folder:
        for name, path in files.items():
            Path(folder, f"{name}.yaml").write_text(task_yaml(name, path, Path(folder)))
        results = simple_evaluate(
            model=language_model(subject),
            tasks=list(files),
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            limit=items or None,
            bootstrap_iters=0,
            log_samples=True,
        )
    if results is None:
        raise RuntimeError("lm-eval returns results on rank 0 only, and we run it at world size 1")
    return dict(results)


def language_model(subject: Subject) -> Any:
    """The subject as an lm-eval model."""
    from transformers import PreTrainedTokenizerFast

    from cpt.evaluate.language_model import LogitsModel

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(subject.tokenizer))
    return LogitsModel(subject.logits, tokenizer, tokenizer.get_vocab()[subject.end_of_text], subject.max_length)


def task_yaml(name: str, path: Path, cache: Path) -> str:
    """lm-eval's description of one benchmark; JSON is YAML, and quotes every path safely."""
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path.absolute())}, "cache_dir": str(cache / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": TASK_VERSION},
    }
    return json.dumps(task)


def _score(name: str, path: Path, samples: list[dict[str, Any]]) -> BenchmarkScore:
    correct: dict[str, bool] = {}
    for sample in samples:
        key = _item_key(sample)
        while key in correct:  # the same question twice: both count
            key += "'"
        correct[key] = bool(sample["acc"])
    accuracy = sum(correct.values()) / len(correct)
    return BenchmarkScore(
        name=name,
        group=str(samples[0]["doc"]["group"]),
        accuracy=accuracy,
        standard_error=math.sqrt(accuracy * (1 - accuracy) / max(1, len(correct) - 1)),
        items=len(correct),
        chance=sum(1 / len(sample["doc"]["choices"]) for sample in samples) / len(samples),
        correct=correct,
    )


def _item_key(sample: dict[str, Any]) -> str:
    """Document, prompt and task version: what must be equal for two answers to be comparable."""
    text = f"{sample['doc_hash']} {sample['prompt_hash']} {sample['target_hash']} {TASK_VERSION}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
