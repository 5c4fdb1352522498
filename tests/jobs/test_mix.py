"""`cpt mix`: what is read, what differs, whether bytes and shares are as written and planned, and where a sample comes from."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from cpt.config.run import RunConfig
from cpt.config.seal import to_yaml
from cpt.core.amendments import Amendment, Amendments, Segment
from cpt.core.artifacts import sha256_file, write_text
from cpt.core.manifest import DataManifest
from cpt.core.paths import RunPaths
from cpt.core.records import MixturePlan, RunRecord
from cpt.corpus.prepare import prepare
from cpt.data import open_mixture
from cpt.data.indexed import bin_path, ids_path, idx_path
from cpt.data.provenance import trace
from cpt.mix import plan_mixture
from cpt.tracking.journal import Journal
from jobs import cli
from tests.corpora import configure, give_tokenizer, make_tokenizer

Say = Callable[..., tuple[int, str]]
OVERRIDES = ("train.train_tokens=2048000", "mixture.max_epochs=10000")
"""32,000 samples of 64 tokens."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DataManifest]:
    """A run root with the sample corpus; tests that change files copy it."""
    root = tmp_path_factory.mktemp("mix")
    make_tokenizer(root / "tokenizer.json")
    give_tokenizer(root, root / "tokenizer.json")
    return root, prepare(configure(root), lambda *_: None)


@pytest.fixture
def copied(corpus: tuple[Path, DataManifest], tmp_path: Path) -> Path:
    shutil.copytree(corpus[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def mix(capsys: pytest.CaptureFixture[str]) -> Say:
    """Exit code, and all that was said."""

    def call(*arguments: str) -> tuple[int, str]:
        code = cli.main(["mix", *arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def typed(root: Path, *overrides: str) -> list[str]:
    return ["model=tiny", "corpus=sample", f"run_root={root}", "model.vocab_size=512", "train.train_tokens=20480", "train.sequence_length=64", *overrides]


def planned(config: RunConfig, manifest: DataManifest) -> MixturePlan:
    return plan_mixture(config.mixture, manifest, config.train.train_tokens, config.train.sequence_length)


def launched(root: Path, manifest: DataManifest, *overrides: str, amended: Sequence[str] = ()) -> RunPaths:
    """A run directory as `cpt launch` leaves it; amended before sample 160, on demand."""
    config, run = configure(root, *overrides), RunPaths(root / "a-run")
    RunRecord(name="a-run", fingerprint="f", created="", command=[], versions={}, mixture=planned(config, manifest)).save(run.run)
    write_text(run.config, to_yaml(config))
    if amended:
        changed = configure(root, *overrides, *amended)
        mixture = planned(changed, manifest)
        made = Amendment(time=0.0, step=20, sample=160, changes=[], mixture=mixture, tokens={}, learning_rate=0.0)
        Amendments(amendments=[made]).save(run.amendments)
        for path, each in ((run.sealed_config(0), config), (run.sealed_config(1), changed), (run.config, changed)):
            write_text(path, to_yaml(each))
    return run


def test_show_sums_parts_and_warns_near_a_cap(corpus: tuple[Path, DataManifest], mix: Say) -> None:
    root, manifest = corpus
    mixture = planned(configure(root), manifest)
    most = max(mixture.shares, key=lambda share: share.epochs)
    code, said = mix("show", *typed(root, f"mixture.max_epochs={most.epochs / 0.95}"))
    assert code == 0
    rows = {line.split()[0]: line for line in said.splitlines() if line.split()}
    for share in mixture.shares:
        assert f"{share.weight:.2%}" in rows[share.name] and f"{share.planned_tokens:,}" in rows[share.name] and f"{share.epochs:.2f}" in rows[share.name]
    sums = [" ".join(line.split()) for line in said.splitlines() if line.lstrip().startswith("= ")]
    assert [line.rpartition("%")[0] for line in sums] == ["= domain 50.00", "= English general 45.00", "= non-English general 5.00"]
    assert said.count("hint: ") >= 1 and f"hint: {most.name} is read {most.epochs:.3g} times of" in said
    assert "hint: " not in mix("show", *typed(root, f"mixture.max_epochs={most.epochs * 2}"))[1]


def test_show_of_an_amended_run_has_a_table_for_each_part(copied: Path, corpus: tuple[Path, DataManifest], mix: Say) -> None:
    run = launched(copied, corpus[1], amended=["mixture.domain_share=0.8"])
    code, said = mix("show", "--run", str(run.root))
    assert code == 0 and "from sample 0 on" in said and "from sample 160 on" in said
    assert said.index("50.00%") < said.index("from sample 160 on") < said.index("80.00%")
    code, said = mix("show", "--run", str(run.root), "mixture.domain_share=0.1")
    assert code == 2 and "a run has its config" in said and "fix: cpt mix diff" in said


def test_diff_tells_weights_and_data_apart(copied: Path, corpus: tuple[Path, DataManifest], mix: Say) -> None:
    root, manifest = corpus
    run = launched(copied, manifest)
    code, said = mix("diff", str(run.root), " ".join(typed(root, "mixture.domain_share=0.8")))
    assert code == 0 and "mixture.domain_share: 0.5 -> 0.8" in said and "+30.00%" in said
    assert "data: the same" in said and "order: other samples" in said
    code, said = mix("diff", str(run.root), " ".join(typed(copied)))
    assert code == 0 and "order: the same samples, one by one" in said and "mixture." not in said
    text = json.loads((copied / "data/sample/manifest.json").read_text())
    next(source for source in text["sources"] if source["name"] == "novels")["train"]["shards"][0]["sha256"] = "0" * 64
    (copied / "data/sample/manifest.json").write_text(json.dumps(text))
    code, said = mix("diff", " ".join(typed(root)), " ".join(typed(copied)))
    assert code == 0 and "data: differs" in said and "tokens of novels" in said and "order: other samples" in said
    code, said = mix("diff", str(run.root))
    assert code == 2 and "compares two" in said


def test_verify_of_a_whole_corpus(corpus: tuple[Path, DataManifest], mix: Say) -> None:
    """The whole run is 32,000 samples: shares within a tenth of a percent."""
    code, said = mix("verify", *typed(corpus[0], *OVERRIDES))
    assert code == 0 and "every byte is what was prepared" in said and "all is well" in said
    assert "shares of all 32,000 samples of the run: largest difference 0.0" in said and "allowed 0.10%" in said


def flip(prefix: Path, _: int) -> None:
    data = bytearray(bin_path(prefix).read_bytes())
    data[0] ^= 1
    bin_path(prefix).write_bytes(data)


def cut(prefix: Path, _: int) -> None:
    bin_path(prefix).write_bytes(bin_path(prefix).read_bytes()[:-2])


def forget(prefix: Path, _: int) -> None:
    ids_path(prefix).write_bytes(ids_path(prefix).read_bytes().partition(b"\n")[2])


def misplace(prefix: Path, _: int) -> None:
    """A digit of a pointer that only Megatron reads."""
    data = bytearray(idx_path(prefix).read_bytes())
    data[34 + 4 * int.from_bytes(data[18:26], "little") + 8] ^= 1
    idx_path(prefix).write_bytes(data)


def end_early(prefix: Path, end_of_document: int) -> None:
    """An end-of-document token in the middle of a document, as prepared: the hash of the manifest is that of the file."""
    tokens = np.fromfile(bin_path(prefix), "uint16")
    tokens[1] = end_of_document
    tokens.tofile(bin_path(prefix))
    manifest = prefix.parents[[parent.name for parent in prefix.parents].index("sample")] / "manifest.json"
    text = manifest.read_text()
    old = next(shard["sha256"] for source in json.loads(text)["sources"] for shard in source["train"]["shards"] if prefix.match(f"*/{shard['prefix']}"))
    manifest.write_text(text.replace(old, sha256_file(bin_path(prefix))))


@pytest.mark.parametrize(
    ("damage", "file", "what"),
    [
        (flip, bin_path, "has other bytes than were written"),
        (cut, bin_path, "bytes instead of"),
        (lambda prefix, _: bin_path(prefix).unlink(), bin_path, "is not there"),
        (forget, ids_path, "lines for"),
        (misplace, idx_path, "has other bytes than the index of its documents"),
        (lambda prefix, _: idx_path(prefix).write_bytes(b"x"), idx_path, "is no Megatron index"),
        (end_early, bin_path, "has 1 end-of-document token(s) inside a document, the first in document 0, token 1"),
    ],
)
def test_verify_names_what_is_damaged(
    copied: Path, corpus: tuple[Path, DataManifest], mix: Say, damage: Callable[[Path, int], None], file: Callable[[Path], Path], what: str
) -> None:
    manifest = corpus[1]
    prefix = manifest.source("french").train.prefixes(copied / "data" / "sample")[0]
    damage(prefix, manifest.end_of_document_id)
    code, said = mix("verify", *typed(copied))
    [line] = [line for line in said.splitlines() if line.startswith(str(prefix))]
    assert code == 1 and line.startswith(f"{file(prefix)}: ") and what in line
    assert "1 file(s) are damaged" in said and f"cpt prepare corpus=sample model=tiny run_root={copied}" in said


def test_verify_holds_a_runs_journal_against_its_plan(copied: Path, corpus: tuple[Path, DataManifest], mix: Say) -> None:
    manifest = corpus[1]
    run = launched(copied, manifest, *OVERRIDES, amended=["mixture.domain_share=0.8"])
    assert "nothing was trained on yet" in mix("verify", "--run", str(run.root))[1]
    config, launch, then = configure(copied, *OVERRIDES), RunRecord.load(run.run).mixture, Amendments.of(run).amendments[0].mixture
    data = open_mixture(config, manifest, [Segment(0, launch), Segment(160, then)])
    values = data.ledger(8000).metrics()
    with Journal(run, 0) as journal:
        journal.metrics(1000, 8000, 8000 * 64, values)
    code, said = mix("verify", "--run", str(run.root))
    assert code == 0 and "shares of the 8,000 samples trained on until step 1,000: largest difference 0.0" in said
    with Journal(run, 0) as journal:
        journal.metrics(1001, 8000, 8000 * 64, values | {"data/tokens/german": values["data/tokens/german"] + 2000})
    code, said = mix("verify", "--run", str(run.root))
    assert code == 1 and f"{run.metrics(0)}: tokens by source until step 1,001 are not as planned" in said


def test_verify_sees_that_a_run_was_planned_for_other_tokens(copied: Path, corpus: tuple[Path, DataManifest], mix: Say) -> None:
    run = launched(copied, corpus[1])
    record = RunRecord.load(run.run)
    shares = [dataclasses.replace(share, sha256="0") if share.name == "novels" else share for share in record.mixture.shares]
    dataclasses.replace(record, mixture=dataclasses.replace(record.mixture, shares=shares)).save(run.run)
    code, said = mix("verify", "--run", str(run.root))
    assert code == 1 and "novels: the run was planned for other tokens of it" in said


def test_trace_leads_to_documents_and_offsets(copied: Path, corpus: tuple[Path, DataManifest], mix: Say) -> None:
    config, manifest = configure(copied), corpus[1]
    run, root = launched(copied, manifest), copied / "data" / "sample"
    data = open_mixture(config, manifest, [Segment(0, planned(config, manifest))])
    code, said = mix("trace", "--run", str(run.root), "27")
    assert code == 0 and f"sample 27: {data.names[data.sources(27, 28)[0]]}, window" in said and "row 3 of step 4" in said
    pieces = trace(data, 27).pieces
    assert all(piece.document in said and str(bin_path(piece.prefix).relative_to(root)) in said for piece in pieces)
    code, said = mix("trace", "--run", str(run.root), "27:64")
    last, id = pieces[-1], int(data.batch(27, 28).tokens[0, 64])
    assert code == 0 and f"token 64 of the sample, id {id}, is token {last.within.stop - 1:,} of document {last.document}" in said
    assert f"token {last.token + len(last.row) - 1:,} of {bin_path(last.prefix)}" in said
    assert np.fromfile(bin_path(last.prefix), "uint16")[last.token + len(last.row) - 1] == id


@pytest.mark.parametrize(("place", "said"), [("320", "numbered from 0 to 319"), ("x", "numbered from 0"), ("5:65", "has the tokens 0 to 64"), ("5:x", "TOKEN")])
def test_trace_refuses_what_is_no_sample(copied: Path, corpus: tuple[Path, DataManifest], mix: Say, place: str, said: str) -> None:
    run = launched(copied, corpus[1])
    code, answer = mix("trace", "--run", str(run.root), place)
    assert code == 2 and said in answer and "fix:" in answer
