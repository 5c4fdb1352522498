from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpt.core.errors import MissingInput, UserError
from cpt.data.indexed import IndexedTokens, IndexedWriter, bin_path, idx_path, token_dtype

DOCUMENTS = [[5, 6, 7, 0], [1, 0], [0], list(range(300))]
Make = Callable[..., IndexedTokens]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(documents=st.lists(st.lists(st.integers(0, 65_499), min_size=1, max_size=50), max_size=20), dtype=st.sampled_from(["uint16", "int32"]))
def test_what_was_written_is_read(tokens_of: Make, documents: list[list[int]], dtype: str) -> None:
    tokens = tokens_of(*documents, dtype=dtype)
    assert [tokens.document(i).tolist() for i in range(len(tokens))] == documents
    assert tokens.tokens == sum(map(len, documents))


def test_reads_across_documents_as_int64(tokens_of: Make) -> None:
    tokens = tokens_of(*DOCUMENTS)
    assert tokens.read(2, 6).tolist() == [7, 0, 1, 0]
    assert tokens.read(0, 3).dtype == np.int64


@pytest.mark.parametrize(("vocab_size", "dtype"), [(49_152, "uint16"), (65_499, "uint16"), (65_500, "int32"), (128_256, "int32")])
def test_token_dtype_is_megatrons(vocab_size: int, dtype: str) -> None:
    assert token_dtype(vocab_size) == dtype


def test_truncated_bin_is_refused(tokens_of: Make) -> None:
    prefix = tokens_of(*DOCUMENTS).prefixes[0]
    whole = bin_path(prefix).read_bytes()
    bin_path(prefix).write_bytes(whole[:-3])
    with pytest.raises(UserError) as caught:
        IndexedTokens([prefix])
    problem = caught.value.problems[0]
    assert problem.where == str(bin_path(prefix))
    assert (problem.what, problem.fix) == (f"has {len(whole) - 3} bytes", "cpt prepare")
    assert problem.why == f"its .idx promises {len(whole)}: it was cut or changed"


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda data: b"GARBAGE" + data[7:], "is no Megatron index"),
        (lambda data: data[:20], "is no Megatron index"),
        (lambda data: data[:9] + b"\x02" + data[10:], "has version 2, dtype code 8"),
        (lambda data: data[:17] + b"\x63" + data[18:], "has version 1, dtype code 99"),
        (lambda data: data[:-1], "is too short for 4 sequences"),
    ],
)
def test_damaged_index_is_refused(tokens_of: Make, damage: Callable[[bytes], bytes], what: str) -> None:
    prefix = tokens_of(*DOCUMENTS).prefixes[0]
    idx_path(prefix).write_bytes(damage(idx_path(prefix).read_bytes()))
    with pytest.raises(UserError) as caught:
        IndexedTokens([prefix])
    assert (caught.value.problems[0].where, caught.value.problems[0].what) == (str(idx_path(prefix)), what)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput) as caught:
        IndexedTokens([tmp_path / "train"])
    assert caught.value.problems[0].where == str(tmp_path / "train.idx")


def test_an_error_while_writing_leaves_no_index(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), IndexedWriter(tmp_path / "train", "uint16") as writer:
        writer.add([1, 2])
        raise RuntimeError("killed")
    assert not idx_path(tmp_path / "train").exists()


@pytest.mark.engine
@pytest.mark.parametrize("dtype", ["uint16", "int32"])
def test_byte_identical_to_megatron_and_readable_by_it(tmp_path: Path, tokens_of: Make, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    megatron = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    ours = tokens_of(*DOCUMENTS, dtype=dtype).prefixes[0]
    builder = megatron.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=np.dtype(dtype).type)
    for document in DOCUMENTS:
        builder.add_document(torch.tensor(document), [len(document)])
    builder.finalize(str(tmp_path / "theirs.idx"))
    assert bin_path(ours).read_bytes() == (tmp_path / "theirs.bin").read_bytes()
    assert idx_path(ours).read_bytes() == (tmp_path / "theirs.idx").read_bytes()
    read = megatron.IndexedDataset(str(ours))
    assert [read[i].tolist() for i in range(len(read))] == DOCUMENTS
    assert [IndexedTokens([tmp_path / "theirs"]).document(i).tolist() for i in range(4)] == DOCUMENTS


def test_an_id_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """A tokenizer may have an id beyond the number of its ids; numpy would wrap it around without a word."""
    with pytest.raises(OverflowError, match="up to 65536, which is more than uint16 holds"), IndexedWriter(tmp_path / "wide", "uint16") as writer:
        writer.add(np.array([1, 65536]))
