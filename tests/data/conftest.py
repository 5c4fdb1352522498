"""The prepared sample corpus."""

from tests.corpora import prepared, root, tokenizer_file, tokens_of

__all__ = ["prepared", "root", "tokenizer_file", "tokens_of"]
