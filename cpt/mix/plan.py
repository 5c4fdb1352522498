"""From shares to weights in tokens: a `mixture` section and a manifest give each source its part of a token budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from cpt.config.data import MixtureConfig, OnCap
from cpt.core.errors import Problem, UserError
from cpt.core.manifest import DataManifest, SourceRecord
from cpt.core.records import MixturePlan, SourceShare
from cpt.mix.caps import PARTS, Part, cap, part_of, redistribute, windows


def plan_mixture(
    mixture: MixtureConfig, manifest: DataManifest, train_tokens: int, sequence_length: int, consumed: Mapping[str, int] | None = None
) -> MixturePlan:
    """Weight, planned tokens and epochs of every source, for what is left of `train_tokens` after `consumed` tokens by source.

    An epoch counts whole windows of `sequence_length` tokens, as training reads them, and a cap counts what was consumed too. Raises `UserError` with
    every side that has no source, named weight or cap without a source, part of which only some sources are named, source that is too small or would repeat too often, and part that its caps
    cannot fill.
    """
    read = {source.name: (consumed or {}).get(source.name, 0) // sequence_length for source in manifest.sources}
    samples = (train_tokens - sum((consumed or {}).values())) / sequence_length
    parts = _parts(mixture, manifest, sequence_length, read)
    if found := [*_unknown(mixture, manifest), *_empty(mixture, parts), *_half_named(mixture, parts)]:
        raise UserError(found)
    quotas: Mapping[str, float] = {name: quota for part in parts for name, quota in part.quotas(samples).items()}
    if mixture.on_cap is OnCap.redistribute and any(part.over(samples) for part in parts):
        quotas = redistribute(parts, int(samples))
        samples = int(samples)
    shares = [_share(source, mixture, sequence_length, quotas[source.name] / samples, read[source.name] + quotas[source.name]) for source in manifest.sources]
    if found := [problem for share in shares for problem in _repetition(mixture, share, sequence_length)]:
        raise UserError(found)
    return MixturePlan(train_tokens=train_tokens, shares=shares, data_hash=manifest.content_hash)


def _parts(mixture: MixtureConfig, manifest: DataManifest, sequence_length: int, read: Mapping[str, int]) -> list[Part]:
    general_share = 1 - mixture.domain_share
    shares = (mixture.domain_share, general_share * (1 - mixture.non_english_share), general_share * mixture.non_english_share)
    settings = ("mixture.domain_share", "mixture.non_english_share", "mixture.non_english_share")
    sources = {part: [source for source in manifest.sources if part_of(source.group, source.language) == part] for part in PARTS}
    return [
        Part(
            name=name,
            share=share,
            setting=setting,
            weights={source.name: mixture.weights.get(source.name, float(source.train.tokens)) for source in sources[name]},
            allowed={s.name: max(0, int(cap(mixture, s.name) * windows(s, sequence_length)) - read[s.name]) for s in sources[name]},
        )
        for name, share, setting in zip(PARTS, shares, settings, strict=True)
    ]


def _unknown(mixture: MixtureConfig, manifest: DataManifest) -> Iterator[Problem]:
    known = [source.name for source in manifest.sources]
    for where in (*(f"mixture.weights.{name}" for name in mixture.weights), *(f"mixture.epoch_caps.{name}" for name in mixture.epoch_caps)):
        if where.rpartition(".")[2] not in known:
            yield Problem(where=where, what="names no source", why=f"corpus {manifest.corpus} has {', '.join(known)}", fix=f"remove {where}")
    for name, weight in mixture.weights.items():
        if weight < 0:
            yield Problem(where=f"mixture.weights.{name}", what=f"is {weight}", why="a weight is zero or more", fix=f"mixture.weights.{name}=1")


def _empty(mixture: MixtureConfig, parts: Sequence[Part]) -> Iterator[Problem]:
    for part in parts:
        if part.share > 0 and not any(part.weights.values()):
            value = mixture.domain_share if part.setting.endswith("domain_share") else mixture.non_english_share
            fix = f"{part.setting}={1 if part.name == 'English general' else 0}, or a corpus with such a source"
            why = f"the corpus has no {part.name} source to give {part.share:.1%} of the tokens"
            yield Problem(where=part.setting, what=f"is {value:g}", why=why, fix=fix)


def _half_named(mixture: MixtureConfig, parts: Sequence[Part]) -> Iterator[Problem]:
    """`{novels: 3}` beside a source that weighs its own two million tokens is nothing, and nobody means that."""
    for part in parts:
        named = {name: weight for name, weight in part.weights.items() if mixture.weights.get(name, 0) > 0}
        other = {name: weight for name, weight in part.weights.items() if name not in mixture.weights}
        if named and other:
            weights = ", ".join([*(f"{name}: {weight:g}" for name, weight in named.items()), *(f"{name}: <weight>" for name in other)])
            why = f"a source without one weighs its tokens, {', '.join(f'{name} {weight:,.0f}' for name, weight in other.items())}"
            share = sum(named.values()) / sum(part.weights.values())
            yield Problem(
                where="mixture.weights",
                what=f"gives {', '.join(named)} a weight, but not {', '.join(other)} of the same {part.name} part",
                why=f"{why}: {', '.join(named)} would be {share:.2%} of the part",
                fix=f"mixture.weights='{{{weights}}}'; 0 leaves a source out",
            )


def _share(source: SourceRecord, mixture: MixtureConfig, sequence_length: int, weight: float, samples: float) -> SourceShare:
    return SourceShare(
        name=source.name,
        group=source.group,
        language=source.language,
        weight=weight,
        planned_tokens=round(samples * sequence_length),
        available_tokens=source.train.tokens,
        epoch_tokens=windows(source, sequence_length) * sequence_length,
        epoch_cap=cap(mixture, source.name),
        sha256=source.train.sha256,
    )


def _repetition(mixture: MixtureConfig, share: SourceShare, sequence_length: int) -> Iterator[Problem]:
    where = f"mixture.weights.{share.name}"
    if share.weight > 0 and share.available_tokens <= sequence_length:
        yield Problem(
            where=where,
            what=f"{share.name} has {share.available_tokens} tokens to train on",
            why=f"one window reads train.sequence_length + 1 = {sequence_length + 1}",
            fix=f"{where}=0, a shorter train.sequence_length, or more text",
        )
    elif share.weight > 0 and share.epochs > share.epoch_cap:
        most = int(share.epoch_cap * share.epoch_tokens) // sequence_length * sequence_length
        setting = f"mixture.epoch_caps.{share.name}" if share.name in mixture.epoch_caps else "mixture.max_epochs"
        yield Problem(
            where=where,
            what=f"{share.name} would be read {share.epochs:.3g} times ({share.planned_tokens} tokens from {share.available_tokens})",
            why=f"{setting}={share.epoch_cap:g} allows {most} tokens",
            fix=f"mixture.on_cap=redistribute, a smaller share, fewer train.train_tokens, more text, or {setting}={math.ceil(share.epochs * 100) / 100:g}",
        )
