"""A mixture's bytes and shares held against what was written and planned."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Lock

from rich.console import Console

from cpt.core import units
from cpt.core.errors import EXIT_DONE, EXIT_OURS
from cpt.core.manifest import DataManifest
from cpt.core.paths import RunPaths
from cpt.data import MixtureDataset
from cpt.data.manifest import prepare_command
from cpt.data.mixture import changed_sources
from cpt.data.shares import ShareCheck, compare_shares
from cpt.data.verify import corpus_damage, token_bytes
from cpt.tracking.journal import read_metrics
from jobs.mix_reading import Reading

_TOKENS = "data/tokens/"
_EVERY = 10.0
"""Seconds between two lines of progress."""


def verify(console: Console, found: Reading) -> int:
    """Read the whole corpus, then compare shares. 0, or 1 when a file is damaged or a share is not as planned."""
    manifest = found.manifest
    wrong = [*_files(console, found, manifest), *_plan(found, manifest)]
    for check, what in _checks(found):
        console.print(f"{what}: {_said(check)}")
        if not check.good:
            wrong.append(f"{what} are not as planned")
    if found.run:
        wrong.extend(_journal(console, found, found.run))
    for line in wrong:
        console.print(line)
    console.print(f"{len(wrong)} finding(s); restore damaged files from a copy, or {prepare_command(found.config)}" if wrong else "all is well")
    return EXIT_OURS if wrong else EXIT_DONE


def _files(console: Console, found: Reading, manifest: DataManifest) -> list[str]:
    """What is wrong with token files, a line each."""
    root = found.config.runs.data(found.config.corpus.name).root
    progress = _Progress(console, token_bytes(manifest))
    damage = corpus_damage(root, manifest, progress.advance)
    shards = sum(len(split.shards) for source in manifest.sources for split in (source.train, source.heldout))
    files = len({each.file for each in damage})
    verdict = f"{files} file(s) are damaged" if damage else "every byte is what was prepared, every document ends where its index says"
    console.print(f"{root}: {units.size(progress.total)} in {shards:,} shard(s) read in {units.duration(progress.seconds)}: {verdict}")
    return [f"{each.file}: {each.what}" for each in damage]


def _plan(found: Reading, manifest: DataManifest) -> Iterator[str]:
    """A corpus that was prepared again is whole, but not what a run was planned for."""
    for name in changed_sources(found.mixture, manifest):
        yield f"{name}: the run was planned for other tokens of it than the corpus holds now"


def _checks(found: Reading) -> Iterator[tuple[ShareCheck, str]]:
    """Counted sample by sample as training will read them: exact for the whole run, whatever was skipped until now."""
    samples, skipped = found.config.train.samples, found.skipped
    ledger = MixtureDataset([], found.segments, found.config).ledger(samples, skipped)
    yield compare_shares(found.segments, ledger.tokens, samples, skipped), f"shares of all {samples:,} samples of the run"


def _journal(console: Console, found: Reading, run: RunPaths) -> Iterator[str]:
    """What training wrote down of what it has read."""
    rows = [row for row in read_metrics(run) if not row.superseded and any(name.startswith(_TOKENS) for name in row.values)]
    if not rows:
        console.print("journal: nothing was trained on yet")
        return
    tokens = {name.removeprefix(_TOKENS): int(count) for name, count in rows[-1].values.items() if name.startswith(_TOKENS)}
    check = compare_shares(found.segments, tokens, rows[-1].consumed_samples, found.skipped)
    console.print(f"shares of the {rows[-1].consumed_samples:,} samples trained on until step {rows[-1].step:,}: {_said(check)}")
    if not check.good:
        yield f"{run.metrics(rows[-1].attempt)}: tokens by source until step {rows[-1].step:,} are not as planned"


def _said(check: ShareCheck) -> str:
    name, error = check.largest
    planned, realized = check.planned[name], check.realized.get(name, 0.0)
    return f"largest difference {error:.4%} ({name}: {planned:.4%} planned, {realized:.4%} read; allowed {check.allowed:.2%})"


class _Progress:
    """A line now and then while bytes are read by several threads."""

    def __init__(self, console: Console, total: int) -> None:
        self.total = total
        self._console, self._done, self._lock = console, 0, Lock()
        self._begun = self._said = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begun

    def advance(self, size: int) -> None:
        """So many bytes more were read."""
        with self._lock:
            self._done += size
            if time.monotonic() - self._said < _EVERY:
                return
            self._said = time.monotonic()
            speed = self._done / self.seconds
            left = units.duration(max(0.0, (self.total - self._done) / speed))
            self._console.print(f"{self._done / max(1, self.total):.1%} of {units.size(self.total)}, {units.size(speed)}/s, {left} left")
