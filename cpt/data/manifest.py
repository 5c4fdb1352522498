"""Opening a prepared corpus: every way in which data, config and tokenizer can disagree is refused here, before a job exists."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from cpt.config.data import CorpusConfig
from cpt.config.run import RunConfig
from cpt.core.artifacts import sha256_file, sha256_json
from cpt.core.errors import MissingInput, Problem, UserError
from cpt.core.manifest import DataManifest
from cpt.data.indexed import IndexedTokens


def corpus_fingerprint(corpus: CorpusConfig) -> str:
    """Hash of the whole `corpus` section."""
    return sha256_json(asdict(corpus))


def tokenizer_path(config: RunConfig) -> Path:
    """The base's own tokenizer."""
    return config.runs.base(config.model.name) / "tokenizer.json"


def prepare_command(config: RunConfig) -> str:
    """What to type so that this config's data exists."""
    root = "" if config.run_root == RunConfig().run_root else f" run_root={shlex.quote(config.run_root)}"
    return f"cpt prepare corpus={config.corpus.name} model={config.model.name}{root}"


def open_manifest(config: RunConfig) -> DataManifest:
    """The manifest of the config's corpus, checked against config, tokenizer and files.

    Raises `MissingInput` when it was never prepared and `UserError` with everything that does not fit.
    """
    manifest, root = read_manifest(config), config.runs.data(config.corpus.name).root
    for source in manifest.sources:
        for split in (source.train, source.heldout):
            IndexedTokens(split.prefixes(root))
    return manifest


def read_manifest(config: RunConfig) -> DataManifest:
    """As `open_manifest`, without a look at the token files."""
    paths = config.runs.data(config.corpus.name)
    if not paths.manifest.is_file():
        raise MissingInput(path=paths.manifest, why=f"corpus {config.corpus.name} is not prepared", fix=prepare_command(config))
    manifest = DataManifest.load(paths.manifest)
    if found := list(_mismatches(config, manifest)):
        raise UserError(found)
    return manifest


def _mismatches(config: RunConfig, manifest: DataManifest) -> Iterator[Problem]:
    file, again = config.runs.data(config.corpus.name).manifest, prepare_command(config)
    if manifest.corpus_fingerprint != corpus_fingerprint(config.corpus):
        yield Problem(where="corpus", what="differs from the section that prepared the data", why=f"{file} was made from other settings", fix=again)
    tokenizer = tokenizer_path(config)
    if tokenizer.is_file() and sha256_file(tokenizer) != manifest.tokenizer_sha256:
        yield Problem(
            where=str(tokenizer), what="is not the tokenizer of the data", why=f"{file} was made with another one: token ids would mean other words", fix=again
        )
    if manifest.vocab_size > config.model.vocab_size:
        yield Problem(
            where="model.vocab_size",
            what=f"is {config.model.vocab_size}",
            why=f"the data has token ids up to {manifest.vocab_size - 1}",
            fix=again,
        )
