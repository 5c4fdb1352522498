"""Saving: training waits only while its state is copied to host memory; a thread writes, hashes and syncs it.

No rank waits for another. Whether all have written is one more number in the all-reduce with which ranks agree each step
anyway; then rank 0 publishes, again in a thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch.distributed as dist

from cpt.checkpoint import CheckpointStore, state, writer
from cpt.checkpoint.records import CompleteRecord
from cpt.core.heartbeat import Phase
from cpt.engine import Engine
from cpt.train.state import TrainState


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

    def staged(self, step: int, seconds: float) -> None:
        """Training waited `seconds` while its state was copied; it goes on."""

    def saved(self, record: CompleteRecord, seconds: float, staging: float, waited: float) -> None:
        """On rank 0: complete after `seconds`, of which training waited `staging` + `waited`."""


class Saver:
    """What the loop calls: `save` when a checkpoint is due, `poll` each step, `finish` when it ends. All ranks call the same."""

    def __init__(self, engine: Engine, store: CheckpointStore, recorder: Listener, asynchronous: bool) -> None:
        self.engine, self.store, self.recorder, self.asynchronous = engine, store, recorder, asynchronous
        self.staging = writer.Staging()
        self.flight: Flight | None = None

    @property
    def writing(self) -> bool:
        """Whether this rank still writes. Raises what stopped it from writing: a save that failed is never published."""
        if self.flight is None or self.flight.write.running:
            return self.flight is not None
        self.flight.write.result()
        return False

    def save(self, train: TrainState, at: Callable[[Phase, int], None]) -> None:
        """A checkpoint of this step, unless there is one. One that is still under way is waited for."""
        if train.step == train.saved_step:
            return
        at(Phase.save, train.step)
        self.finish()
        train.saved_step = train.step
        begun, rank = time.monotonic(), dist.get_rank()
        staged = self.staging.stage(state.collect(self.engine.chunks, self.engine.optimizer, rank), rank, state.optimizer_step(self.engine.optimizer))
        staging = time.monotonic() - begun
        self.flight = Flight(train.step, train.state_dict(), begun, staging, Task(lambda: writer.write(self.store.begin(train.step), staged)))
        self.recorder.staged(train.step, staging)
        if not self.asynchronous:
            self.finish()

    def poll(self, writing: bool) -> None:
        """Once a step; `writing`: whether any rank still writes."""
        flight = self.flight
        if flight is None or writing:
            return
        if dist.get_rank() != 0:
            self.flight = None
        elif flight.publish is None:
            flight.publish = Task(lambda: self._publish(flight))
        elif not flight.publish.running:
            self._landed(flight)

    def finish(self) -> None:
        """Return when nothing is under way on any rank. Collective."""
        begun, flight = time.monotonic(), self.flight
        if flight:
            flight.write.result()
        dist.barrier()
        if flight and dist.get_rank() == 0:
            flight.publish = flight.publish or Task(lambda: self._publish(flight))
            flight.publish.result()
            flight.waited = time.monotonic() - begun
            self._landed(flight)
        self.flight = None
        dist.barrier()

    def _publish(self, flight: Flight) -> tuple[CompleteRecord, float]:
        record = self.store.publish(flight.step, self.engine.describe(), flight.train, range(dist.get_world_size()))
        return record, time.monotonic() - flight.begun

    def _landed(self, flight: Flight) -> None:
        assert flight.publish
        record, seconds = flight.publish.result()
        self.recorder.saved(record, seconds, flight.staging, flight.waited)
        self.flight = None
