"""Saving: training waits only while its state is copied to host memory; a thread writes, hashes and syncs it.

No rank waits for another. Whether all have written is one more number in the all-reduce with which ranks agree each step
anyway; then rank 0 publishes, again in a thread. `cpt.train.fast` has the tier on the nodes' own disks, which goes the same way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Protocol

import torch
import torch.distributed as dist

from cpt.checkpoint import CheckpointStore, state, writer
from cpt.checkpoint.writer import Staged
from cpt.core.heartbeat import Phase
from cpt.engine import Engine
from cpt.train.state import TrainState


class Tier(StrEnum):
    """Where a save goes; events of the journal begin with it."""

    full = "checkpoint"  # the shared disk
    fast = "fast"  # the nodes' own disks


class Writing(IntEnum):
    """How far a rank is with its files; the greatest of all ranks counts."""

    none = 0
    failed = 1  # and is dropped: only the fast tier goes on without
    running = 2


class Task:
    """One call in a thread that does not outlive the process."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """False once there is a result or an error."""
        return self._thread.is_alive()

    def wait(self) -> None:
        """Until it is over, however it ends."""
        self._thread.join()

    def result(self) -> Any:
        """Wait for it. Raises what the call raised."""
        self._thread.join()
        if self._error:
            raise self._error
        return self._value

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:  # raised again by whoever asks for the result
            self._error = error


@dataclass
class Flight:
    """A save under way."""

    step: int
    train: dict[str, Any]
    begun: float
    staging: float
    """Seconds that training waited for the copy."""
    write: Task
    publish: Task | None = None
    """On rank 0, once all ranks have written."""
    waited: float = 0.0
    """Seconds that training waited for the disk."""


class Listener(Protocol):
    """Told of every save."""

    def staged(self, tier: Tier, step: int, seconds: float) -> None:
        """Training waited `seconds` while its state was copied; it goes on."""

    def saved(self, tier: Tier, flight: Flight, size: int, seconds: float) -> None:
        """On rank 0: complete, in bytes, after `seconds`, of which training waited the flight's `staging` + `waited`."""


class Saver:
    """What the loop calls: `save` when a checkpoint is due, `poll` each step, `finish` when it ends. All ranks call the same."""

    tier = Tier.full

    def __init__(self, engine: Engine, store: CheckpointStore, recorder: Listener, asynchronous: bool) -> None:
        self.engine, self.store, self.recorder, self.asynchronous = engine, store, recorder, asynchronous
        self.staging = writer.Staging()
        self.flight: Flight | None = None

    @property
    def writing(self) -> Writing:
        """How far this rank is. Raises what stopped it from writing: a save that failed is never published."""
        if self.flight is None or self.flight.write.running:
            return Writing.none if self.flight is None else Writing.running
        return self._written(self.flight)

    def save(self, train: TrainState, at: Callable[[Phase, int], None]) -> None:
        """A checkpoint of this step, unless there is a full one. One that is still under way is waited for."""
        if train.step == train.saved_step:
            return
        at(Phase.save, train.step)
        self.finish()
        if self.tier is Tier.full:
            train.saved_step = train.step
        begun, rank = time.monotonic(), dist.get_rank()
        staged = self.staging.stage(state.collect(self.engine.chunks, self.engine.optimizer, rank), rank, state.optimizer_step(self.engine.optimizer))
        staging = time.monotonic() - begun
        self.flight = Flight(train.step, train.state_dict(), begun, staging, Task(lambda: self._write(train.step, staged)))
        self.recorder.staged(self.tier, train.step, staging)
        if not self.asynchronous:
            self.finish()

    def poll(self, writing: Writing) -> None:
        """Once a step; `writing`: of the rank that is least far."""
        flight = self.flight
        if flight is None or writing is Writing.running:
            return
        if writing is Writing.failed:
            self._drop(flight)
        elif not self._publishes:
            self.flight = None
        elif flight.publish is None:
            flight.publish = Task(lambda: self._timed_publish(flight))
        elif not flight.publish.running:
            self._landed(flight)

    def finish(self) -> None:
        """Return when nothing is under way on any rank. Collective."""
        begun, flight = time.monotonic(), self.flight
        if flight:
            flight.write.wait()
        if agree_on_writing([self.writing])[0] is Writing.failed and flight:
            self._drop(flight)
        elif flight and self._publishes:
            flight.publish = flight.publish or Task(lambda: self._timed_publish(flight))
            flight.publish.result()
            flight.waited = time.monotonic() - begun
            self._landed(flight)
        self.flight = None
        dist.barrier()

    @property
    def _publishes(self) -> bool:
        return bool(dist.get_rank() == 0)

    def _write(self, step: int, staged: Staged) -> None:
        """In a thread, on every rank."""
        writer.write(self.store.begin(step), staged)

    def _written(self, flight: Flight) -> Writing:
        """Once the thread has ended."""
        flight.write.result()
        return Writing.none

    def _publish(self, flight: Flight) -> int:
        """In a thread, on ranks that publish; bytes."""
        return self.store.publish(flight.step, self.engine.describe(), flight.train, range(dist.get_world_size())).bytes

    def _drop(self, flight: Flight) -> None:
        """On all ranks, after a failure that `_written` reported."""
        raise NotImplementedError

    def _timed_publish(self, flight: Flight) -> tuple[int, float]:
        return self._publish(flight), time.monotonic() - flight.begun

    def _landed(self, flight: Flight) -> None:
        assert flight.publish
        size, seconds = flight.publish.result()
        if dist.get_rank() == 0:
            self.recorder.saved(self.tier, flight, size, seconds)
        self.flight = None


def agree_on_writing(mine: Sequence[Writing]) -> list[Writing]:
    """The greatest of all ranks, for each saver. Collective."""
    flags = torch.tensor(list(mine), device=torch.cuda.current_device())
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return list(map(Writing, flags.tolist()))


class Savers:
    """Both tiers, as the loop sees them."""

    def __init__(self, full: Saver, fast: Saver | None) -> None:
        self.full, self.fast = full, fast
        self._all = [saver for saver in (full, fast) if saver]

    @property
    def writing(self) -> list[Writing]:
        """How far this rank is, by tier."""
        return [saver.writing for saver in self._all]

    def poll(self, writing: Sequence[Writing]) -> None:
        """Once a step; by tier, of the rank that is least far."""
        for saver, agreed in zip(self._all, writing, strict=True):
            saver.poll(agreed)

    def finish(self) -> None:
        """Return when nothing is under way on any rank. Collective."""
        for saver in self._all:
            saver.finish()
