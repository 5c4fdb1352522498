"""`cpt resume`: what the next attempt would start from, told without torch, is what training then does; other data is refused by both."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cpt.config.compose import compose_config
from cpt.config.seal import read_config, to_yaml
from cpt.core.artifacts import write_text
from cpt.core.paths import RunPaths
from cpt.tracking.journal import read_events, series
from jobs import cli, launch
from tests.jobs.history import History
from tests.ranks import RankFailed, run_ranks
from tests.tiny import SETTINGS, make_run, train_rank

pytestmark = pytest.mark.engine

Resumed = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def trained(root: Path) -> RunPaths:
    """Twenty steps, checkpoints of 15 and 20."""
    run = make_run(root, "resumable", [])
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
def resume(run: RunPaths, capsys: pytest.CaptureFixture[str]) -> Resumed:
    def call(*options: str) -> tuple[int, str]:
        code = cli.main(["resume", str(run.root), *options])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would have been submitted."""
    asked: list[list[str]] = []
    monkeypatch.setattr(launch, "main", lambda arguments: asked.append(arguments) or 0)
    return asked


def test_the_check_tells_what_training_then_does(run: RunPaths, resume: Resumed) -> None:
    code, said = resume("--check")
    assert code == 0
    assert "step_00000015, complete" in said and "step 16 of 20" in said and "120 sequences, 7.68 k tokens" in said
    assert f"learning rate {series(run, 'train/lr')[16]:.4g}" in said
    crc32 = int(series(run, "data/batch_crc32")[16])
    assert f"CRC-32 {crc32}, as attempt 0 read it" in said and "the same as trained so far" in said
    assert "every token file has the hash" in said
    assert f"{int(series(run, 'data/tokens/listings')[15]):,}" in said
    assert run_ranks(1, train_rank, run, 1) == [0]
    assert [event.fields["step"] for event in read_events(run) if event.name == "resume"] == [15]
    assert int(series(run, "data/batch_crc32")[16]) == crc32
    assert "nothing: all 20 steps are done" in resume("--check")[1]


def test_without_a_checkpoint_it_starts_from_the_base(run: RunPaths, resume: Resumed) -> None:
    shutil.rmtree(run.checkpoints)
    code, said = resume("--check")
    assert code == 0 and "none: starts from the base" in said and "step 1 of 20" in said
    assert f"CRC-32 {int(series(run, 'data/batch_crc32')[1])}, as attempt 0 read it" in said


def test_a_config_that_was_edited_is_refused(run: RunPaths, resume: Resumed) -> None:
    sealed = read_config(run.config)
    write_text(run.config, to_yaml(compose_config([*SETTINGS, f"run_root={sealed.run_root}", "mixture.domain_share=0.7"])))
    code, said = resume("--check")
    assert code == 2 and "says another mixture than was planned from it" in said


def test_training_itself_refuses_a_plan_that_was_exchanged(run: RunPaths, resume: Resumed) -> None:
    record = json.loads(run.run.read_text())
    record["mixture"]["shares"][0]["weight"] /= 2
    run.run.write_text(json.dumps(record))
    code, said = resume("--check")
    assert code == 2 and "says another mixture than was planned" in said and "was trained on mixture and data" in said
    with pytest.raises(RankFailed, match="was trained on mixture and data") as failed:
        run_ranks(1, train_rank, run, 1)
    assert failed.value.kind == "UserError"


def test_a_corpus_that_was_prepared_again_is_seen(run: RunPaths, resume: Resumed, tmp_path: Path) -> None:
    sealed = read_config(run.config)
    shutil.copytree(sealed.run_root, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*able*", "test_*"))
    write_text(run.config, to_yaml(compose_config([*SETTINGS, f"run_root={tmp_path}"])))
    assert resume("--check")[0] == 0
    paths = sealed.runs.data("sample").__class__(tmp_path / "data" / "sample")
    manifest = json.loads(paths.manifest.read_text())
    binary = paths.root / f"{manifest['sources'][0]['train']['shards'][0]['prefix']}.bin"
    tokens = bytearray(binary.read_bytes())
    tokens[0] ^= 1
    binary.write_bytes(tokens)
    code, said = resume("--check")
    assert code == 2 and f"{binary.name}: has changed on disk" in said
    manifest["sources"][0]["train"]["shards"][0]["sha256"] = "0" * 64
    paths.manifest.write_text(json.dumps(manifest))
    code, said = resume("--check")
    assert code == 2 and "has no tokens, or others, for sample" in said and "--accept-changed-data" in said
    paths.manifest.unlink()
    code, said = resume("--check")
    assert code == 2 and "step_00000015, complete" in said and "is not prepared" in said


def test_a_damaged_checkpoint_is_our_failure_and_names_the_file(run: RunPaths, resume: Resumed) -> None:
    next((run.checkpoints / "step_00000015").glob("*.safetensors")).write_bytes(b"")
    code, said = resume("--check")
    assert code == 1 and "is damaged" in said and ".safetensors should hold" in said


def test_without_check_it_submits_as_launch_does(run: RunPaths, resume: Resumed, launched: list[list[str]]) -> None:
    assert resume()[0] == 0
    assert launched == [["--run", str(run.root)]]


def test_settings_are_not_exchanged_under_a_running_attempt(run: RunPaths, resume: Resumed, tmp_path: Path) -> None:
    story = History(tmp_path, ago=100, overrides=["slurm.spare_nodes=0"])
    story.begin(1)
    story.beats()
    shutil.copytree(story.attempt.root, run.attempt(0).root)
    for options in (["--accept-changed-data"], ["mixture.domain_share=0.7"]):
        code, said = resume(*options)
        assert code == 2 and "is running" in said and not run.amendments.exists()
