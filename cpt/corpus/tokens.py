"""The base's tokenizer over documents: ids of the text, then one end-of-document id. No other special token is ever produced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from tokenizers import Tokenizer

from cpt.config.run import RunConfig
from cpt.core.artifacts import sha256_file
from cpt.core.errors import MissingInput, Problem, UserError
from cpt.data.indexed import Tokens, token_dtype
from cpt.data.manifest import tokenizer_path

_BATCH = 512


class DocumentTokenizer:
    """`tokenizer.json` of the base folder."""

    def __init__(self, tokenizer: Tokenizer, end_of_document: int, sha256: str) -> None:
        self._tokenizer = tokenizer
        # A document that spells a special token out must not end itself: such text is tokenized like any other.
        self._tokenizer.encode_special_tokens = True
        self.end_of_document = end_of_document
        self.sha256 = sha256
        self.vocab_size: int = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
        """The largest id and one; some tokenizers leave out ids, so that their number is less."""
        self.dtype = token_dtype(self.vocab_size)

    def encode(self, texts: Sequence[str]) -> Iterator[Tokens]:
        """Ids of each text with the end-of-document id at its end."""
        for start in range(0, len(texts), _BATCH):
            for encoding in self._tokenizer.encode_batch_fast(list(texts[start : start + _BATCH]), add_special_tokens=False):
                yield np.array([*encoding.ids, self.end_of_document], dtype=np.int64)


def open_tokenizer(config: RunConfig) -> DocumentTokenizer:
    """Raises `MissingInput` without a base folder, `UserError` when the tokenizer does not fit the model section."""
    path, model = tokenizer_path(config), config.model
    if not path.is_file():
        raise MissingInput(path=path, why="text is tokenized with the base's own tokenizer", fix=f"cpt base model={model.name}")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise UserError(Problem(where=str(path), what=f"is no tokenizer: {error}", why="the file is damaged", fix=f"cpt base model={model.name}")) from None
    end = tokenizer.token_to_id(model.end_of_document)
    if end is None:
        what = f"is {model.end_of_document!r}"
        raise UserError(
            Problem(where="model.end_of_document", what=what, why=f"is not in the vocabulary of {path}", fix="name a token of the base's tokenizer")
        )
    found = DocumentTokenizer(tokenizer, end, sha256_file(path))
    if found.vocab_size > model.vocab_size:  # fewer are well: Qwen's and DeepSeek's embeddings have rows that no token uses
        why, fix = f"{path} has ids up to {found.vocab_size - 1}", "model.vocab_size as in the base's config.json"
        raise UserError(Problem(where="model.vocab_size", what=f"is {model.vocab_size}", why=why, fix=fix))
    return found
