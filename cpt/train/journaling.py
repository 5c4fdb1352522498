"""Rank 0 tells the journal and the log what happened; every other rank is silent. The loop does not ask who it is."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import torch

from cpt.config.anomaly import AnomalyAction
from cpt.config.history import History
from cpt.core import units
from cpt.core.artifacts import write_json, write_text
from cpt.core.attempts import StopRecord
from cpt.core.paths import RunPaths
from cpt.core.records import ParityRecord
from cpt.core.world import World
from cpt.data import Ledger, batch_crc32
from cpt.data.position import next_sample
from cpt.engine import StepResult
from cpt.engine.layers import LayerNorms
from cpt.tracking.journal import ANOMALY, ROLLBACK, Journal
from cpt.train.anomaly import Anomaly
from cpt.train.feed import GlobalBatch
from cpt.train.saving import Flight, Tier
from cpt.train.speed import Speedometer
from cpt.train.state import TrainState

_WORST = 8
"""Sequences of an anomaly that are named."""

Say = Callable[[str], None]
"""Where lines for people go."""


class Recorder:
    """All that a run says about itself, in one place."""

    def __init__(self, run: RunPaths, attempt: int, world: World, sources: Sequence[str], speed: Speedometer, say: Say) -> None:
        self.run, self.attempt, self.world, self.sources, self.speed, self.say = run, attempt, world, sources, speed, say
        self.journal = Journal(run, attempt) if world.rank == 0 else None
        self.why = ""
        """Of an anomaly that ends the run."""

    def begin(self, resume_step: int, layout: str, attention: str, fusions: str) -> None:
        """First event of an attempt: readers take later steps of earlier attempts as superseded."""
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        self._event(
            "attempt_begin",
            resume_step=resume_step,
            world_size=self.world.world_size,
            layout=layout,
            host=self.world.node_name,
            attention=attention,
            fusions=fusions,
            device=device,
        )
        self._say(f"{layout} on {device}, attention by {attention}, {fusions}")

    def scheduled(self, schedule: str, now: float, following: float) -> None:
        """The learning rate in force; of the next update, and of the one after it."""
        self._event("schedule", schedule=schedule, learning_rate=[now, following])

    def parity(self, record: ParityRecord) -> None:
        """The step-0 gate was passed."""
        if self.journal:
            record.save(self.run.parity)
        self._event("parity", logit_difference=record.logit_difference, engine_loss=record.engine_loss, base_loss=record.base_loss)

    def resumed(self, state: TrainState, checkpoint: str, generators: str, fetched: Mapping[str, str] | None) -> None:
        """All state came from a checkpoint; `generators` says how random numbers go on.

        `fetched`: file and node -> the node that sent it, of a fast one; None for a full one.
        """
        tier = {"tier": "full"} if fetched is None else {"tier": "fast", "fetched": dict(fetched)}
        following = next_sample(state.consumed_samples, state.skipped)
        self._event("resume", step=state.step, checkpoint=checkpoint, next_sample=following, generators=generators, **tier)

    def set_aside(self, folder: str, files: Mapping[str, str]) -> None:
        """A damaged checkpoint was renamed to `folder`; `files` says what is wrong with which."""
        self._event("checkpoint_damaged", folder=folder, files=dict(files))

    def amended(self, history: History, step: int) -> None:
        """Settings that take hold with update `step`."""
        for amendment in history.starting(step):
            changed = {change.key: [change.old, change.new] for change in amendment.changes}
            self._event("amended", step=step, sample=amendment.sample, changes=changed, learning_rate=[amendment.learning_rate, history.rate(step)])

    def stepped(self, state: TrainState, batch: GlobalBatch, result: StepResult, rate: float, ledger: Ledger) -> None:
        """After an update. `data/batch_crc32` lets anyone prove that a resumed run read what the straight one read."""
        speed = self.speed.values(batch.sources.size * (batch.tokens.shape[1] - 1))
        values = {
            "train/loss": result.loss,
            "train/grad_norm": result.grad_norm,
            "train/lr": rate,
            "data/batch_crc32": batch_crc32(batch.checksums),
            **speed,
        }
        for index in np.unique(batch.sources):
            values[f"train/loss/{self.sources[index]}"] = float(result.sequence_losses[batch.sources == index].mean(dtype=np.float64))
        values |= ledger.metrics()
        values |= routing(result.expert_tokens) if result.expert_tokens is not None else {}
        self.metrics(state, ledger.total, values)
        self._say(f"step {state.step}  loss {result.loss:.4f}  grad norm {result.grad_norm:.3f}  lr {rate:.2e}  {self.speed.shown(speed)}")

    def anomaly(self, found: Anomaly, state: TrainState, batch: GlobalBatch, result: StepResult, documents: Callable[[int], tuple[str, list[int]]]) -> None:
        """An update that stands out, with the sequences that did most for it; `documents`: sample -> its source, and what it reads of it."""
        if not self.journal:
            return
        what = f"update {state.step + 1}: {found.why}"
        self.why = what if found.action is AnomalyAction.stop else ""
        order = np.argsort(-np.nan_to_num(result.sequence_losses, nan=np.inf), kind="stable")[:_WORST]
        worst = []
        for sample, loss in ((batch.samples[int(row)], result.sequence_losses[row]) for row in order):
            source, read = documents(sample)
            worst.append({"sample": sample, "loss": _plain(loss), "source": source, "documents": read})
        fields = {"loss": _plain(result.loss), "grad_norm": _plain(result.grad_norm), "mean": found.mean, "limit": found.limit, "worst": worst}
        samples = [batch.samples.start, batch.samples.stop]
        self.journal.event(ANOMALY, kind=found.kind, action=found.action, why=found.why, step=state.step + 1, samples=samples, **fields)
        self.journal.sync()
        self._say(f"{found.kind}, {found.action}: {what}; samples {batch.samples.start} to {batch.samples.stop - 1}")

    def watched(self, step: int, norms: Sequence[LayerNorms]) -> None:
        """What update `step` did to each part of the model: a line each in a file, the whole in the journal."""
        if self.journal:
            lines = [json.dumps(asdict(each) | {"update_ratio": each.update_ratio}) for each in norms]
            write_text(self.run.layer_stats(step), "\n".join(lines) + "\n")
            whole = {name: math.hypot(*(getattr(each, name) for each in norms)) for name in ("grad_norm", "weight_norm", "update_norm")}
            self._event("layer_stats", step=step, file=str(self.run.layer_stats(step).relative_to(self.run.root)), **whole)

    def rolled_back(self, state: TrainState, checkpoint: str, window: Sequence[int], generators: str) -> None:
        """Training goes on from `checkpoint`, without the samples of `window` [start, stop)."""
        self._event(ROLLBACK, step=state.step, checkpoint=checkpoint, skipped=list(window), rollbacks=state.rollbacks, generators=generators)

    def metrics(self, state: TrainState, tokens: int, values: Mapping[str, float]) -> None:
        """One row of the journal."""
        if self.journal:
            self.journal.metrics(state.step, state.consumed_samples, tokens, values)

    def evaluated(self, state: TrainState, tokens: int, values: Mapping[str, float]) -> None:
        """After a held-out evaluation."""
        self.metrics(state, tokens, values)
        shown = "  ".join(f"{name.rsplit('/', 1)[1]} {values[name]:.4f}" for name in ("heldout/loss/domain", "heldout/loss/general") if name in values)
        self._say(f"step {state.step}  held-out loss: {shown}")

    def staged(self, tier: Tier, step: int, seconds: float) -> None:
        """Training waited `seconds` while its state was copied; it goes on."""
        if self.journal:
            self.journal.event(f"{tier}_staged", step=step, seconds=seconds)

    def saved(self, tier: Tier, flight: Flight, size: int, seconds: float) -> None:
        """A checkpoint of `size` bytes (a fast one: on this node) is complete after `seconds`. The journal, too, now survives power loss."""
        if self.journal:
            rate, step = size / max(seconds - flight.staging, 1e-9), flight.step
            fields = {"seconds": seconds, "staging": flight.staging, "waited": flight.waited, "bytes": size, "bytes_per_second": rate}
            self.journal.event(f"{tier}_saved", step=step, **fields)
            self.journal.sync()
            if tier is Tier.fast:
                self.fast_step(step)
            what = "checkpoint" if tier is Tier.full else "fast checkpoint, on this node"
            blocked = units.duration(flight.staging + flight.waited)
            self._say(f"step {step}  {what} {units.size(size)} in {units.duration(seconds)}, {units.size(rate)}/s; training waited {blocked}")

    def fast_failed(self, step: int, why: str, ranks: int) -> None:
        """A fast save was dropped; training goes on."""
        self._event("fast_failed", step=step, ranks=ranks, why=why)

    def fast_step(self, step: int | None) -> None:
        """Which fast checkpoint counts, for those who cannot see the nodes' disks; None for none."""
        if self.journal and step is None:
            self.run.fast.unlink(missing_ok=True)
        elif self.journal:
            write_json(self.run.fast, {"step": step})

    def searched(self, damaged: Mapping[str, str], passed: Mapping[str, str]) -> None:
        """What was wrong with fast checkpoints newer than the one that training goes on from."""
        if damaged or passed:
            self._event("fast_passed", steps=dict(passed), damaged=dict(damaged))

    def stopped(self, reason: str, state: TrainState) -> None:
        """The attempt ends by its own will."""
        self._event("stop", reason=reason, step=state.step)
        if self.journal:
            self.journal.close()
            StopRecord(reason=reason, step=state.step, attempt=self.attempt, why=self.why).save(self.run.stopped)

    def _event(self, name: str, **fields: object) -> None:
        if self.journal:
            self.journal.event(name, **fields)
            self._say(f"{name}: " + "  ".join(f"{key} {value}" for key, value in fields.items()))

    def _say(self, line: str) -> None:
        if self.journal:
            self.say(f"{time.strftime('%H:%M:%S')}  {line}")


def _plain(value: float) -> float | str:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else str(float(value))


def routing(tokens: npt.NDArray[np.int64]) -> dict[str, float]:
    """Metrics of [layers, experts]: tokens of the fullest expert over the mean, 1 at best and experts / topk when routing has collapsed."""
    imbalance = tokens.max(axis=1) / tokens.mean(axis=1)
    return {"moe/imbalance": float(imbalance.max()), "moe/imbalance_mean": float(imbalance.mean()), "moe/idle_experts": int((tokens == 0).sum())}
