"""`cpt prepare --submit`: the stages of a corpus as a chain of job arrays on a real SLURM."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.config.compose import compose_parts
from cpt.config.run import RunConfig
from cpt.corpus.pipeline import plan_corpus
from cpt.corpus.prepare import finished, prepare
from jobs.cli import main
from slurm import client
from slurm.devcluster import DevCluster
from tests.corpora import VOCABULARY, give_tokenizer, tokenizer_file
from tests.corpus.own import GONE, quiet, texts, write_jsonl
from tests.slurm.conftest import wait_for

__all__ = ["tokenizer_file"]
pytestmark = pytest.mark.slurm


@pytest.fixture
def settings(tmp_path: Path, tokenizer_file: Path, on_cluster: list[str]) -> list[str]:
    """A corpus of two sources with a shard each; the run root has a space in it."""
    root = tmp_path / "runs here"
    give_tokenizer(root, tokenizer_file)
    files = [write_jsonl(tmp_path / f"{word}.jsonl", texts(word, 30)) for word in ("a", "b")]
    sources = [f"corpus.sources.{name}.paths=['{file}']" for name, file in zip(("listings", "novels"), files, strict=True)]
    plain = [*(f"corpus.sources.{name}.filters=none" for name in ("listings", "novels")), "corpus.shard_bytes=8000", "corpus.benchmarks=[]", *GONE]
    plain += ["corpus.dedup.bands=3", "corpus.dedup.rows=4"]
    own = ["corpus=sample", "corpus.name=own", "model=tiny", f"model.vocab_size={VOCABULARY}", f"run_root='{root}'", "slurm.cpus_per_task=2", *sources, *plain]
    return [*own, *(setting for setting in on_cluster if setting.startswith(("cluster.", "slurm.time")))]


def say(capsys: pytest.CaptureFixture[str], option: str, settings: list[str]) -> tuple[int, str]:
    capsys.readouterr()
    return main(["prepare", option, *settings]), capsys.readouterr().out


def settled(config: RunConfig) -> None:
    """Wait until nothing of the chain is queued."""
    pipeline = plan_corpus(config)
    names = ",".join(f"own.{pipeline.keys['tokenize'][:6]}.{link}" for link in (*(stage.name for stage in pipeline.stages), "publish"))
    wait_for(lambda: not client.jobs(config.cluster, name=names), "the end of the chain")


def test_a_chain_of_arrays_makes_what_one_machine_makes(cluster: DevCluster, settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = compose_parts(settings)
    code, out = say(capsys, "--submit", settings)
    assert code == 0 and [line.split()[0] for line in out.splitlines()[:5]] == ["select", "match", "decide", "tokenize", "publish"]
    assert "already queued: " in say(capsys, "--submit", settings)[1]
    assert main(["prepare", "--submit", *settings, "corpus.seed=1"]) == 2
    assert "is being prepared with other settings: " in capsys.readouterr().err
    settled(config)
    manifest = finished(plan_corpus(config))
    assert manifest is not None, say(capsys, "--status", settings)[1]
    assert config.runs.data("own").card.is_file()
    code, out = say(capsys, "--status", settings)
    assert code == 0 and "queue: nothing" in out and "prepared: " in out
    give_tokenizer(tmp_path / "alone", Path(config.run_root) / "base" / "tiny" / "tokenizer.json")
    alone = prepare(compose_parts([*settings, f"run_root={tmp_path}/alone"]), quiet)
    assert manifest.content_hash == alone.content_hash
    assert "already prepared" in say(capsys, "--submit", settings)[1]


def test_what_fails_on_a_node_is_said_and_mended_by_the_same_command(
    cluster: DevCluster, settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = compose_parts(settings)
    whole = (tmp_path / "b.jsonl").read_text()
    (tmp_path / "b.jsonl").write_text(whole + "{\n")
    say(capsys, "--submit", settings)
    settled(config)
    code, out = say(capsys, "--status", settings)
    assert code == 1 and "failed: select, task " in out and "is not JSON" in out and "not prepared yet" in out
    (tmp_path / "b.jsonl").write_text(whole)
    done = len(plan_corpus(config).stages[0].missing())
    code, out = say(capsys, "--submit", settings)
    assert code == 0 and done < 2  # what was done of the other source stays done
    settled(config)
    assert finished(plan_corpus(config)) is not None, say(capsys, "--status", settings)[1]


@pytest.mark.slow
def test_a_node_that_dies_costs_its_own_units_and_nobody_waits(
    cluster: DevCluster, settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SLURM queues the task again, on another node; what it had done stays done."""
    config = compose_parts(settings)
    say(capsys, "--submit", settings)
    pipeline = plan_corpus(config)
    name = f"own.{pipeline.keys['tokenize'][:6]}.select"
    (node,) = {job.nodes for job in wait_for(lambda: [job for job in client.jobs(config.cluster, name=name) if job.state == "RUNNING"], "a task that runs")[:1]}
    cluster.kill(node)
    try:
        settled(config)
    finally:
        cluster.up(node)
    manifest = finished(plan_corpus(config))
    assert manifest is not None, say(capsys, "--status", settings)[1]
    give_tokenizer(tmp_path / "alone", Path(config.run_root) / "base" / "tiny" / "tokenizer.json")
    assert manifest.content_hash == prepare(compose_parts([*settings, f"run_root={tmp_path}/alone"]), quiet).content_hash
