"""From shares to weights in tokens: a `mixture` section and a manifest give each source its part of a token budget."""

from __future__ import annotations

from collections.abc import Iterator

from cpt.config.data import MixtureConfig
from cpt.core.errors import Problem, UserError
from cpt.core.records import DataManifest, MixturePlan, SourceRecord, SourceShare

Parts = list[tuple[float, str, list[SourceRecord]]]
"""(share of all tokens, the setting that gives it, its sources)"""


def plan_mixture(mixture: MixtureConfig, manifest: DataManifest, train_tokens: int, sequence_length: int) -> MixturePlan:
    """Weight, planned tokens and epochs of every source.

    An epoch counts whole windows of `sequence_length` tokens, as training reads them. Raises `UserError` with every
    side that has no source, named weight without a source, and source that is too small or would repeat too often.
    """
    parts = _parts(mixture, manifest)
    if found := [*_unknown(mixture, manifest), *_empty(mixture, parts)]:
        raise UserError(found)
    shares = [share for part in parts for share in _shares(mixture, part, train_tokens, sequence_length)]
    if found := [problem for share in shares for problem in _repetition(mixture, share, sequence_length)]:
        raise UserError(found)
    order = [source.name for source in manifest.sources]
    return MixturePlan(train_tokens=train_tokens, shares=sorted(shares, key=lambda share: order.index(share.name)), data_hash=manifest.content_hash)


def _parts(mixture: MixtureConfig, manifest: DataManifest) -> Parts:
    general_share = 1 - mixture.domain_share
    general = [source for source in manifest.sources if source.group != "domain"]
    english = [source for source in general if source.language == "en"]
    return [
        (mixture.domain_share, "mixture.domain_share", [source for source in manifest.sources if source.group == "domain"]),
        (general_share * (1 - mixture.non_english_share), "mixture.non_english_share", english),
        (general_share * mixture.non_english_share, "mixture.non_english_share", [source for source in general if source.language != "en"]),
    ]


def _unknown(mixture: MixtureConfig, manifest: DataManifest) -> Iterator[Problem]:
    known = [source.name for source in manifest.sources]
    for name, weight in mixture.weights.items():
        if name not in known:
            yield Problem(
                where=f"mixture.weights.{name}",
                what="names no source",
                why=f"corpus {manifest.corpus} has {', '.join(known)}",
                fix=f"remove mixture.weights.{name}",
            )
        elif weight < 0:
            yield Problem(where=f"mixture.weights.{name}", what=f"is {weight}", why="a weight is zero or more", fix=f"mixture.weights.{name}=1")


def _empty(mixture: MixtureConfig, parts: Parts) -> Iterator[Problem]:
    names = ("domain", "English general", "non-English general")
    for name, (share, setting, sources) in zip(names, parts, strict=True):
        if share > 0 and not any(_weight(mixture, source) for source in sources):
            value = mixture.domain_share if setting.endswith("domain_share") else mixture.non_english_share
            fix = f"{setting}={1 if name == 'English general' else 0}, or a corpus with such a source"
            yield Problem(where=setting, what=f"is {value:g}", why=f"the corpus has no {name} source to give {share:.1%} of the tokens", fix=fix)


def _weight(mixture: MixtureConfig, source: SourceRecord) -> float:
    return mixture.weights.get(source.name, float(source.train.tokens))


def _shares(mixture: MixtureConfig, part: tuple[float, str, list[SourceRecord]], train_tokens: int, sequence_length: int) -> Iterator[SourceShare]:
    share, _, sources = part
    total = sum(_weight(mixture, source) for source in sources)
    for source in sources:
        weight = share * _weight(mixture, source) / total if total else 0.0
        tokens = round(weight * train_tokens)
        window_tokens = max(0, source.train.tokens - 1) // sequence_length * sequence_length
        yield SourceShare(
            name=source.name,
            group=source.group,
            language=source.language,
            weight=weight,
            planned_tokens=tokens,
            available_tokens=source.train.tokens,
            epochs=tokens / window_tokens if window_tokens else 0.0,
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
    elif share.epochs > mixture.max_epochs:
        most = round(share.planned_tokens * mixture.max_epochs / share.epochs)
        yield Problem(
            where=where,
            what=f"{share.name} would be read {share.epochs:.1f} times ({share.planned_tokens} tokens from {share.available_tokens})",
            why=f"mixture.max_epochs={mixture.max_epochs:g} allows {most} tokens",
            fix=f"a smaller share, fewer train.train_tokens, more text, or mixture.max_epochs={share.epochs + 0.05:.1f}",
        )
