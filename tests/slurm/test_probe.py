"""Whether a node lives, asked of real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from slurm import probe
from slurm.probe import answering


@pytest.fixture
def listening() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as daemon:
        yield daemon.getsockname()


@pytest.fixture
def deaf() -> Iterator[tuple[str, int]]:
    """A port that nobody listens on, and nobody else can take."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        yield nobody.getsockname()


def test_who_takes_a_connection_lives(listening: tuple[str, int], deaf: tuple[str, int]) -> None:
    daemons = {"node1": listening, "node2": deaf, "node3": ("no.such.host.invalid", 1)}
    assert answering(daemons, ["node1", "node2", "node3"]) == {"node1"}
    assert answering(daemons, ["node2"]) == set() and answering(daemons, []) == set()


def test_an_unknown_address_gets_the_benefit_of_the_doubt(deaf: tuple[str, int]) -> None:
    assert answering({"node2": deaf}, ["node1", "node2"]) == {"node1"}


def test_a_node_that_swallows_everything_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def swallow(address: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(timeout)
        raise TimeoutError

    monkeypatch.setattr(probe.socket, "create_connection", swallow)
    assert answering({"node1": ("10.0.0.1", 6818)}, ["node1"]) == set()
    assert asked == [2.0]
