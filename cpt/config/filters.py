"""What a document must be like to stay: rules with their published thresholds, in named profiles, since rules for web pages delete product listings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from cpt.config.section import Section, fraction, positive
from cpt.core.errors import Problem


class Scrub(StrEnum):
    """What is replaced by a placeholder, wherever it stands in a text."""

    email = "email"
    ip = "ip"  # public addresses; private and example ones say nothing about anybody
    phone = "phone"  # international form, or with separators
    card = "card"  # payment cards, by their check digit
    iban = "iban"  # bank accounts, by their check digits
    secret = "secret"  # private keys, and tokens of known services by their form


@dataclass(kw_only=True, slots=True)
class LanguageRules(Section):
    """The text must be in its source's language, as fastText's lid.176 sees it; FineWeb's threshold (Penedo et al. 2024, arXiv 2406.17557, section 3.2)."""

    enabled: bool = False
    min_score: float = 0.65

    def problems(self) -> Iterator[Problem]:
        yield from fraction(self, "min_score")


@dataclass(kw_only=True, slots=True)
class RepetitionRules(Section):
    """Gopher's repetition removal (Rae et al. 2021, arXiv 2112.11446, table A1): shares of a text."""

    enabled: bool = False
    max_duplicate_lines: float = 0.30
    max_duplicate_paragraphs: float = 0.30
    max_duplicate_line_characters: float = 0.20
    max_duplicate_paragraph_characters: float = 0.20
    max_top_ngram_characters: dict[int, float] = field(default_factory=lambda: {2: 0.20, 3: 0.18, 4: 0.16})
    """Words of an n-gram -> share of characters in the most frequent one."""
    max_repeated_ngram_characters: dict[int, float] = field(default_factory=lambda: {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10})
    """Words of an n-gram -> share of characters in those that occurred before."""

    def problems(self) -> Iterator[Problem]:
        yield from fraction(self, "max_duplicate_lines", "max_duplicate_paragraphs", "max_duplicate_line_characters", "max_duplicate_paragraph_characters")


@dataclass(kw_only=True, slots=True)
class QualityRules(Section):
    """Gopher's quality rules (Rae et al. 2021, appendix A.1.1)."""

    enabled: bool = False
    min_words: int = 50
    max_words: int = 100_000
    min_mean_word_length: float = 3.0
    max_mean_word_length: float = 10.0
    max_symbols_per_word: float = 0.1
    """Of `#`, and of ellipses."""
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    min_alphabetic_words: float = 0.8
    min_stop_words: int = 2
    stop_words: dict[str, list[str]] = field(
        default_factory=lambda: {
            "en": ["the", "be", "to", "of", "and", "that", "have", "with"],
            "de": ["der", "die", "das", "und", "zu", "mit", "ist", "nicht"],
            "fr": ["le", "la", "les", "de", "et", "que", "est", "pour"],
        }
    )
    """Language -> words, as they are written. The English ones are Gopher's; in a language that has none the rule is left out."""

    def problems(self) -> Iterator[Problem]:
        yield from fraction(self, "max_bullet_lines", "max_ellipsis_lines", "min_alphabetic_words")
        if self.min_words > self.max_words:
            yield Problem(where="min_words", what=f"is {self.min_words}", why=f"max_words is {self.max_words}: nothing would stay", fix="min_words=50")


@dataclass(kw_only=True, slots=True)
class C4Rules(Section):
    """C4's cleaning (Raffel et al. 2020, arXiv 1910.10683, section 2.2), line by line; FineWeb keeps lines without a closing mark."""

    enabled: bool = False
    lines_end_in_punctuation: bool = False
    min_sentences: int = 5
    min_words_in_line: int = 3
    max_word_length: int = 1000


@dataclass(kw_only=True, slots=True)
class FinewebRules(Section):
    """FineWeb's own rules (Penedo et al. 2024, arXiv 2406.17557, section 3.6)."""

    enabled: bool = False
    min_lines_ending_in_punctuation: float = 0.12
    max_short_lines: float = 0.67
    short_line: int = 30
    """Characters."""
    max_duplicate_line_characters: float = 0.01
    max_newlines_per_word: float = 0.3

    def problems(self) -> Iterator[Problem]:
        yield from fraction(self, "min_lines_ending_in_punctuation", "max_short_lines", "max_duplicate_line_characters")
        yield from positive(self, "short_line", "max_newlines_per_word")


@dataclass(kw_only=True, slots=True)
class FilterConfig(Section):
    """Rules in FineWeb's order; the first that rejects a document names the reason. What is scrubbed is gone before they look."""

    scrub: list[Scrub] = field(default_factory=list)
    language: LanguageRules = field(default_factory=LanguageRules)
    repetition: RepetitionRules = field(default_factory=RepetitionRules)
    quality: QualityRules = field(default_factory=QualityRules)
    c4: C4Rules = field(default_factory=C4Rules)
    fineweb: FinewebRules = field(default_factory=FinewebRules)


def profiles() -> dict[str, FilterConfig]:
    """What every corpus has. `web` is FineWeb's pipeline (which ends with its addresses and mails replaced), `prose` Gopher's part of it; `listing` has no
    rule that asks for sentences; `none` keeps whatever is not empty."""
    return {
        "web": FilterConfig(
            scrub=[Scrub.email, Scrub.ip],
            language=LanguageRules(enabled=True),
            repetition=RepetitionRules(enabled=True),
            quality=QualityRules(enabled=True),
            c4=C4Rules(enabled=True),
            fineweb=FinewebRules(enabled=True),
        ),
        "prose": FilterConfig(repetition=RepetitionRules(enabled=True), quality=QualityRules(enabled=True)),
        "listing": FilterConfig(
            repetition=RepetitionRules(enabled=True, max_top_ngram_characters={}),
            quality=QualityRules(enabled=True, min_words=20, min_alphabetic_words=0.5, min_stop_words=0),
        ),
        "none": FilterConfig(),
    }
