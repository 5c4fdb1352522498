from __future__ import annotations

import os
from pathlib import Path

import pytest

from cpt.config.data import CorpusConfig, Parser, Reader, SourceConfig
from cpt.core.errors import UserError
from cpt.corpus.debian import Mirror, MirrorUnavailable, parse_stanzas
from cpt.corpus.documents import Document
from cpt.corpus.fetch import fetch
from cpt.corpus.formats import Bad
from cpt.corpus.inputs import plan_shards
from cpt.corpus.readers import check_files, read_debian, read_piece

PACKAGES = """\
Package: kettle
Source: cookware (1.2)
Section: contrib/kitchen
Tag: role::program,
 use::cooking

Package: bare
Section: kitchen
"""
TRANSLATION = """\
Package: kettle
Description-en: boils water quickly
 A kettle for
 the whole family.
 .
 It has:
  * a lid
  * a spout
 and more.

Package: bare
Description-en: has no long description
"""
MOST = 10_000

APT_GET = """#!/bin/sh
for word; do last="$word"; done
case "$last" in
  update) {update} ;;
  *) {download} ;;
esac
"""


def install(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.fixture
def fake_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of PATH for a stand-in apt-get; the mirror it serves is scripted by the test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def serve(fake_apt: Path, root: Path, update: str = "exit 0", download: str = "exit 100") -> Mirror:
    install(fake_apt, "apt-get", APT_GET.format(update=update, download=download))
    return Mirror(root)


def away(fake_apt: Path, root: Path) -> Mirror:
    return serve(fake_apt, root, update="echo 'E: no route to mirror' >&2; exit 100")


def with_lists(root: Path) -> None:
    (root / "lists").mkdir(parents=True)
    (root / "lists" / "deb_main_Packages").write_text(PACKAGES)
    (root / "lists" / "deb_main_Translation-en").write_text(TRANSLATION)
    (root / "lists" / "deb_InRelease").write_text("Codename: testing\nDate: Sat, 11 Jul 2026\n")


def test_listings_join_packages_and_descriptions(fake_apt: Path, tmp_path: Path) -> None:
    with_lists(tmp_path / "fetch")
    mirror = serve(fake_apt, tmp_path / "fetch")
    reading = read_debian(SourceConfig(reader=Reader.debian_catalogue), mirror, MOST)
    header = "Title: kettle - boils water quickly\nSection: kitchen\nTags: role::program, use::cooking"
    text = f"{header}\n\nA kettle for the whole family.\n\nIt has:\n * a lid\n * a spout\nand more."
    assert reading.documents == [Document(id="kettle", text=text, family="cookware", title="boils water quickly", topic="kitchen")]
    assert reading.origin == "Debian package catalogue (testing of Sat, 11 Jul 2026)"


def test_private_state_only(fake_apt: Path, tmp_path: Path) -> None:
    root = tmp_path / "fetch"
    with_lists(root)
    serve(fake_apt, root).catalogue()
    config = (root / "apt.conf").read_text()
    assert config.startswith("#clear Acquire::Languages;\n")
    assert f'Dir::State::lists "{root}/lists";' in config
    assert f'Dir::Cache "{root}/cache";' in config


def test_without_a_mirror_the_installed_packages_and_the_samples(fake_apt: Path, tmp_path: Path) -> None:
    install(fake_apt, "dpkg-query", "#!/bin/sh\nprintf 'Package: mug\\nSource: cookware\\nSection: kitchen\\nDescription: holds tea\\n A mug.\\n\\n'\n")
    samples = tmp_path / "samples.jsonl"
    samples.write_text('{"text": "a sample"}\n')
    reading = read_debian(SourceConfig(reader=Reader.debian_catalogue, fallback=[str(samples)]), away(fake_apt, tmp_path / "fetch"), MOST)
    assert [document.id for document in reading.documents] == ["mug", f"{samples}:1"]
    assert reading.documents[0].family == "cookware"
    assert reading.origin.startswith("fallback (apt-get failed: E: no route to mirror): 1 installed packages' descriptions, ")


def test_packages_fall_back_to_samples_and_say_so(fake_apt: Path, tmp_path: Path) -> None:
    samples = tmp_path / "samples.jsonl"
    samples.write_text('{"text": "a sample"}\n')
    source = SourceConfig(reader=Reader.debian_packages, packages=["dict-wn"], parser=Parser.dictd, fallback=[str(samples)])
    reading = read_debian(source, away(fake_apt, tmp_path / "fetch"), MOST)
    assert [document.text for document in reading.documents] == ["a sample"]
    assert reading.origin.startswith(f"fallback (apt-get failed: E: no route to mirror): {samples}")


def test_packages_without_mirror_or_samples_are_refused(fake_apt: Path, tmp_path: Path) -> None:
    source = SourceConfig(reader=Reader.debian_packages, packages=["dict-wn"], parser=Parser.dictd)
    with pytest.raises(UserError) as caught:
        read_debian(source, away(fake_apt, tmp_path / "fetch"), MOST)
    assert caught.value.problems[0].where == "packages dict-wn"


def test_a_mirror_that_failed_once_is_not_asked_again(fake_apt: Path, tmp_path: Path) -> None:
    mirror = serve(fake_apt, tmp_path / "fetch", update=f"echo asked >> {tmp_path}/log; exit 100")
    for _ in range(3):
        with pytest.raises(MirrorUnavailable):
            mirror.unpack("dict-wn")
    assert (tmp_path / "log").read_text() == "asked\n"


def test_an_update_that_fetched_nothing_is_no_success(fake_apt: Path, tmp_path: Path) -> None:
    with pytest.raises(MirrorUnavailable, match="does not answer"):
        serve(fake_apt, tmp_path / "fetch").catalogue()


def test_a_mirror_that_hangs_is_given_up(fake_apt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpt.corpus.debian.UPDATE_SECONDS", 0.2)
    with pytest.raises(MirrorUnavailable, match=r"gave no answer in 0\.2 s"):
        serve(fake_apt, tmp_path / "fetch", update="exec sleep 30").catalogue()


def test_stanzas() -> None:
    assert list(parse_stanzas("Package: a\nDescription: b\n c\n  d\n\nNote: no package\n\n")) == [{"Package": "a", "Description": "b\nc\n d"}]


def read(tmp_path: Path, content: bytes) -> list[Document | Bad]:
    (tmp_path / "in.jsonl").write_bytes(content)
    source = SourceConfig(paths=[str(tmp_path / "in.jsonl")])
    return [found for shard in plan_shards({"own": source.paths}, 1 << 30) for piece in shard.pieces for found in read_piece(piece, source, MOST)]


def test_jsonl_keeps_ids_and_counts_lines(tmp_path: Path) -> None:
    found = read(tmp_path, b'{"id": "x", "text": "a", "family": "f", "title": "t", "topic": "s"}\n\n{"text": "b"}\n')
    assert found == [Document("x", "a", "f", "t", "s"), Document(f"{tmp_path}/in.jsonl:3", "b")]


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        (b'{"text": "a"}\n{"text": \n', "in.jsonl:2", "is not JSON: Expecting value at column 9"),
        (b'{"text": "a"}\n\n["b"]\n', "in.jsonl:3", "is no JSON object"),
        (b'{"text": 3}\n', "in.jsonl:1", 'has no string "text"'),
        (b'{"text": "\xff"}\n', "in.jsonl:1", "is not UTF-8: invalid start byte at byte 10"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, content: bytes, where: str, what: str) -> None:
    (bad,) = (found for found in read(tmp_path, content) if isinstance(found, Bad))
    assert (bad.where, bad.what) == (f"{tmp_path}/{where}", what)


def test_all_missing_files_are_named_at_once() -> None:
    corpus = CorpusConfig(
        sources={"a": SourceConfig(paths=["no/1.jsonl", "no/2.jsonl"]), "b": SourceConfig(reader=Reader.debian_catalogue, fallback=["no/3.jsonl"])}
    )
    with pytest.raises(UserError) as caught:
        check_files(corpus)
    found = [(problem.where, problem.what) for problem in caught.value.problems]
    assert found == [
        ("corpus.sources.a.paths", "no/1.jsonl not found"),
        ("corpus.sources.a.paths", "no/2.jsonl not found"),
        ("corpus.sources.b.fallback", "no/3.jsonl not found"),
    ]


def test_a_bad_sample_is_named(fake_apt: Path, tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text('{"text": "a"}\n{"body": "b"}\n')
    source = SourceConfig(reader=Reader.debian_packages, packages=["dict-wn"], parser=Parser.dictd, fallback=[f"{tmp_path}/samples.jsonl"])
    with pytest.raises(UserError, match=r'samples\.jsonl:2: has no string "text"'):
        read_debian(source, away(fake_apt, tmp_path / "fetch"), MOST)


def test_what_was_fetched_is_kept_in_parts_and_never_asked_for_again(fake_apt: Path, tmp_path: Path) -> None:
    with_lists(tmp_path / "fetch")
    corpus = CorpusConfig(sources={"shop": SourceConfig(reader=Reader.debian_catalogue)}, shard_bytes=100)
    first = fetch(corpus, tmp_path / "kept", serve(fake_apt, tmp_path / "fetch"))
    again = fetch(corpus, tmp_path / "kept", away(fake_apt, tmp_path / "gone"))
    assert again == first
    source = corpus.sources["shop"]
    (found,) = (one for path in first["shop"].parts for piece in plan_shards({"shop": [path]}, 100)[0].pieces for one in read_piece(piece, source, MOST))
    assert isinstance(found, Document) and (found.id, found.family, found.topic) == ("kettle", "cookware", "kitchen")


def test_a_share_of_what_is_fetched_is_drawn_and_said(fake_apt: Path, tmp_path: Path) -> None:
    with_lists(tmp_path / "fetch")
    corpus = CorpusConfig(sources={"shop": SourceConfig(reader=Reader.debian_catalogue, share=1e-9)})
    found = fetch(corpus, tmp_path / "kept", serve(fake_apt, tmp_path / "fetch"))["shop"]
    assert found.origin.endswith("; 0 of 1 documents drawn")
