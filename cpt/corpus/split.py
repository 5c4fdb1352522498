"""The held-out split: made after dedup, by family, so that no relative of a held-out document is trained on."""

from __future__ import annotations

from collections import defaultdict

from cpt.config.data import CorpusConfig
from cpt.corpus.documents import Document, draw


def split_heldout(documents: list[Document], corpus: CorpusConfig) -> tuple[list[Document], list[Document]]:
    """(train, held-out). Whole families move to held-out in a seeded order until the wanted number of documents is there.

    At least one family goes to each side when there are two; held-out documents keep the drawn order, so that a prefix
    of them is a fair sample. The draw depends on the family's name alone: new documents do not move old ones much.
    """
    families: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        families[document.family or document.id].append(document)
    order = sorted(families, key=lambda family: draw(corpus.seed, "heldout", family))
    wanted = min(max(1, round(corpus.heldout_fraction * len(documents))), corpus.heldout_max_documents)
    heldout: list[Document] = []
    chosen: set[str] = set()
    for family in order[:-1]:
        if len(heldout) >= wanted:
            break
        chosen.add(family)
        heldout.extend(families[family])
    return [document for document in documents if (document.family or document.id) not in chosen], heldout
