"""Listings and reviews as text."""

from __future__ import annotations

from typing import Any

import pytest

from cpt.config.data import FieldNames, SourceConfig
from cpt.corpus.documents import Document
from cpt.corpus.formats import Bad, Record
from cpt.corpus.serialize import Serializer

TEMPLATE = "{title}\nBrand: {attributes.brand}\n{attributes}\nPrice: {price} {currency}\n\n{description}"
LISTING = {
    "item": 17,
    "title": " Kettle ",
    "attributes": {"brand": "Nord", "colors": ["red", "blue"], "lid": None},
    "price": 19.0,
    "currency": "EUR",
    "description": "Boils {water}.",
}


def made(template: str, fields: dict[str, Any], **names: str) -> Document | Bad:
    return Serializer(SourceConfig(template=template, fields=FieldNames(**names))).document(Record("f.jsonl:3", fields))


def test_a_listing() -> None:
    text = "Kettle\nBrand: Nord\nbrand: Nord; colors: red, blue\nPrice: 19 EUR\n\nBoils {water}."
    assert made(TEMPLATE, LISTING, id="item", family="attributes.brand") == Document("17", text, "Nord", "Kettle")


def test_a_line_whose_fields_are_all_missing_is_left_out() -> None:
    assert made(TEMPLATE, {"title": "Kettle", "price": 0, "attributes": {}}) == Document("f.jsonl:3", "Kettle\nPrice: 0", title="Kettle")


def test_a_template_from_the_command_line_has_its_line_breaks_spelled_out() -> None:
    assert made(TEMPLATE.replace("\n", "\\n"), LISTING) == made(TEMPLATE, LISTING)


@pytest.mark.parametrize(
    ("template", "fields", "what"),
    [
        ("", {"body": "x"}, 'has no string "text"'),
        ("", {"text": 3}, 'has no string "text"'),
        ("Price: {price}", {"price": None}, "has none of the fields that the template names"),
        ("", {"text": "half \ud83d of it"}, "holds half of a character"),
    ],
)
def test_what_makes_no_text(template: str, fields: dict[str, Any], what: str) -> None:
    found = made(template, fields)
    assert isinstance(found, Bad) and found.where == "f.jsonl:3" and found.what.startswith(what)


def test_plain_text_is_taken_as_it_is() -> None:
    assert made("", {"text": " a\n", "id": 3, "topic": "t"}) == Document("3", " a\n", topic="t")
