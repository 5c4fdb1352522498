"""Corpora of a test's own documents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cpt.config.compose import compose_parts
from cpt.config.run import RunConfig
from cpt.corpus.work import Progress
from tests.corpora import ASSETS, VOCABULARY, configure

GONE = [f"~corpus.sources.{name}" for name in ("dictionary", "german", "french")]


def quiet(progress: Progress) -> None:
    """Nobody watches."""


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_jsonl(path: Path, texts: list[str]) -> Path:
    return write_rows(path, ({"id": f"{path.stem}{number}", "text": text} for number, text in enumerate(texts)))


def two_sources(root: Path, first: Path, second: Path, *overrides: str) -> RunConfig:
    """The sample corpus cut down to two unfiltered sources with files of the test's own: `listings` (domain) and `novels`."""
    files = [f"corpus.sources.listings.paths=['{first}']", f"corpus.sources.novels.paths=['{second}']"]
    filters = ["corpus.sources.listings.filters=none", "corpus.sources.novels.filters=none"]
    return configure(root, "corpus.name=own", "corpus.benchmarks=[]", *files, *filters, *GONE, *overrides)


def texts(word: str, number: int) -> list[str]:
    """Words differ in letters: in numbers near-duplicates may differ."""
    return [" ".join(f"{word}{letters(document)}{letters(place)}" for place in range(30)) for document in range(number)]


def letters(number: int) -> str:
    return chr(97 + number // 26) + chr(97 + number % 26)


def sample(name: str) -> list[dict[str, str]]:
    """Rows of a committed sample."""
    return [json.loads(line) for line in (ASSETS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def write_corpus(root: Path, section: Mapping[str, Any]) -> RunConfig:
    """A corpus of a test's own, as a user writes one: `own.yaml` where Hydra finds it."""
    folder = root / "conf" / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "own.yaml").write_text(json.dumps({"name": "own", **section}))
    return compose_parts(["model=tiny", "corpus=own", f"run_root={root}", f"model.vocab_size={VOCABULARY}"])
