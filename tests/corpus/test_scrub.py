"""Mails and addresses go as datatrove's formatter takes them; other kinds by their check digits or forms; what only looks like them stays."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cpt.config.filters import Scrub
from cpt.corpus.scrub import scrub
from tests.corpora import ASSETS

ALL = tuple(Scrub)
HOSTILE = [
    "1",
    "1 ",
    "0",
    "01 ",
    "1.",
    "1.1",
    "8.8.8.8",
    "4111 ",
    "4-",
    "a",
    "a.",
    "a-",
    "a-a@",
    "a@",
    "a@a.",
    "a.a@[1.",
    "@",
    ".",
    "-",
    "-----",
    "+",
    "+1",
    "(0",
]
HOSTILE += ["( ", "+49 30 ", "=", "= ", "=a", "key=", "secret=", "secret ", "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "eyJ", "eyJaaaaaaaaaa.", "AIza"]
HOSTILE += ["AKIA", "ghp_", "xoxb-1", "DE89", "DE 89", "A", "AA00 "]
FAIR = st.text(st.sampled_from("aZ09.@-_+é :[]!\n"), max_size=60)
MAILS = st.lists(
    st.sampled_from(["a", "b.c", "..", ".", "@", "x@y.zz", "-", "é", "+", " ", "@[8.8.8.8]", "@[1.2.3.a-b:]", "1", "ß@", "a@b", "\n", "!", "com"]), max_size=14
)
ADDRESSES = st.lists(
    st.sampled_from(["8", "10", "192.168", "256", "127", "01", ".", ".", ".", "..", " ", "@", "-", "a", "8.8.8.8", "1.2.3.4.5.6.7.8", "٣"]), max_size=14
)


def theirs(text: str) -> str:
    """datatrove's formatter, new for each text: its placeholders take turns from one to the next."""
    from datatrove.pipeline.formatters import PIIFormatter

    return PIIFormatter().format(text)


@settings(max_examples=500)
@given(FAIR | MAILS.map("".join) | ADDRESSES.map("".join) | st.text(max_size=40))
@example("é+a@b.c")  # a word ends before the +
@example("a@b.c@d.e a@b-.c a@b..c .a@b.c a.@b.c")
@example("a@b.c, d@e.f, g@h.i: 8.8.8.8 8.8.4.4 10.0.0.1 08.8.8.8 1.1.1.1.1.1.1.1")
def test_mails_and_addresses_are_datatroves(text: str) -> None:
    assert scrub(text, [Scrub.ip, Scrub.email])[0] == theirs(text)


def test_finds_are_counted_and_equal_texts_stay_equal() -> None:
    """datatrove would give the second text other placeholders."""
    text = "write to a@b.org, c@d.org or e@f.org from 8.8.8.8, 10.0.0.1 or 8.8.4.4"
    expected = "write to email@example.com, firstname.lastname@example.org or email@example.com from 22.214.171.124, 10.0.0.1 or 126.96.36.199"
    assert scrub(text, ALL) == scrub(text, ALL) == (expected, {"email": 3, "ip": 2})
    assert scrub(text, [Scrub.email])[1] == {"email": 3}
    assert scrub(text, []) == (text, {})


def found(kind: Scrub, texts: Sequence[str]) -> list[str]:
    """What is left of each text when its find, which must be the only one and of this kind, is taken out."""
    left = []
    for text in texts:
        clean, counts = scrub(text, ALL)
        assert counts == {kind.value: 1}, text
        left.append(clean.replace(f"<{kind.value}>", "|"))
    return left


def test_phones() -> None:
    numbers = [
        "+49 30 1234567",
        "+49 (0)30 1234-567",
        "+493012345678",
        "(+49) 171 / 1234567",
        "+33 1 23 45 67 89",
        "+1 212 555 0123",
        "+1 (212) 555-0123",
        "+44\u00a020 7946 0958",
    ]
    numbers += ["0049 30 1234567", "030 1234567", "(030) 1234567", "030/1234567-0", "089 12 34 56 78", "0171-1234567", "01 23 45 67 89", "01.23.45.67.89"]
    numbers += ["(212) 555-0123", "212-555-0123", "212.555.0123", "1-800-555-0199"]
    assert found(Scrub.phone, [f"Tel.: {number}, 10:30 bis 12 Uhr" for number in numbers]) == ["Tel.: |, 10:30 bis 12 Uhr"] * len(numbers)
    assert found(Scrub.phone, ["030 1234567 01.02.2023", "tel:+4930123456.", "(030 123456) 12 34", "(+49 30 1234567) 12"]) == [
        "| 01.02.2023",
        "tel:|.",
        "(|) 12 34",
        "(|) 12",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3.4-5, 2:10.4.22-0ubuntu1, 0.12.3456.7890 and 2023.04.05.1234",
        "01.02.2023 12:30, 2023-01-02, 01-02-2023, 01/02/2023, 1 2 2023 and 2023-01-02T03:04:05+0200, 05.06.2021-07.06.2021",
        "ISBN 978-3-16-148410-0, 0-306-40615-2, 0 306 40615 2; ISSN 0317-8471",
        "550e8400-e29b-41d4-a716-446655440000 and 12345678-1234-1234-1234-012345678901",
        "d41d8cd98f00b204e9800998ecf8427e 0123456789012345678901234567890123456789 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "open 08-12 14-18, 09 - 12 / 14 - 18; 12 345 678 pieces, 1,234,567.89, +10 000 000, 3 + 4 = 7, a+32345678, x=+32345678",
        "part 0123-456789-AB of lot 000123 456 789, Boston, MA 02110-1301, 200 300 4000, 100-200-300, ratio 16:09 2023, 2:030 1234567, 1:10~+20191229111838+6991d5728f1-1",
        "/dev/disk/0123-45678901 https://example.com/p/0301-2345678?id=0171-1234567",
    ],
)
def test_what_looks_like_a_phone_stays(text: str) -> None:
    assert scrub(text, [Scrub.phone, Scrub.card, Scrub.iban, Scrub.secret]) == (text, {})


def test_cards_by_their_check_digit() -> None:
    cards = [
        "4111111111111111",
        "4111 1111 1111 1111",
        "5500-0000-0000-0004",
        "378282246310005",
        "3782 822463 10005",
        "30569309025904",
        "6011000990139424",
        "3530111333300000",
    ]
    assert found(Scrub.card, [f"paid with {card}." for card in cards]) == ["paid with |."] * len(cards)
    others = {"4111111111111112": "wrong digit", "4111 1111-1111 1111": "mixed", "4006381333931": "bar code", "356938035643809": "IMEI"}
    others |= {"1234567812345670": "no issuer", "x4111111111111111": "in a word", "41111111111111110000": "too long", "0.4111111111111111": "fraction"}
    others |= {"a/4111111111111111": "in a path", "648 4111 1111 1111 1111": "in a row of numbers", "636297114013180168": "of no card's length"}
    assert {other: scrub(other, ALL)[1] for other in others} == {other: {} for other in others}


def test_a_bar_code_stays_even_when_its_digits_would_pass_for_a_card() -> None:
    def digit(body: str, weight: int) -> int:
        values = [int(sign) * (weight if place % 2 else 1) for place, sign in enumerate(body)]
        return -sum(value // 10 + value % 10 if weight == 2 else value for value in values) % 10

    both = [f"{body}{digit(body, 3)}" for body in map(str, range(400000000000, 400000000200)) if digit(body, 3) == digit(body, 2)]
    assert both
    assert scrub(" ".join(both), ALL)[1] == {}


def test_ibans_by_their_check_digits_and_the_length_of_their_country() -> None:
    ibans = ["DE89370400440532013000", "DE89 3704 0044 0532 0130 00", "GB29 NWBK 6016 1331 9268 19", "FR14 2004 1010 0505 0001 3M02 606", "BE68 5390 0754 7034"]
    assert found(Scrub.iban, [f"to {iban} NAME" for iban in ibans]) == ["to | NAME"] * len(ibans)
    assert scrub("DE89 3704 0044 0532 0130 00 DE89370400440532013000", ALL) == ("<iban> <iban>", {"iban": 2})
    others = ["DE88370400440532013000", "XX89370400440532013000", "DE8937040044053201300", "DE893704004405320130001", "XDE89370400440532013000"]
    assert [scrub(other, ALL)[1] for other in others] == [{}] * len(others)


PEM = "-----BEGIN {0}PRIVATE KEY-----\n" + ("Ab3/+9xY" * 8 + "\n") * 3
RANDOM = "q7Zk2LmX9vTb4RwY8sHd1GfN"


def test_secrets_of_known_forms() -> None:
    jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
    forms = ["AKIAIOSFODNN7EXAMPLE", "ghp_" + RANDOM * 2, "github_pat_" + RANDOM[:22] + "_" + (RANDOM * 3)[:59], "xoxb-123456789012-123456789012-" + RANDOM]
    forms += [
        "AIza" + (RANDOM * 2)[:35],
        jwt,
        PEM.format("RSA ") + "-----END RSA PRIVATE KEY-----",
        PEM.format("")[:-1],
        PEM.format("")[:-1].replace("\n", "\\n"),
    ]
    assert found(Scrub.secret, [f"it is {form} here" for form in forms]) == ["it is | here"] * len(forms)
    two = f"{PEM.format('')}\nprose that must stay\n{PEM.format('EC ')}-----END EC PRIVATE KEY-----"
    assert scrub(two, ALL) == ("<secret>\n\nprose that must stay\n<secret>", {"secret": 2})


def test_secrets_by_the_name_that_they_are_given() -> None:
    names = [
        'api_key = "{}"',
        "API-KEY: {}",
        "'client_secret': '{}',",
        "export AWS_SECRET_ACCESS_KEY={}",
        'token := "{}"',
        "password => '{}'",
        '{{"apiKey":"{}"}}',
        "auth_token='{}'",
    ]
    assert found(Scrub.secret, [name.format(RANDOM) for name in names]) == [name.format("|") for name in names]
    assert found(Scrub.secret, [f"api_key = eyJ{RANDOM}.eyJ{RANDOM}.{RANDOM}", "secret: 0a1b2c3d4e5f60718293a4b5c6d7e8f9."]) == ["api_key = |", "secret: |."]
    google = f"AIza{RANDOM}{RANDOM}"[:39]
    assert found(Scrub.secret, [f"token = {google}", f"token = {google}/Ab9="]) == ["token = |", "token = |"], "by its name and by its form, once"


@pytest.mark.parametrize(
    "text",
    [
        f"sha256: {RANDOM}{RANDOM}",
        'api_key = "your-own-api-key-goes-here-please-1"',
        'token = "aaaaaaaaaaaaaaaaaaaaaaaaaaaa1"',
        "secret = load_secret_from_the_environment_of_the_process()",
        "password: 12345678901234567890",
        "embed_tokens = T5Gemma2TextScaledWordEmbedding(a); token = T5Gemma2TextScaledWordEmbedding(a); tokenizer=openai-community/gpt2",
        "TimeStampToken = rfc3161a.TimeStampToken3Of2The9Kind",
        "the token is in https://example.com/documentation/tokens",
        "a file begins with -----BEGIN PRIVATE KEY----- and then",
        "AKIAIOSFODNN7EXAMPLEX ghp_short xoxb-without-any-number-in-it AIzaShort eyJub.eyJub.x",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert scrub(text, ALL) == (text, {})


@pytest.mark.parametrize("source", ["listings", "novels", "german", "french", "dictionary"])
def test_nothing_is_found_in_texts_that_hold_nothing(source: str) -> None:
    for line in (ASSETS / f"{source}.jsonl").read_text().splitlines():
        text = json.loads(line)["text"]
        assert scrub(text, ALL) == (text, {})


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_long_run_of_anything_ends(unit: str) -> None:
    """At once, where a search that begins anew at each place takes hours."""
    run = unit * (100_000 // len(unit))
    for text in (run + "@", f"{run}@{run}", f"-----BEGIN PRIVATE KEY----- token = {run}"):
        left, counted = scrub(text, ALL)
        assert (left != text) == bool(counted)
