"""Make tokenizer.json: a byte-level BPE of 2048 tokens trained on the samples beside this file. Run by hand; the result is committed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import ByteLevelBPETokenizer

HERE = Path(__file__).parent


def texts() -> Iterator[str]:
    """Every sample's text, in a fixed order."""
    for path in sorted(HERE.glob("*.jsonl")):
        yield from (json.loads(line)["text"] for line in path.read_text().splitlines())


def main() -> None:
    """Write tokenizer.json beside this file."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts(), vocab_size=2048, special_tokens=["<|endoftext|>"])
    tokenizer.save(str(HERE / "tokenizer.json"))


if __name__ == "__main__":
    main()
