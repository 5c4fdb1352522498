"""Our lm-eval model over a logits function against lm-eval's own Hugging Face model: same items, same answers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpt.core.errors import MissingInput
from cpt.evaluate.multiple_choice import Subject, _item_key, score_benchmarks, task_yaml

WORDS = ["paris", "rome", "berlin", "madrid", "oslo", "iron", "gold", "tin", "zinc", "lead", "kitten", "puppy", "calf", "foal", "lamb"]


def items(count: int, group: str) -> list[dict[str, Any]]:
    rng = random.Random(7)
    rows = []
    for index in range(count):
        choices = rng.sample(WORDS, 4)
        rows.append(
            {
                "question": f"Number {index}: which {' '.join(rng.sample(WORDS, rng.randint(1, 9)))}?",
                "choices": choices,
                "gold": rng.randrange(4),
                "group": group,
            }
        )
    return rows


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("benchmarks") / "quiz.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in items(24, "general")))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a byte-level tokenizer, as a Hugging Face folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("tiny")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [" ".join(WORDS)] * 3,
        trainers.BpeTrainer(vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.5,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def subject(folder: Path, max_length: int = 256) -> Subject:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def logits(ids: np.ndarray) -> torch.Tensor:
        with torch.no_grad():
            return model(torch.from_numpy(ids)).logits

    return Subject(logits, folder / "tokenizer.json", "<|end|>", max_length)


@pytest.mark.engine
def test_answers_equal_those_of_lm_evals_own_model(folder: Path, benchmark: Path, tmp_path: Path) -> None:
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    (ours,) = score_benchmarks(subject(folder), {"quiz": benchmark}, items=0)
    (tmp_path / "quiz.yaml").write_text(task_yaml("quiz", benchmark, tmp_path))
    theirs = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(folder), "dtype": "float32"},
        device="cpu",
        tasks=["quiz"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=10,
        batch_size=4,
    )
    assert ours.correct == {_item_key(sample): bool(sample["acc"]) for sample in theirs["samples"]["quiz"]}
    assert ours.accuracy == pytest.approx(float(theirs["results"]["quiz"]["acc,none"]))
    assert 0 < ours.accuracy < 1
    assert (ours.items, ours.chance, ours.group) == (24, 0.25, "general")
    assert ours.standard_error == pytest.approx(float(theirs["results"]["quiz"]["acc_stderr,none"]))


@pytest.mark.engine
def test_log_likelihoods_equal_those_of_a_plain_forward_pass_also_when_truncated(folder: Path) -> None:
    import torch

    from cpt.evaluate.multiple_choice import language_model

    answers = subject(folder, max_length=12)
    model = language_model(answers)
    requests = [(("", ""), list(range(5, 5 + n)), [40 + n, 41, 42]) for n in (3, 40, 7, 1)]
    results = model._loglikelihood_tokens(requests)
    for (_, context, continuation), (total, greedy) in zip(requests, results, strict=True):
        row = (context + continuation)[-13:]
        scores = answers.logits(np.array([row[:-1]]))[0].log_softmax(-1)
        wanted = sum(float(scores[len(row) - 2 - i, continuation[-1 - i]]) for i in range(3))
        assert total == pytest.approx(wanted, abs=1e-4)
        assert greedy == bool((scores[-3:].argmax(-1) == torch.tensor(continuation)).all())


@pytest.mark.engine
def test_first_items_only_and_each_kind_of_set_under_its_own_name(folder: Path, benchmark: Path, tmp_path: Path) -> None:
    section = tmp_path / "odd 'name'" / "section.jsonl"
    section.parent.mkdir()
    section.write_text("".join(json.dumps(item) + "\n" for item in items(4, "domain")))
    scores = score_benchmarks(subject(folder), {"quiz": benchmark, "section": section}, items=6)
    assert [(score.name, score.group, score.items) for score in scores] == [("quiz", "general", 6), ("section", "domain", 4)]


def test_batches_hold_a_bounded_number_of_padded_tokens() -> None:
    from cpt.evaluate.language_model import TOKENS_PER_BATCH, batches

    lengths = [random.Random(index).randint(1, 300) for index in range(200)] + [5 * TOKENS_PER_BATCH]
    groups = list(batches(lengths))
    assert sorted(index for group in groups for index in group) == list(range(201))
    assert all(len(group) * max(lengths[i] for i in group) <= TOKENS_PER_BATCH or len(group) == 1 for group in groups)
    assert len(groups) < 40


def test_missing_file_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"quiz\.jsonl"):
        score_benchmarks(Subject(lambda ids: None, tmp_path, "", 0), {"quiz": tmp_path / "quiz.jsonl"}, 0)
