from __future__ import annotations

import pytest

from cpt.core.nodes import fold


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        ([], ""),
        (["node4"], "node4"),
        (["node3", "node1", "node2", "node5"], "node[1-3,5]"),
        (["node9", "node10", "node11"], "node[9-11]"),
        (["gpu-a-08", "gpu-a-09", "gpu-a-10"], "gpu-a-[08-10]"),
        (["login", "rack2n1", "rack2n2", "rack3n1"], "login,rack2n[1-2],rack3n1"),
        (["node1", "node1"], "node1"),
    ],
)
def test_fold(names: list[str], folded: str) -> None:
    assert fold(names) == folded
