"""Personal data and secrets out of a text: each find is replaced by a placeholder of its kind.

Mails and addresses are found and replaced as by datatrove's PIIFormatter (0.10.1), which ends FineWeb's pipeline. Its placeholders take turns,
there through a whole process, here through one text: equal texts stay equal wherever they are read. All other kinds become `<phone>`, `<card>`,
`<iban>` and `<secret>`.

Every finder takes time in proportion to the text, whatever that holds: runs are possessive or bounded, and no match is begun inside of a run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address
from itertools import cycle
from math import log2

from cpt.config.filters import Scrub

type Span = tuple[int, int]

_ORDER = (Scrub.email, Scrub.ip, Scrub.secret, Scrub.iban, Scrub.card, Scrub.phone)
"""As datatrove, then what is surest first: the digits of an account may look like a phone's."""
_PLACEHOLDERS = {
    Scrub.email: ("email@example.com", "firstname.lastname@example.org"),
    Scrub.ip: ("22.214.171.124", "126.96.36.199", "188.8.131.52", "184.108.40.206", "220.127.116.11", "18.104.22.168"),
    Scrub.secret: ("<secret>",),
    Scrub.iban: ("<iban>",),
    Scrub.card: ("<card>",),
    Scrub.phone: ("<phone>",),
}

_AT = re.compile("@")
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_LOCAL_REVERSED = re.compile(rf"{_ATOM}++(?:\.{_ATOM}++)*+")
_LOCAL_START = re.compile(rf"\b{_ATOM}")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
    rf"|\[(?:{_OCTET}\.){{3}}(?:{_OCTET}|[A-Za-z0-9-]*[A-Za-z0-9]:)]"
)
_MAYBE_IP = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]")
_IP = re.compile(rf"(?:{_OCTET}\.){{3}}{_OCTET}")

_IBAN_HEAD = re.compile(r"[A-Z](?<!\w[A-Z])[A-Z][0-9]{2}(?=[ -]?[A-Z0-9]{4})")
_IBAN_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 "
    "GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 "
    "MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
)
"""SWIFT's registry: country and characters."""
_IBAN_BODIES = {entry[:2]: re.compile(rf"(?:[ -]?[A-Z0-9]){{{int(entry[2:]) - 4}}}(?!\w)") for entry in _IBAN_LENGTHS.split()}

_CARD = re.compile(
    r"[0-9](?<![\w./-][0-9])(?:[0-9]{12,18}|(?<![0-9]{3} [0-9])[0-9]{3}([ -])(?:[0-9]{4}\1[0-9]{4}\1[0-9]{1,4}(?:\1[0-9]{3})?|[0-9]{6}\1[0-9]{4,5}))(?![-.]?\w)"
)
_ISSUER = re.compile(
    r"4[0-9]{12}(?:[0-9]{3}){0,2}|(?:5[0-8]|2[2-7]|35)[0-9]{14}|3[47][0-9]{13}|(?:3[689][0-9]|30[0-5])[0-9]{11}(?:[0-9]{2})?"
    r"|6(?:[02357][0-9]|4[4-9])[0-9]{13}(?:[0-9]{3})?"
)
"""Visa; Mastercard, Maestro, JCB; American Express; Diners; Discover, UnionPay, Maestro: first digits and how many there are."""

_GAP = r"[ .\u00a0\u2009\u202f\u2010\u2011\u2013/\-]"
_SPACE = _GAP.replace(".", "")
_RUN = re.compile(rf"[+(0-9]\+?(?:{_GAP}|[()0-9]){{7,}}+")
"""Where a phone may be: digits and what may stand between them."""
_PHONE = re.compile(
    rf"""(?:
      (?<![\w+=~])(?:
        (?:\(\+[17]\)|\+[17])(?:(?:{_GAP}|[()]){{0,3}}[0-9]){{10}}                # +1 (212) 555-0123
        | (?:\(\+[2-9][0-9]{{0,2}}\)|\+[2-9][0-9]{{0,2}})(?:
          {_GAP}{{0,2}}\([0-9]{{1,5}}\)(?:{_GAP}{{0,3}}[0-9]){{4,9}}              # +49 (0)30 1234567
          | (?:{_GAP}{{0,3}}[0-9]){{5,12}}                                       # +49 30 1234-567
        )
      )
      | (?<![\w.,+/\#=%&-])(?<![0-9]:)(?:
        (?:\(0[1-9][0-9]{{0,4}}\){_SPACE}{{0,3}}|(?:00[1-9][0-9]{{0,2}}|0[1-9][0-9]{{0,4}}){_SPACE}{{1,3}})  # (030) 1234567, 0049 30 1234567, 030/12 34 56-0
        [0-9]{{2,8}}(?:{_SPACE}{{1,3}}[0-9]{{2,8}}){{0,4}}(?:-[0-9])?
        | 0[1-9](?:\.[0-9]{{2}}){{4}}                                             # 01.23.45.67.89
        | \([2-9][0-9]{{2}}\)\ ?[0-9]{{3}}[\ .-][0-9]{{4}}                        # (212) 555-0123
        | (?:1[.-])?[2-9][0-9]{{2}}([.-])[0-9]{{3}}\1[0-9]{{4}}                   # 212-555-0123
      )
    )(?![-./:+]?\w)""",
    re.VERBOSE,
)
_DATE = re.compile(
    r"(?<![0-9])[0-9]{1,2}[./ -]{1,3}[0-9]{1,2}[./ -]{1,3}(?:1[89]|20)[0-9]{2}(?![0-9])|(?:1[89]|20)[0-9]{2}([./-])[01]?[0-9]\1[0-3]?[0-9](?![0-9])"
)
_NUMBER = re.compile(r"[0-9]+")
_ISSN = re.compile(r"[0-9]{4}-[0-9]{4}")
_ZIP = re.compile(r"[0-9]{5}-[0-9]{4}")

_TOKENS = tuple(
    (marks, re.compile(form))
    for marks, form in (
        (("AKIA", "ASIA"), r"(?<![A-Za-z0-9])A[KS]IA[A-Z2-7]{16}(?![A-Za-z0-9])"),
        (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9]{36,255}(?![A-Za-z0-9])"),
        (("github_pat_",), r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}(?![A-Za-z0-9])"),
        (("xox",), r"(?<![A-Za-z0-9-])xox[abeoprs]-(?=[A-Za-z-]{0,20}[0-9])[A-Za-z0-9-]{10,250}"),
        (("hooks.slack.com",), r"(?<=hooks\.slack\.com/services/)T[A-Z0-9]{6,12}/B[A-Z0-9]{6,12}/[A-Za-z0-9]{20,30}"),
        (("AIza",), r"(?<![A-Za-z0-9_-])AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
        (("eyJ",), r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{10,}+\.eyJ[A-Za-z0-9_-]{10,}+\.[A-Za-z0-9_-]{10,}+"),
    )
)
"""AWS, GitHub, Slack, Google, JSON web tokens: what the text must hold somewhere -> the form."""
_HEX = frozenset("0123456789abcdefABCDEF-")
_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----")
_KEY_LINES = re.compile(r"(?:(?:\s|\\[nr])*+[A-Za-z0-9+/=]{32,}+)*+")
_LONGEST_KEY = 20_000
_ASSIGNED = re.compile(r"[=:][=>]?[ \t]{0,4}[\"'`]?([A-Za-z0-9+/_~-]{20,}+={0,2}+)(?!\.?\w|[(\[])")
_NAME = re.compile(
    r"(?:api[ _.-]?key|secret|token|passw(?:or)?d|passphrase|(?:access|account|auth|client|encryption|private|signing)[ _.-]?key)"
    r"(?:[_-][a-z0-9]{1,12})?[\"'`\])]{0,2}\s{0,4}$",
    re.IGNORECASE,
)


def scrub(text: str, kinds: Sequence[Scrub]) -> tuple[str, dict[str, int]]:
    """(the text with placeholders, finds of each kind that was found). The order of `kinds` does not matter."""
    counts: dict[str, int] = {}
    for kind in _ORDER:
        if kind in kinds:
            text, found = _replace(text, _FINDERS[kind](text), _PLACEHOLDERS[kind])
            if found:
                counts[kind.value] = found
    return text, counts


def _replace(text: str, spans: Iterator[Span], placeholders: Sequence[str]) -> tuple[str, int]:
    """`spans` come by their starts; one that begins in another is part of it."""
    pieces, done, found, turn = list[str](), 0, 0, cycle(placeholders)
    for start, stop in spans:
        if start >= done:
            pieces += text[done:start], next(turn)
            done, found = stop, found + 1
    return ("".join([*pieces, text[done:]]) if found else text), found


def _emails(text: str) -> Iterator[Span]:
    """datatrove's matches, from each @ to both sides: its own expression begins anew at each word before one, and takes days for a megabyte of `a-a-a-`."""
    done = 0
    for sign in _AT.finditer(text):
        at = sign.start()
        local = _LOCAL_REVERSED.match(text[done:at][::-1])
        start = _LOCAL_START.search(text, at - local.end(), at) if local else None
        domain = _DOMAIN.match(text, at + 1) if start else None
        if start and domain:
            yield start.start(), domain.end()
        done = domain.end() if domain else at + 1


def _ips(text: str) -> Iterator[Span]:
    if _MAYBE_IP.search(text):
        yield from (match.span() for match in _IP.finditer(text) if _public(match[0]))


def _public(address: str) -> bool:
    try:
        return IPv4Address(address).is_global
    except ValueError:  # zeros in front
        return False


def _ibans(text: str) -> Iterator[Span]:
    for head in _IBAN_HEAD.finditer(text):
        body = _IBAN_BODIES[head[0][:2]].match(text, head.end()) if head[0][:2] in _IBAN_BODIES else None
        if body and int("".join(str(int(sign, 36)) for sign in body[0] + head[0] if sign.isalnum())) % 97 == 1:
            yield head.start(), body.end()


def _cards(text: str) -> Iterator[Span]:
    """A number of 13 digits with the check digit of a bar code (EAN) is one of those: a tenth of all would pass for cards."""
    for match in _CARD.finditer(text):
        number = re.sub("[ -]", "", match[0])
        digits = [int(digit) for digit in number]
        if _ISSUER.fullmatch(number) and _luhn(digits) and not (len(digits) == 13 and _bar_code(digits)):
            yield match.span()


def _luhn(digits: Sequence[int]) -> bool:
    """ISO/IEC 7812-1, annex B."""
    return (sum(digits[-1::-2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])) % 10 == 0


def _bar_code(digits: Sequence[int]) -> bool:
    return (sum(digits[-1::-2]) + 3 * sum(digits[-2::-2])) % 10 == 0


def _phones(text: str) -> Iterator[Span]:
    """In international form (E.164), or with separators: with a 0 in front as in most of Europe, or as in North America."""
    for run in _RUN.finditer(text):
        start, stop = run.span()
        yield from (match.span() for match in _PHONE.finditer(text, start, stop + 2) if _is_phone(match[0]))  # two: what must not follow


def _is_phone(number: str) -> bool:
    """8 to 15 digits, and neither a date, nor an American ZIP code, nor the number of a journal (ISSN), nor a row of two-digit numbers, unless there
    are five, as the French write theirs."""
    groups = _NUMBER.findall(number)
    digits = "".join(groups)
    if not 8 <= len(digits) <= 15 or _DATE.search(number) or _ZIP.fullmatch(number):
        return False
    if "+" not in number and all(len(group) == 2 for group in groups):
        return len(groups) == 5
    return not (_ISSN.fullmatch(number) and sum(int(digit) * weight for digit, weight in zip(digits, range(8, 0, -1), strict=True)) % 11 == 0)


def _secrets(text: str) -> Iterator[Span]:
    """Of two that begin together, the longer one."""
    found = [*_private_keys(text), *_assigned(text)]
    for marks, form in _TOKENS:
        if any(mark in text for mark in marks):
            found += (match.span() for match in form.finditer(text))
    yield from sorted(found, key=lambda span: (span[0], -span[1]))


def _private_keys(text: str) -> Iterator[Span]:
    """PEM and PGP blocks; of one without an end, the lines that only a key has."""
    begins = list(_KEY_BEGIN.finditer(text)) if "PRIVATE KEY" in text else []
    for begin, limit in zip(begins, [*(begin.start() for begin in begins[1:]), len(text)], strict=False):
        end = _KEY_END.search(text, begin.end(), min(limit, begin.end() + _LONGEST_KEY)) or _KEY_LINES.match(text, begin.end())
        if end and end.end() > begin.end():
            yield begin.start(), end.end()


def _assigned(text: str) -> Iterator[Span]:
    """The value of `api_key = "..."` and the like, when it looks drawn at random."""
    for match in _ASSIGNED.finditer(text):
        if _NAME.search(text[max(0, match.start() - 60) : match.start()]) and _random(match[1]):
            yield match.span(1)


def _random(value: str) -> bool:
    """Letters and digits, with almost as many bits in a character as its alphabet and length allow: names of things have about 3.5."""
    if not any(map(str.isdecimal, value)) or not any(map(str.isalpha, value)):
        return False
    bits = log2(len(value)) - sum(count * log2(count) for count in Counter(value).values()) / len(value)
    return bits >= (3.0 if _HEX.issuperset(value) else min(4.0, 0.85 * log2(len(value))))


_FINDERS: dict[Scrub, Callable[[str], Iterator[Span]]] = {
    Scrub.email: _emails,
    Scrub.ip: _ips,
    Scrub.secret: _secrets,
    Scrub.iban: _ibans,
    Scrub.card: _cards,
    Scrub.phone: _phones,
}
