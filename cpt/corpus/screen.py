"""`Screen`: everything that is asked of one document alone: scrubbed, in its language, and good enough by its profile's rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cpt.config.data import CorpusConfig, SourceConfig
from cpt.corpus.language import foreign
from cpt.corpus.rules import Filter
from cpt.corpus.scrub import scrub
from cpt.corpus.words import words_of


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is empty when the document stays; `text` is what stays of it; `scrubbed`: kind -> replacements."""

    reason: str
    text: str
    scrubbed: Mapping[str, int]


class Screen:
    """Of one source."""

    def __init__(self, corpus: CorpusConfig, source: SourceConfig) -> None:
        self._profile, self._language = corpus.filters[source.filters], source.language
        self.words = words_of(source.language)
        self._rules = Filter(self._profile, source.language, self.words)

    def look(self, text: str) -> Verdict:
        """Scrubbing first, so that nothing that follows sees, or shows as an example, what must not be seen."""
        text, scrubbed = scrub(text, self._profile.scrub) if self._profile.scrub else (text, {})
        if text.strip() and self._profile.language.enabled and (why := foreign(text, self._language, self._profile.language)):
            return Verdict(why, text, scrubbed)
        reason, left = self._rules.judge(text)
        return Verdict(reason, left, scrubbed)
