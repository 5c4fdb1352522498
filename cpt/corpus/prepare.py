"""`prepare`: a corpus section -> token files, benchmarks and a manifest. All or nothing, and nothing twice."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

from cpt.config.run import RunConfig
from cpt.core.artifacts import sha256_file, sync_folder, write_bytes, write_text
from cpt.core.errors import UserError
from cpt.core.manifest import DataManifest
from cpt.core.paths import DataPaths
from cpt.corpus.inspection import inspect
from cpt.corpus.pipeline import Pipeline, plan_corpus
from cpt.corpus.readings import read_bad
from cpt.corpus.summary import make_manifest
from cpt.corpus.work import Watch, alone, run_here
from cpt.data.indexed import bin_path
from cpt.data.manifest import open_manifest

HASHED = 4_000_000_000
"""Bytes of token files up to which a corpus is hashed to see that it stands; of more only the sizes are looked at, and `cpt mix verify` hashes."""


def prepare(config: RunConfig, watch: Watch, workers: int = 1) -> DataManifest:
    """Make the corpus here. Raises `UserError` for missing files, malformed lines, empty sources, a tokenizer that does not fit."""
    with alone(config.runs.data(config.corpus.name)):
        pipeline = plan_corpus(config)
        run_here(pipeline, workers, watch)
        return publish(pipeline)


def finished(pipeline: Pipeline) -> DataManifest | None:
    """The manifest when this very corpus stands, file by file, made with this tokenizer from these inputs; None when there is work."""
    try:
        manifest = open_manifest(pipeline.config)
    except UserError:
        return None
    built = all(pipeline.paths.benchmark(name).is_file() for name in manifest.benchmarks)
    return manifest if manifest.key == pipeline.keys["tokenize"] and built and _is_whole(manifest, pipeline.paths) else None


def publish(pipeline: Pipeline) -> DataManifest:
    """Write the manifest of what the stages have left, the last thing of all; then what no corpus needs any more is removed."""
    paths, manifest = pipeline.paths, make_manifest(pipeline)
    paths.manifest.unlink(missing_ok=True)
    sync_folder(paths.root)
    for name in manifest.benchmarks:
        write_bytes(paths.benchmark(name), pipeline.benchmark(name).read_bytes())
    for name in pipeline.corpus.sources:
        bad = [json.dumps(asdict(one)) for shard in pipeline.shards(name) for one in read_bad(pipeline.selected(shard))]
        paths.quarantine(name).unlink(missing_ok=True)
        if bad:
            write_text(paths.quarantine(name), "\n".join(bad) + "\n")
    inspect(pipeline).save(paths.inspection)
    manifest.save(paths.manifest)
    _remove_stale(pipeline)
    return manifest


def _is_whole(manifest: DataManifest, paths: DataPaths) -> bool:
    """Of what `open_manifest` has found to be of the right size, every byte, unless that takes long."""
    shards = [shard for source in manifest.sources for split in (source.train, source.heldout) for shard in split.shards]
    files = [(bin_path(paths.root / shard.prefix), shard.sha256) for shard in shards]
    return sum(file.stat().st_size for file, _ in files) > HASHED or all(sha256_file(file) == sha256 for file, sha256 in files)


def _remove_stale(pipeline: Pipeline) -> None:
    """What was made for other settings: tokens of an older corpus, and work that this one did not use; and what killed workers had begun."""
    used = {pipeline.tokens, pipeline.folder, *(record.parent for stage in pipeline.stages for record in stage.records)}
    for folder in (*pipeline.paths.root.glob("tokens-*"), *pipeline.paths.work.glob("*")):
        if folder not in used and not any(folder in other.parents for other in used):
            shutil.rmtree(folder, ignore_errors=True)
    for benchmark in pipeline.paths.benchmark("any").parent.glob("*.jsonl"):
        if benchmark.stem not in pipeline.corpus.benchmarks:
            benchmark.unlink()
    for folder in used:
        for temp in folder.rglob(".*.tmp"):
            temp.unlink(missing_ok=True)
