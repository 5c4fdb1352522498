"""Bus bandwidth of all-reduce and all-gather in groups of ranks, round by round: rank 0 asks, the groups of a round measure at the same moment.

Questions and answers go through the store, never through a collective: a group that hangs keeps nobody from answering, and who gives no answer in time
is named. A group whose collective fails, for all its members answer, has a bandwidth of 0.

The best of all repeats and sizes counts: whatever else runs on a machine only ever slows, a fault is there each time. The group is as fast as its slowest rank.
Bus bandwidth (nccl-tests, PERFORMANCE.md): bytes / seconds x 2 (n - 1) / n for all-reduce, x (n - 1) / n for all-gather, so that it does not depend on n.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist

from cpt.core.errors import CptError
from cpt.core.world import World

type Group = tuple[str, ...]
"""Nodes; one alone is measured between its own ranks."""

_GRACE = 5.0
"""Seconds between a group's own time-out and the moment at which a rank has not answered."""

_FAREWELL = 3.0
"""Seconds that rank 0, who keeps the store, waits for the others to leave."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How a group is measured: buffers of `size` bytes and of a quarter, each up to `repeats` times after a first one."""

    size: int
    repeats: int
    seconds: float
    """For all ranks to join, and for a group to be made and measured; one call may take `call_seconds`."""

    @property
    def call_seconds(self) -> float:
        """Half of the time for the four first calls; a quarter each is left to wait for other groups, and to repeat."""
        return self.seconds / 8


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """What one group reached, in bytes a second; `failed` is its first rank's error."""

    all_reduce: float = 0.0
    all_gather: float = 0.0
    failed: str = ""


class Silent(CptError):
    """Ranks gave no answer. `nodes` are theirs."""

    def __init__(self, nodes: Sequence[str], what: str, seconds: float) -> None:
        super().__init__(f"{', '.join(nodes)}: no answer in {seconds:.0f} s, {what}")
        self.nodes = tuple(nodes)


@dataclass(frozen=True)
class _Answer:
    """Of one rank: seconds of each call, in the same order on every rank."""

    reduced: list[list[float]] = field(default_factory=list)
    """By size, then repeat."""
    gathered: list[list[float]] = field(default_factory=list)
    failed: str = ""


class Crew:
    """All ranks of a step. Rank 0 calls `lead`, all others `follow`; nodes in the order of their ranks."""

    def __init__(self, world: World, nodes: Sequence[str], ranks_per_node: int, trial: Trial) -> None:
        self.world, self.trial, self.rounds, self.asked = world, trial, list[dict[Group, Speeds]](), 0
        self.cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", world.local_rank) if self.cuda else torch.device("cpu")
        self.patience = trial.seconds + _GRACE
        self.store = dist.TCPStore(  # type: ignore[attr-defined]
            world.master_addr, world.master_port, world.world_size, world.rank == 0, timedelta(seconds=3 * self.patience), wait_for_workers=False
        )
        self.store.set(f"here/{world.rank}", world.node_name)
        self.places = self._gather(nodes, ranks_per_node)
        self._join()

    def lead[T](self, search: Generator[list[Group], Sequence[float], T]) -> T:
        """Answer `search` with all-reduce's bandwidths until it returns. Raises `Silent`; `rounds` holds what was measured until then."""
        try:
            groups = next(search)
            while True:
                self.rounds.append(dict(zip(groups, self._round(groups), strict=True)))
                groups = search.send([speeds.all_reduce for speeds in self.rounds[-1].values()])
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            self._ask(None)
            self._await([f"bye/{rank}" for rank in range(1, self.world.world_size)], _FAREWELL)

    def follow(self) -> None:
        """Measure what rank 0 asks for, until it has no more questions."""
        number = 0
        while (asked := json.loads(self.store.get(f"ask/{number}"))) is not None:
            self._take_part(number, asked)
            number += 1
        self.store.set(f"bye/{self.world.rank}", "")

    def _gather(self, nodes: Sequence[str], ranks_per_node: int) -> list[str]:
        """The node of each rank. Who never came is known by what its node lacks."""
        if self.world.rank == 0:
            keys = [f"here/{rank}" for rank in range(self.world.world_size)]
            found = self._await(keys, self.patience)
            here = [name for name in found.values() if name]
            if missing := [node for node in nodes if here.count(node) < ranks_per_node]:
                raise Silent(missing, "not all of its ranks came", self.patience)
            self.store.set("places", json.dumps(list(found.values())))
        return list(json.loads(self.store.get("places")))

    def _join(self) -> None:
        if self.cuda:
            os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")  # a group that hangs raises in its ranks instead of ending them
            torch.cuda.set_device(self.world.local_rank)
        store = dist.PrefixStore("world", self.store)  # type: ignore[attr-defined]
        limit = timedelta(seconds=self.trial.call_seconds)
        dist.init_process_group("nccl" if self.cuda else "gloo", store=store, rank=self.world.rank, world_size=self.world.world_size, timeout=limit)

    def _round(self, groups: Sequence[Group]) -> list[Speeds]:
        asked = [self._ranks(group) for group in groups]
        number = self._ask(asked)
        self._take_part(number, asked)
        members = [rank for ranks in asked for rank in ranks]
        said = self._await([f"answer/{number}/{rank}" for rank in members], self.patience)
        answers = {rank: _Answer(**json.loads(text)) for rank, text in zip(members, said.values(), strict=True) if text}
        if missing := dict.fromkeys(self.places[rank] for rank in members if rank not in answers):
            raise Silent(list(missing), "though the others of the round gave one", self.patience)
        return [_speeds([answers[rank] for rank in ranks], self._sizes(len(ranks))) for ranks in asked]

    def _ask(self, question: list[list[int]] | None) -> int:
        """The number of the question; None lets everybody go."""
        self.store.set(f"ask/{self.asked}", json.dumps(question))
        self.asked += 1
        return self.asked - 1

    def _ranks(self, group: Group) -> list[int]:
        """Each GPU has an adapter of its own, so all take part; of CPUs one rank a node fills the wire. In the order of `group`."""
        ranks = {node: [rank for rank, place in enumerate(self.places) if place == node] for node in group}
        return [rank for node in group for rank in (ranks[node] if self.cuda or len(group) == 1 else ranks[node][:1])]

    def _take_part(self, number: int, asked: Sequence[Sequence[int]]) -> None:
        """All ranks make all groups in the same order, which is what torch asks for; only members measure, and answer."""
        mine, failed, made = None, "", []
        for ranks in asked:
            try:
                made.append(dist.new_group(list(ranks), timeout=timedelta(seconds=self.trial.call_seconds), sort_ranks=False))
                mine = made[-1] if self.world.rank in ranks else mine
            except (RuntimeError, ValueError) as error:
                failed = _said(error)
        if any(self.world.rank in ranks for ranks in asked):
            ranks = next(ranks for ranks in asked if self.world.rank in ranks)
            answer = self._measured(number, mine, ranks, sum(map(len, asked))) if mine and not failed else _Answer(failed=failed)
            self.store.set(f"answer/{number}/{self.world.rank}", json.dumps(asdict(answer)))
        for group in made:
            if group is not dist.GroupMember.NON_GROUP_MEMBER:
                with suppress(RuntimeError):
                    dist.destroy_process_group(group)

    def _measured(self, number: int, group: dist.ProcessGroup, ranks: Sequence[int], all_members: int) -> _Answer:
        try:
            calls = [call for size in self._sizes(len(ranks)) for call in self._calls(size, len(ranks), group)]
            first = [self._timed(call) for call in calls]
            self._start_together(number, all_members)
            repeats = self._repeats(sum(first), group)
            times = [[once, *(self._timed(call) for _ in range(repeats))] for once, call in zip(first, calls, strict=True)]
            return _Answer(times[::2], times[1::2])
        except RuntimeError as error:
            return _Answer(failed=_said(error))

    def _repeats(self, seconds: float, group: dist.ProcessGroup) -> int:
        """As many as there is time for on the slowest rank, the same on all; none of a group so slow that its first calls say enough."""
        longest = torch.tensor([seconds], device=self.device)
        dist.all_reduce(longest, op=dist.ReduceOp.MAX, group=group)
        return min(self.trial.repeats, int(self.trial.seconds / 4 / float(longest)))

    def _sizes(self, ranks: int) -> list[int]:
        """Bytes of the two buffers, such that every rank has an equal part."""
        part = 4 * ranks
        return [max(part, size // part * part) for size in (self.trial.size // 4, self.trial.size)]

    def _calls(self, size: int, ranks: int, group: dist.ProcessGroup) -> list[Callable[[], object]]:
        whole = torch.zeros(size // 4, device=self.device)
        part = torch.zeros(size // 4 // ranks, device=self.device)
        return [lambda: dist.all_reduce(whole, group=group), lambda: dist.all_gather_into_tensor(whole, part, group=group)]

    def _timed(self, call: Callable[[], object]) -> float:
        started = time.perf_counter()
        call()
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def _start_together(self, number: int, members: int) -> None:
        """When the last is ready. Who is not ready in time has a problem of its own, and is not waited for."""
        if self.store.add(f"ready/{number}", 1) == members:
            self.store.set(f"go/{number}", "")
        self._await([f"go/{number}"], self.trial.seconds / 4)

    def _await(self, keys: Sequence[str], seconds: float) -> Mapping[str, str]:
        """Key -> its value; empty of one that does not come."""
        with suppress(dist.DistStoreError):
            self.store.wait(list(keys), timedelta(seconds=seconds))
        return {key: self.store.get(key).decode() if self.store.check([key]) else "" for key in keys}


def _speeds(answers: Sequence[_Answer], sizes: Sequence[int]) -> Speeds:
    """Of one group, by all its ranks' answers."""
    if failed := next((answer.failed for answer in answers if answer.failed), ""):
        return Speeds(failed=failed)
    ranks = len(answers)
    share = (ranks - 1) / ranks
    reduced = [size / _slowest([answer.reduced[i] for answer in answers]) for i, size in enumerate(sizes)]
    gathered = [size / _slowest([answer.gathered[i] for answer in answers]) for i, size in enumerate(sizes)]
    return Speeds(all_reduce=2 * share * max(reduced), all_gather=share * max(gathered))


def _slowest(times: Sequence[Sequence[float]]) -> float:
    """Seconds of the best repeat, each as long as its slowest rank took."""
    return float(min(max(repeat) for repeat in zip(*times, strict=True)))


def _said(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
