"""`cpt resume RUN key=value`: what may change does, from that step and sample on; nothing is read twice in an epoch; nothing else may change."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cpt.config.history import read_history
from cpt.config.run import RunConfig
from cpt.config.seal import read_config, to_yaml
from cpt.core.amendments import Amendments, segments
from cpt.core.artifacts import sha256_file, write_text
from cpt.core.paths import RunPaths
from cpt.core.records import RunRecord
from cpt.core.world import World
from cpt.data import open_manifest, open_mixture
from cpt.data.manifest import corpus_fingerprint
from cpt.mix import plan_mixture
from cpt.tracking.journal import read_events, series
from jobs import cli, launch
from tests.ranks import RankFailed, run_ranks
from tests.tiny import make_run, train_rank

pytestmark = pytest.mark.engine

Resumed = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def trained(root: Path) -> RunPaths:
    """Twenty steps of 8 samples, checkpoints of 10, 15 and 20."""
    run = make_run(root, "amendable", ["checkpoint.keep_last=3"])
    assert run_ranks(1, train_rank, run, 0) == [0]
    return run


@pytest.fixture
def run(trained: RunPaths, request: pytest.FixtureRequest) -> RunPaths:
    """As if it had died after step 20 was done and before it was saved."""
    copy = RunPaths(trained.root.with_name(request.node.name))
    shutil.copytree(trained.root, copy.root)
    shutil.rmtree(copy.checkpoints / "step_00000020")
    copy.stopped.unlink()
    return copy


@pytest.fixture
def resume(run: RunPaths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Resumed:
    monkeypatch.setattr(launch, "main", lambda _: 0)

    def call(*options: str) -> tuple[int, str]:
        code = cli.main(["resume", str(run.root), *options])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def stop_after(world: World, run: RunPaths, attempt: int, step: int) -> int:
    """Train until `step` is done, then as if somebody had pulled the trigger."""
    from cpt.train import Life, train_run

    def at(_: object, done: int) -> None:
        if done == step - 1:
            (run.triggers / "stop").touch()

    (run.triggers / "stop").unlink(missing_ok=True)
    return train_run(run, read_config(run.config), world, attempt, Life(at))


def read_twice(run: RunPaths, samples: int) -> list[tuple[str, int]]:
    """(source, index) that a run of so many samples read more than once."""
    config = read_config(run.config)
    parts = segments(RunRecord.load(run.run).mixture, Amendments.of(run).amendments)
    data = open_mixture(config, open_manifest(config), parts)
    sources, within = data._blend.assign(0, samples)
    read = [(data.names[source], int(index)) for source, index in zip(sources, within, strict=True)]
    return [item for item in read if read.count(item) > 1]


def test_another_mixture_holds_from_there_on_and_repeats_nothing(run: RunPaths, resume: Resumed) -> None:
    before = {step: int(crc32) for step, crc32 in series(run, "data/batch_crc32").items()}
    listings = series(run, "data/tokens/listings")[15]
    code, said = resume("mixture.domain_share=0.9", "--check")
    assert code == 0 and "from step 16 (sample 120) on: mixture.domain_share=0.9 (was 0.5)" in said
    assert not run.amendments.exists() and read_config(run.config).mixture.domain_share == 0.5
    promised = int(said.split("CRC-32 ")[1].split(",")[0])
    assert resume("mixture.domain_share=0.9")[0] == 0
    assert read_config(run.config).mixture.domain_share == 0.9
    assert read_config(run.sealed_config(0)).mixture.domain_share == 0.5
    assert run_ranks(1, train_rank, run, 1) == [0]
    after = {step: int(crc32) for step, crc32 in series(run, "data/batch_crc32").items()}
    assert {step: after[step] for step in range(1, 16)} == {step: before[step] for step in range(1, 16)}
    assert after[16] == promised != before[16]
    assert series(run, "data/tokens/listings")[20] == listings + 0.9 * 40 * 64
    assert read_twice(run, 160) == []
    (event,) = [event.fields for event in read_events(run) if event.name == "amended"]
    assert event["changes"] == {"mixture.domain_share": [0.5, 0.9]} and (event["step"], event["sample"]) == (15, 120)


def test_a_new_rate_reaches_the_optimizer_and_the_journal(run: RunPaths, resume: Resumed) -> None:
    """Complaint number one of those who continue: the checkpoint's own schedule wins, and nobody notices."""
    before, crc32 = series(run, "train/lr"), series(run, "data/batch_crc32")
    losses = series(run, "train/loss")
    code, said = resume("optimizer.lr_ratio=0.4")
    assert code == 0 and "optimizer.lr_ratio=0.4 (was 0.1)" in said and f"learning rate {4 * before[16]:.4g}" in said
    assert run_ranks(1, train_rank, run, 1) == [0]
    after = series(run, "train/lr")
    assert [after[step] for step in range(1, 16)] == [before[step] for step in range(1, 16)]
    assert [after[step] for step in range(16, 21)] == pytest.approx([4 * before[step] for step in range(16, 21)])
    assert series(run, "data/batch_crc32") == crc32  # another rate reads the same batches
    assert series(run, "train/loss")[16] == losses[16]  # the first update under it starts from the same weights
    assert series(run, "train/loss")[17] != losses[17]  # and moves them by another amount
    (event,) = [event.fields for event in read_events(run) if event.name == "amended"]
    assert event["learning_rate"] == pytest.approx([before[15], 4 * before[16]])


def test_a_run_that_goes_back_before_an_amendment_repeats_its_past_and_takes_it_up_again(run: RunPaths, resume: Resumed) -> None:
    """The amendment belongs to sample 120; from the checkpoint of step 10, samples 80 to 120 and their rates are as they were."""
    rates, crc32 = series(run, "train/lr"), series(run, "data/batch_crc32")
    assert resume("mixture.domain_share=0.9", "optimizer.lr_ratio=0.4")[0] == 0
    promised = int(resume("--check")[1].split("CRC-32 ")[1].split(",")[0])
    shutil.rmtree(run.checkpoints / "step_00000015")
    code, said = resume("--check")
    assert code == 0 and "step 11 of 20" in said and f"CRC-32 {int(crc32[11])}, as attempt 0 read it" in said
    assert run_ranks(1, train_rank, run, 1) == [0]
    again, after = series(run, "train/lr"), series(run, "data/batch_crc32")
    assert [(again[step], after[step]) for step in range(11, 16)] == [(rates[step], crc32[step]) for step in range(11, 16)]
    assert int(after[16]) == promised and again[16] == pytest.approx(4 * rates[16])
    assert [event.fields["step"] for event in read_events(run) if event.name == "amended"] == [15]


def test_amended_after_going_back_the_later_amendment_is_taken_up(run: RunPaths, resume: Resumed) -> None:
    assert resume("mixture.domain_share=0.9")[0] == 0
    shutil.rmtree(run.checkpoints / "step_00000015")
    assert resume("optimizer.lr_ratio=0.2")[0] == 0
    (amendment,) = Amendments.of(run).amendments
    assert (amendment.step, amendment.sample) == (10, 80)
    assert {change.key for change in amendment.changes} == {"mixture.domain_share", "optimizer.lr_ratio"}
    assert run_ranks(1, train_rank, run, 1) == [0]
    assert read_twice(run, 160) == []


def test_the_budget_is_extended_also_of_a_run_that_is_done(trained: RunPaths, tmp_path: Path, resume: Resumed, run: RunPaths) -> None:
    shutil.rmtree(run.root)
    shutil.copytree(trained.root, run.root)
    code, said = resume("train.train_tokens=5120")
    assert code == 2 and "train.train_tokens: is 5120, 10 steps" in said and "20 steps are done" in said
    assert resume("train.train_tokens=12800")[0] == 0
    assert not run.stopped.exists()
    assert run_ranks(1, train_rank, run, 1) == [0]
    assert max(series(run, "train/loss")) == 25
    assert read_twice(run, 200) == []


def test_what_does_not_change_results_may_change_and_everything_else_is_refused_with_its_reason(run: RunPaths, resume: Resumed) -> None:
    code, said = resume("slurm.tasks_per_node=2", "parallel.tensor_parallel_size=2", "checkpoint.interval=2", "train.micro_batch_size=2", "loader=dali")
    assert code == 0, said
    assert "--ntasks-per-node=2" in run.script.read_text() and json.loads(run.plan.read_text())["layout"]["tensor"] == 2
    for override, why in {
        "model.num_layers=2": "weights and optimizer state have its shape",
        "train.sequence_length=32": "samples are windows of that length",
        "train.global_batch_size=16": "steps, schedule and journal count in it",
        "seed=5": "the order in which data is read follows it",
        "optimizer.beta1=0.8": "the optimizer's moments were made with it",
        "name=other": "none of the settings that a run may change",
        "mixture.domain_shar=0.5": "unknown key",
    }.items():
        code, said = resume(override)
        assert code == 2 and why in said, (override, said)
    assert len(Amendments.of(run).amendments) == 1


def test_groups_and_named_weights_are_overrides_too(run: RunPaths, resume: Resumed) -> None:
    assert resume("mixture=domain_heavy", "mixture.weights={novels: 2, dictionary: 1}", "schedule=constant")[0] == 0
    config = read_config(run.config)
    assert (config.mixture.domain_share, config.mixture.weights, config.schedule.decay) == (0.8, {"novels": 2.0, "dictionary": 1.0}, "constant")
    assert resume("mixture.weights={dictionary: 0, novels: 1}")[0] == 0
    assert [(a.step, a.sample) for a in read_history(run).amendments] == [(15, 120), (15, 120)]
    assert run_ranks(1, train_rank, run, 1) == [0]
    tokens = series(run, "data/tokens/dictionary")
    assert tokens[20] == tokens[15] > 0
    assert read_twice(run, 160) == []


def test_half_an_amendment_is_no_amendment(run: RunPaths, resume: Resumed) -> None:
    """A kill between two files of it, or an edited config: refused by training and by the check, with what puts it right."""
    assert resume("optimizer.lr_ratio=0.4")[0] == 0
    run.config.write_bytes(run.sealed_config(0).read_bytes())
    code, said = resume("--check")
    assert code == 2 and f"cp {run.sealed_config(1)} {run.config}" in said
    with pytest.raises(RankFailed, match="differs from"):
        run_ranks(1, train_rank, run, 1)


def test_exchanged_tokens_are_an_amendment_that_a_human_accepts(run: RunPaths, resume: Resumed, tmp_path: Path) -> None:
    sealed = read_config(run.config)
    shutil.copytree(sealed.run_root, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("amendable", "test_*"))
    write_text(run.config, to_yaml(sealed).replace(f"run_root: {sealed.run_root}", f"run_root: {tmp_path}"))
    data = read_config(run.config).runs.data("sample")
    manifest = json.loads(data.manifest.read_text())
    (novels,) = [source for source in manifest["sources"] if source["name"] == "novels"]
    binary = data.root / f"{novels['train']['shards'][0]['prefix']}.bin"
    binary.write_bytes(binary.read_bytes()[::-1])  # uint16 below 512: other ids, still ids
    binary.write_bytes(bytes(byte % 2 if place % 2 else byte for place, byte in enumerate(binary.read_bytes())))
    novels["train"]["shards"][0]["sha256"] = sha256_file(binary)
    data.manifest.write_text(json.dumps(manifest))
    code, said = resume("mixture.domain_share=0.6")
    assert code == 2 and "corpus.sources.novels: has other tokens than those trained on" in said and "--accept-changed-data" in said
    code, said = resume("--accept-changed-data")
    assert code == 0 and "other tokens of novels, accepted" in said
    assert run_ranks(1, train_rank, run, 1) == [0]
    assert read_events(run)[-1].fields["step"] == 20
    for step in (15, 20):
        shutil.rmtree(run.checkpoints / f"step_{step:08d}")
    code, said = resume("--check")
    assert code == 2 and "has no tokens, or others, for sample 80" in said  # what lies between step 10 and the exchange is gone


def test_a_corpus_grows_and_shrinks_on_the_way(run: RunPaths, resume: Resumed, tmp_path: Path) -> None:
    """Launched without french; its files are added to the same corpus, then german is taken out of it."""
    sealed = read_config(run.config)
    shutil.copytree(sealed.run_root, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("amendable", "test_*"))
    path = sealed.runs.data("sample").__class__(tmp_path / "data" / "sample").manifest
    whole = json.loads(path.read_text())

    def sources(config: RunConfig, *gone: str) -> RunConfig:
        kept = {name: source for name, source in config.corpus.sources.items() if name not in gone}
        corpus = dataclasses.replace(config.corpus, sources=kept)
        prepared = [source for source in whole["sources"] if source["name"] not in gone]
        path.write_text(json.dumps(whole | {"sources": prepared, "corpus_fingerprint": corpus_fingerprint(corpus)}))
        return dataclasses.replace(config, corpus=corpus, run_root=str(tmp_path))

    small = sources(sealed, "french")
    shutil.rmtree(run.root)
    run.root.mkdir()
    plan = plan_mixture(small.mixture, open_manifest(small), small.train.train_tokens, 64)
    dataclasses.replace(RunRecord.load(run.root.with_name("amendable") / "run.json"), mixture=plan).save(run.run)
    write_text(run.config, to_yaml(small))
    (run.triggers).mkdir()
    assert run_ranks(1, stop_after, run, 0, 5) == [75]
    sources(sealed)
    code, said = resume("corpus=sample")
    assert code == 0 and "french" in said, said
    assert run_ranks(1, stop_after, run, 1, 12) == [75]
    assert series(run, "data/tokens/french")[12] > 0
    sources(sealed, "german")
    assert resume("~corpus.sources.german")[0] == 0
    assert run_ranks(1, stop_after, run, 2, 99) == [0]
    german = series(run, "data/tokens/german")
    assert german[20] == german[12] > 0
    assert read_twice(run, 160) == []
