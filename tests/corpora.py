"""A small tokenizer, a base folder that has it, and the committed sample corpus prepared once, for the tests of `corpus` and `data`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from cpt.config.compose import compose_config
from cpt.config.run import RunConfig
from cpt.core.manifest import DataManifest
from cpt.corpus.prepare import prepare
from cpt.data.indexed import IndexedTokens, IndexedWriter

VOCABULARY = 512
ASSETS = Path(__file__).parent / "assets"


def make_tokenizer(path: Path, end_of_document: str = "<|endoftext|>") -> None:
    """A byte-level BPE of `VOCABULARY` ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[end_of_document], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train([str(ASSETS / "german.jsonl"), str(ASSETS / "french.jsonl")], trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))


def configure(root: Path, *overrides: str) -> RunConfig:
    """A run on the sample corpus with the small tokenizer's vocabulary."""
    given = ["model=tiny", "corpus=sample", f"run_root={root}", f"model.vocab_size={VOCABULARY}", "train.train_tokens=20480", "train.sequence_length=64"]
    return compose_config([*given, *overrides])


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    make_tokenizer(path)
    return path


@pytest.fixture
def root(tmp_path: Path, tokenizer_file: Path) -> Path:
    """A run root whose base folder has the small tokenizer."""
    give_tokenizer(tmp_path, tokenizer_file)
    return tmp_path


def give_tokenizer(root: Path, tokenizer_file: Path) -> None:
    base = root / "base" / "tiny"
    base.mkdir(parents=True)
    (base / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> tuple[RunConfig, DataManifest]:
    """The sample corpus; tests that change files copy it first."""
    root = tmp_path_factory.mktemp("prepared")
    give_tokenizer(root, tokenizer_file)
    config = configure(root)
    return config, prepare(config, lambda progress: None)


@pytest.fixture
def tokens_of(tmp_path: Path) -> Callable[..., IndexedTokens]:
    """Documents (lists of ids) as an opened prefix."""

    def make(*documents: list[int], dtype: str = "uint16", name: str = "train") -> IndexedTokens:
        with IndexedWriter(tmp_path / name, dtype) as writer:
            for document in documents:
                writer.add(document)
        return IndexedTokens([tmp_path / name])

    return make
