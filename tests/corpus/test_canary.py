from __future__ import annotations

import numpy as np
import pytest

from cpt.config.data import DedupConfig
from cpt.core.errors import UserError
from cpt.corpus.canary import check_canary
from cpt.corpus.signatures import Keys, Signatures


def test_the_canary_is_found_with_the_defaults() -> None:
    check_canary(DedupConfig())


def test_settings_that_find_nothing_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        check_canary(DedupConfig(bands=1, rows=200))
    assert caught.value.problems[0].where == "corpus.dedup"


@pytest.mark.parametrize("broken", ["all different", "all equal"])
def test_a_library_that_finds_nothing_or_everything_is_refused(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def bands(self: Signatures, signatures: Keys) -> Keys:
        numbers = np.arange(signatures.size, dtype=np.uint64).reshape(signatures.shape)[:, :14]
        return numbers if broken == "all different" else np.zeros_like(numbers)

    monkeypatch.setattr(Signatures, "bands", bands)
    with pytest.raises(UserError, match="miss a planted near-duplicate"):
        check_canary(DedupConfig())
