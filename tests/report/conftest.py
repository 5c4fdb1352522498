"""A run directory as the stages leave it, written through their own classes: a sweep, a run that lost a node at step 23, an evaluation, an export."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from cpt.config.compose import compose_config
from cpt.config.fingerprint import fingerprint
from cpt.config.run import RunConfig
from cpt.config.seal import to_yaml
from cpt.core.artifacts import write_json, write_text
from cpt.core.attempts import Action, AttemptBegin, AttemptEnd, DrillRecord, Ending, StopRecord
from cpt.core.manifest import DataManifest, ShardRecord, SourceRecord, SplitRecord, StageRecord
from cpt.core.paths import RunPaths
from cpt.core.records import (
    BenchmarkScore,
    EvaluationRecord,
    ExportRecord,
    MixturePlan,
    ParityRecord,
    PlanRecord,
    RunRecord,
    SourceLoss,
    SourceShare,
    SweepRecord,
    SweepTable,
    TrialRow,
)
from cpt.report.write import write_report
from cpt.tracking.journal import Journal, read_metrics

START = 1_700_000_000.0
BASE = {"listings": 3.92, "novels": 3.41, "dictionary": 3.78, "man_de": 2.35, "man_fr": 2.11}
AFTER = {"listings": 3.05, "novels": 3.44, "dictionary": 3.69, "man_de": 2.31, "man_fr": 2.12}
WEIGHT = {"listings": 0.5, "novels": 0.17, "dictionary": 0.28, "man_de": 0.028, "man_fr": 0.022}
GROUP = {name: "domain" if name == "listings" else "general" for name in BASE}


def heldout_at(step: int, steps: int = 40) -> dict[str, float]:
    """Held-out values as training journals them."""
    done = 1 - math.exp(-3.5 * step / steps)
    losses = {name: BASE[name] + (AFTER[name] - BASE[name]) * done / (1 - math.exp(-3.5)) for name in BASE}
    general = [losses[name] for name in BASE if GROUP[name] == "general"]
    values = {f"heldout/loss/{name}": loss for name, loss in losses.items()} | {f"heldout/bits_per_byte/{name}": loss * 0.34 for name, loss in losses.items()}
    return values | {"heldout/loss/domain": losses["listings"], "heldout/loss/general": sum(general) / len(general)}


class Training:
    """Plays training on a clock: twelve seconds a step, twenty a save."""

    def __init__(self, run: RunPaths, now: float) -> None:
        self.run, self.now = run, now
        self.random = random.Random(3)

    def attempt(self, number: int, first: int, last: int, node: str, killed: bool) -> None:
        nodes = ["node1", node]
        path = "requeue" if number else "submit"
        AttemptBegin(number=number, job="17", restarts=number, nodes=nodes, step=first, time=self.now, path=path).save(self.run.attempt(number).begin)
        self.now += 41
        with Journal(self.run, number, clock=lambda: self.now) as journal:
            journal.event("attempt_begin", resume_step=first, world_size=6, layout="TP3 x PP2 x DP1", host="node1", attention="torch SDPA", device="cpu")
            if first:
                journal.event("resume", step=first, checkpoint=f"step_{first:08d}", next_sample=first * 4)
            else:
                journal.event("parity", logit_difference=2.4e-6, engine_loss=3.1, base_loss=3.1)
                journal.metrics(0, 0, 0, heldout_at(0))
            for step in range(first + 1, last + 1):
                self.step(journal, step)
            if not killed:
                journal.event("stop", reason="done", step=last)
        if killed:
            self.lost_at = self.now
            self.now += 95
        self.end(number, last, killed)

    def step(self, journal: Journal, step: int) -> None:
        noise = self.random.gauss
        seconds = 12 + noise(0, 0.8)
        self.now += seconds
        weighted = sum(WEIGHT[name] * loss for name, loss in BASE.items()) - 0.5 * (1 - math.exp(-step / 12))
        values = {"train/loss": weighted + noise(0, 0.06), "train/grad_norm": 1.6 + 1.5 / step + noise(0, 0.1), "train/lr": 3e-4 * self.rate(step)}
        values |= {"train/step_seconds": seconds, "train/tokens_per_second": 1024 / seconds}
        for name in BASE:
            if self.random.random() < 4 * WEIGHT[name]:
                values[f"train/loss/{name}"] = heldout_at(step)[f"heldout/loss/{name}"] + noise(0, 0.15)
            values[f"data/tokens/{name}"] = round(WEIGHT[name] * step * 1024)
        journal.metrics(step, step * 4, step * 1024, values)
        if step % 10 == 0:
            self.now += 30
            journal.metrics(step, step * 4, step * 1024, heldout_at(step))
        if step % 5 == 0:
            self.now += 6
            journal.event(
                "checkpoint_saved",
                step=step,
                seconds=(seconds := 5.6 + noise(0, 0.3)),
                staging=0.4,
                waited=seconds - 0.4,
                bytes=1_883_000_000,
                bytes_per_second=1_883_000_000 / (seconds - 0.4),
            )
            journal.sync()

    def end(self, number: int, last: int, killed: bool) -> None:
        kind, action, code = (Ending.node_lost, Action.requeue, -1) if killed else (Ending.done, Action.done, 0)
        message = "lost node2" if killed else f"finished at step {last}"
        time = self.now - 75 if killed else self.now
        AttemptEnd(number=number, ending=kind, action=action, code=code, message=message, step=20 if killed else last, time=time).save(
            self.run.attempt(number).end
        )

    @staticmethod
    def rate(step: int) -> float:
        return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 40))


def mixture_plan() -> MixturePlan:
    shares = [
        SourceShare(
            name=n,
            group=GROUP[n],
            language={"man_de": "de", "man_fr": "fr"}.get(n, "en"),
            weight=w,
            planned_tokens=round(w * 40960),
            available_tokens=900_000,
            epoch_tokens=round(w * 40960) * 20,
            epoch_cap=4.0,
            sha256="ab" * 32,
        )
        for n, w in WEIGHT.items()
    ]
    return MixturePlan(train_tokens=40960, shares=shares, data_hash="5f" * 32)


def manifest(config: RunConfig) -> DataManifest:
    def split(name: str, kind: str, documents: int, tokens: int) -> SplitRecord:
        return SplitRecord(shards=[ShardRecord(prefix=f"{name}/{kind}", documents=documents, bytes=tokens * 4, tokens=tokens, sha256="ab" * 32)])

    drops = {
        "listings": {"too short": 812, "near duplicate": 5310, "exact duplicate": 96},
        "novels": {"bullet lines": 4},
        "man_de": {"stop words": 31, "near duplicate": 18},
    }
    sources = []
    for name, source in config.corpus.sources.items():
        dropped, train, heldout = drops.get(name, {}), 61_000, 2_000
        total = train + heldout + sum(dropped.values())
        sources.append(
            SourceRecord(
                name=name, group=source.group.value, language=source.language, license=source.license, origin=f"{name} 1.0 <Debian bookworm>", documents_read=total,
                bytes_read=total * 800, dropped=dropped, scrubbed={}, train=split(name, "train", train, 9_100_000), heldout=split(name, "heldout", heldout, 310_000),
            )
        )  # fmt: skip
    return DataManifest(
        corpus="demo", corpus_fingerprint="c0ffee", key="c0ffee", tokenizer_sha256="cd" * 32, vocab_size=49152, end_of_document_id=0, dtype="uint16", sources=sources,
        benchmarks={"quiz": 300, "section": 500}, contamination=[], classifiers=[], stages=[StageRecord(name="select", units=4, seconds=48.0, bytes=9, sha256="")], versions={"rensa": "0.5.0"},
    )  # fmt: skip


def evaluation(label: str) -> EvaluationRecord:
    values = BASE if label == "before" else AFTER
    losses = [SourceLoss(name=n, group=GROUP[n], loss=v, bits_per_byte=v * 0.34, tokens=2048, text_sha256="") for n, v in values.items()]
    hits = {"quiz": {"before": 47, "after": 45}, "section": {"before": 38, "after": 55}}
    scores = []
    for name, count in ((name, hit[label]) for name, hit in hits.items()):
        order = list(range(100))
        random.Random(name).shuffle(order)
        chosen = set(order[:count]) if label == "before" else set(order[4 : count + 4])
        correct = {f"{index:016x}": index in chosen for index in range(100)}
        group = "general" if name == "quiz" else "domain"
        scores.append(BenchmarkScore(name=name, group=group, accuracy=count / 100, standard_error=0.05, items=100, chance=0.25, correct=correct))
    step, weights = (0, "/runs/base/smollm2_135m") if label == "before" else (40, "/runs/demo/checkpoints/step_00000040")
    return EvaluationRecord(label=label, step=step, weights=weights, losses=losses, benchmarks=scores, seconds=83.0)


def plan_record() -> PlanRecord:
    memory = {
        "weights": 56_000_000,
        "gradients": 112_000_000,
        "optimizer": 336_000_000,
        "activations": 90_000_000,
        "logits": 33_000_000,
        "buffers": 0,
        "total": 627_000_000,
    }
    layout = {"tensor": 3, "context": 1, "pipeline": 2, "virtual": 1, "expert": 1, "data": 1, "world": 6, "nodes": 2, "micro_batches": 2}
    return PlanRecord(
        layout=layout, steps=40, train_tokens=40960, tokens_per_step=1024, parameters=134_515_008, stages=[memory], flops_per_token=8.3e8, whole_flops_per_token=8.6e8,
        step={"products": 8.0, "bubble": 1.0}, step_seconds=9.0, mfu=0.079, tokens_per_second=113.8, cost={"steps": 0.6, "saves": 0.0, "failures": 0.0, "spares": 0.0, "production": 0.0},
        hours=0.1, gpu_hours=0.6, price=0.0, megawatt_hours=0.0, checkpoints=8, checkpoint_bytes=1_880_000_000, save_seconds=3.8, blocking_seconds=0.2, disk_bytes=3_760_000_000,
        mttf_hours=0.0, restarts=0.0, ettr=0.99, mixture=mixture_plan(), valid_nodes=[1, 2, 4],
    )  # fmt: skip


def write_sweep(config: RunConfig) -> None:
    sweep = config.runs.sweep("demo")
    losses = {(0.03, 0.5): (3.61, 2.915), (0.03, 0.8): (3.49, 2.93), (0.3, 0.5): (3.31, 2.94), (0.3, 0.8): (3.12, 3.02)}
    rows = [
        TrialRow(
            index=i, fingerprint="", overrides=[f"optimizer.lr_ratio={lr}", f"mixture={mix}"], settings={"optimizer.lr_ratio": lr, "mixture.domain_share": mix}, state="done",
            domain_loss=domain, general_loss=general, rises={"novels": general - 2.9, "man_de": general - 2.95},
        )
        for i, ((lr, mix), (domain, general)) in enumerate(losses.items())
    ]  # fmt: skip
    SweepTable(
        name="demo", rows=rows, base_domain_loss=3.92, base_general_loss=2.9125, forgetting_limit=0.05, chosen=2,
        reason="lowest domain loss of 3 trial(s) in which no general source rose more than 0.05 (here novels +0.0400)",
    ).save(sweep.table)  # fmt: skip
    command = ["cpt", "train", "-m", "hydra/launcher=slurm", "experiment=lr_sweep", "optimizer.lr_ratio=0.03,0.3", "mixture=balanced,domain_heavy"]
    SweepRecord(name="demo", job="16", command=command, trials=[row.overrides for row in rows]).save(sweep.sweep)


@pytest.fixture
def bare_run(tmp_path: Path) -> RunPaths:
    """Nothing but a sealed config: submitted, not begun."""
    config = compose_config(["experiment=demo", f"run_root={tmp_path}", "cluster=local", "slurm.nodes=1", "slurm.spare_nodes=0", "slurm.tasks_per_node=6"])
    run = config.runs.run(config.name, fingerprint(config))
    write_text(run.config, to_yaml(config))
    return run


@pytest.fixture(scope="session")
def full_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of an untouched full run, drawn once."""
    return write_report(write_full_run(tmp_path_factory.mktemp("full"))).read_text()


@pytest.fixture
def full_run(tmp_path: Path) -> RunPaths:
    return write_full_run(tmp_path)


def write_full_run(root: Path) -> RunPaths:
    """Everything that a whole job leaves; node2 lost its power at step 23, three steps after the last checkpoint."""
    config = compose_config(["experiment=demo", f"run_root={root}", "optimizer.lr_ratio=0.3"])
    run = config.runs.run(config.name, fingerprint(config))
    write_text(run.config, to_yaml(config))
    write_sweep(config)
    manifest(config).save(config.runs.data("demo").manifest)
    RunRecord(
        name="demo", fingerprint=fingerprint(config), created="2023-11-14T22:13:00", command=["cpt", "launch", "experiment=demo", "chosen=demo"],
        versions={"cpt": "0.1.0", "python": "3.12.3", "torch": "2.13.0", "megatron-core": "0.19.2"}, mixture=mixture_plan(),
    ).save(run.run)  # fmt: skip
    plan_record().save(run.plan)
    ParityRecord(logit_difference=2.4e-6, tolerance=1e-5, tokens=512, engine_loss=3.1021, base_loss=3.1021, layout="TP3 x PP2 x DP1").save(run.parity)
    training = Training(run, START)
    training.attempt(0, 0, 23, "node2", killed=True)
    training.attempt(1, 20, 40, "node3", killed=False)
    again = min(row.ts_ms for row in read_metrics(run) if row.attempt == 1) / 1000
    at = training.lost_at + 3
    DrillRecord(what="node2 lost power", time=at, attempt=0, step=23, seconds_to_next_step=again - at).save(run.drill)
    StopRecord(reason="done", step=40, attempt=1).save(run.stopped)
    for label in ("before", "after"):
        evaluation(label).save(run.evaluation(label))
    sample = "Package: a small <b>tool</b> for listing files\n and a library"
    files = {"model.safetensors": "ef" * 32, "tokenizer.json": "cd" * 32}
    ExportRecord(step=40, checkpoint="step_00000040", logit_difference=3.1e-6, tolerance=1e-4, sample=sample, files=files).save(run.export_record)
    write_json(run.tracking, {"uid": "u", "run_id": "9d1c", "offsets": {}, "described": True, "status": "FINISHED", "rows": 50})
    return run


def worse(record: EvaluationRecord, rise: float) -> EvaluationRecord:
    """The same evaluation with every general loss higher."""
    return replace(record, losses=[replace(loss, loss=loss.loss + rise * (loss.group == "general")) for loss in record.losses])
