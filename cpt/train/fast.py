"""The fast tier in a run: who is whose neighbor, saves to this node's disk and the next one's, and the way back from them. `cpt.checkpoint.fast` has the design."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist

from cpt.checkpoint import state, writer
from cpt.checkpoint.copies import Arriving, Copies
from cpt.checkpoint.fast import FastFolder, Part, node_folder
from cpt.checkpoint.reader import files
from cpt.checkpoint.records import Index, Receipt, merge
from cpt.checkpoint.store import rank_file, receipt_file
from cpt.checkpoint.verify import damage, share
from cpt.checkpoint.writer import Staged
from cpt.config.run import RunConfig
from cpt.core.artifacts import write_bytes
from cpt.core.errors import CptError, Problem, UserError
from cpt.core.paths import RunPaths
from cpt.core.world import World
from cpt.engine import Engine
from cpt.engine.parallel import agree_on
from cpt.train.journaling import Recorder
from cpt.train.saving import Flight, Saver, Tier, Writing


@dataclass(frozen=True)
class Ring:
    """Nodes in the order of their first ranks, each the neighbor of the one before it, the first of the last."""

    nodes: dict[str, list[int]]
    """Name -> its ranks."""
    rank: int
    names: list[str]
    """Node of each rank."""

    @classmethod
    def of(cls, world: World) -> Ring:
        """Collective. Raises `CptError` when nodes have different numbers of ranks."""
        names = gather(world.node_name)
        nodes: dict[str, list[int]] = {}
        for rank, name in enumerate(names):
            nodes.setdefault(name, []).append(rank)
        if len(set(map(len, nodes.values()))) > 1:
            raise CptError(f"the fast tier pairs ranks of neighboring nodes, which have {sorted(map(len, nodes.values()))} ranks")
        return cls(nodes, world.rank, names)

    @property
    def node(self) -> str:
        """Of this rank."""
        return self.names[self.rank]

    @property
    def mates(self) -> list[int]:
        """Ranks of this node."""
        return self.nodes[self.node]

    @property
    def leads(self) -> bool:
        """Whether this rank speaks for its node."""
        return self.mates[0] == self.rank

    def before(self, name: str) -> str:
        """The node whose files `name` has copies of; itself when it is alone."""
        order = list(self.nodes)
        return order[order.index(name) - 1]

    def at(self, distance: int) -> int:
        """The rank with this one's place on the node `distance` further on."""
        order = list(self.nodes)
        return self.nodes[order[(order.index(self.node) + distance) % len(order)]][self.mates.index(self.rank)]


class FastSaver(Saver):
    """Saves of the fast tier. Training goes on without one that a disk could not take, and says so."""

    tier = Tier.fast

    def __init__(self, engine: Engine, tier: FastTier, recorder: Recorder, asynchronous: bool) -> None:
        super().__init__(engine, tier.folder, recorder, asynchronous)
        self.fast, self.events = tier, recorder

    @property
    def _publishes(self) -> bool:
        return self.fast.ring.leads

    def _write(self, step: int, staged: Staged) -> None:
        """Own file first, for its receipt goes ahead of it. A rank that could not write has nothing to give, and says so to its neighbor."""
        folder, error, parcel = self.fast.folder.begin_path(step), None, [memoryview(bytearray())] * 3
        try:
            writer.write(self.fast.folder.begin(step), staged)
            receipt = (folder / receipt_file(staged.rank)).read_bytes()
            parcel = [memoryview(bytearray(receipt)), memoryview(bytearray(staged.header)), staged.data]
        except OSError as caught:
            error = caught
        if len(self.fast.ring.nodes) > 1:
            source = self.fast.ring.at(-1)
            arriving = Arriving(folder / rank_file(source))
            self.fast.copies.swap(self.fast.ring.at(1), parcel, source, arriving.take)
            if arriving.receipt and not error:
                write_bytes(folder / receipt_file(source), bytes(arriving.receipt))
                arriving.land(Receipt.load(folder / receipt_file(source)).file)
            arriving.drop()
        if error:
            raise error

    def _written(self, flight: Flight) -> Writing:
        try:
            return super()._written(flight)
        except OSError:
            return Writing.failed

    def _publish(self, flight: Flight) -> int:
        fast = self.fast
        return fast.folder.show(
            Part(
                step=flight.step,
                layout=self.engine.describe(),
                world_size=dist.get_world_size(),
                attempt=fast.attempt,
                amendments=fast.amendments,
                train=flight.train,
            )
        )

    def _drop(self, flight: Flight) -> None:
        """Said with the first reason; those of other ranks are mostly the same."""
        why = ""
        try:
            flight.write.result()
        except OSError as error:
            why = f"{self.fast.ring.node}: {error}"
        reasons = [reason for reason in gather(why) if reason]
        if self.fast.ring.leads:
            self.fast.folder.abandon(flight.step)
        self.events.fast_failed(flight.step, reasons[0], len(reasons))
        self.flight = None


@dataclass(frozen=True)
class Assembly:
    """A fast checkpoint that can be put together."""

    part: Part
    receipts: dict[int, Receipt]
    """By rank of the world that saved it."""
    holders: dict[str, list[str]]
    """File -> nodes that have it intact."""
    index: Index


@dataclass
class Search:
    """What was seen while looking for a fast checkpoint."""

    damaged: dict[str, str] = field(default_factory=dict)
    """`<node>/<step>/<file>` -> what is wrong with it."""
    passed: dict[str, str] = field(default_factory=dict)
    """Step -> why it is not resumed from."""


class FastTier:
    """This rank's view of all nodes' fast checkpoints of one run."""

    def __init__(self, ring: Ring, folder: FastFolder, attempt: int, amendments: int) -> None:
        """Collective."""
        self.ring, self.folder, self.attempt, self.amendments = ring, folder, attempt, amendments
        self.copies = Copies()

    def choose(self, newer_than: int, saved: Sequence[tuple[int, int]]) -> tuple[Assembly | None, Search]:
        """The newest that is whole and counts; `saved`: (attempt, step) of those in force, by the journal. Collective."""
        if self.ring.leads:
            self.folder.sweep()
        dist.barrier()
        offers, search, known = gather(self.folder.parts()), Search(), agree_on(set(saved))
        parts = {part.key: part for offer in reversed(offers) for part in offer.values() if part.step > newer_than}
        for key, part in sorted(parts.items(), reverse=True):
            if (part.attempt, part.step) not in known:
                search.passed[str(part.step)] = f"attempt {part.attempt} saved it; training went on from before it since"
            elif part.amendments != self.amendments:
                search.passed[str(part.step)] = "settings were amended since"
            else:
                held = offers[self.ring.rank].get(part.step)
                if found := self._assemble(part, held is not None and held.key == key, search):
                    return found, search
        return None, search

    def _assemble(self, part: Part, here: bool, search: Search) -> Assembly | None:
        """Every rank reads its share of its node's files. Damaged ones go: what is left can be trusted."""
        mine = self.folder.receipts(part.step) if here else {}
        known = {rank_file(rank): (rank, receipt) for rank, receipt in mine.items()}
        names = share(sorted(known), self.ring.mates.index(self.ring.rank), len(self.ring.mates))
        wrong = damage(self.folder.path(part.step), {name: known[name][1].file for name in names})
        receipts: dict[int, Receipt] = {}
        holders: dict[str, list[str]] = {}
        for node, good, bad in gather((self.ring.node, {known[name][0]: known[name][1] for name in names if name not in wrong}, wrong)):
            search.damaged |= {f"{node}/{part.step}/{name}": why for name, why in bad.items()}
            for rank, receipt in good.items():
                receipts[rank] = receipt
                holders.setdefault(rank_file(rank), []).append(node)
        for name in wrong:  # not before all have looked at what there is
            (self.folder.path(part.step) / name).unlink(missing_ok=True)
            (self.folder.path(part.step) / receipt_file(known[name][0])).unlink()
        if absent := sorted(set(range(part.world_size)) - set(receipts)):
            search.passed[str(part.step)] = f"files of ranks {absent} are on no node"
            return None
        ordered = dict(sorted(receipts.items()))
        try:
            return Assembly(part, ordered, holders, merge(ordered.values()))
        except CptError as error:
            search.passed[str(part.step)] = str(error)
            return None

    def fetch(self, found: Assembly, engine: Engine) -> dict[str, str]:
        """Bring to each node what its ranks read, and what it is to hold for the node before it; file and node -> where it came from. Collective.

        Raises `UserError` when a disk cannot take it."""
        mine = state.collect(engine.chunks, engine.optimizer, self.ring.rank)
        reads = gather({name for chunk in mine for name in files(found.index, chunk)})
        step, expected = found.part.step, {rank_file(rank): receipt.file for rank, receipt in found.receipts.items()}
        self.folder.path(step).mkdir(parents=True, exist_ok=True)
        said: dict[str, str] = {}
        why = ""
        for name, node, source, sender, receiver in self._transfers(found.holders, reads):
            said[f"{name} on {node}"] = source
            try:
                if self.ring.rank == sender:
                    self.copies.send(receiver, self.folder.path(step) / name)
                elif self.ring.rank == receiver:
                    self.copies.receive(sender, self.folder.path(step) / name, expected[name])
            except OSError as error:  # the others wait for their files
                why = f"{self.ring.node}: {error}"
        if reasons := [reason for reason in gather(why) if reason]:
            raise UserError(_no_room(self.folder.path(step), reasons[0]))
        if self.ring.leads:
            self.folder.complete(found.part, found.receipts)
            self.folder.forget({step})
        dist.barrier()
        return said

    def _transfers(self, holders: Mapping[str, Sequence[str]], reads: Sequence[set[str]]) -> Iterator[tuple[str, str, str, int, int]]:
        """(file, node that gets it, node that has it, sending rank, receiving rank), in the same order on all ranks, so that none waits in a circle."""
        nodes = self.ring.nodes
        wanted = {node: set().union(*(reads[rank] for rank in ranks)) for node, ranks in nodes.items()}
        for node in nodes:
            for number, name in enumerate(sorted(wanted[node] | wanted[self.ring.before(node)])):
                if node not in holders[name]:
                    source = holders[name][number % len(holders[name])]
                    place = number % len(nodes[node])
                    yield name, node, source, nodes[source][place], nodes[node][place]

    def clear(self) -> None:
        """No fast checkpoint counts any more."""
        if self.ring.leads:
            self.folder.forget(set())

    def close(self) -> None:
        """The run has ended in good order: its full checkpoints are all it needs."""
        if self.ring.leads:
            self.folder.close()


def fast_tier(run: RunPaths, config: RunConfig, world: World, attempt: int, amendments: int) -> FastTier | None:
    """None where none is configured. Collective. Raises `UserError` when the folder is not a node's own."""
    if not config.checkpoint.fast_folder:
        return None
    ring = Ring.of(world)
    return FastTier(ring, FastFolder(node_folder(config.checkpoint.fast_folder, run, ring.node)), attempt, amendments)


def _no_room(folder: Path, why: str) -> Problem:
    fix = "make room there; or go on from the newest full checkpoint: cpt resume RUN checkpoint.fast_folder='' checkpoint.fast_interval=0"
    return Problem(where="checkpoint.fast_folder", what=why, why=f"files of neighbors could not be brought to {folder}", fix=fix)


def gather(value: Any) -> list[Any]:
    """Of all ranks. Collective."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found
