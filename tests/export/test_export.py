"""A folder gets its name only when transformers answers from it as the engine does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from cpt.core.paths import RunPaths
from cpt.core.records import ExportRecord
from cpt.core.world import World
from tests.ranks import RankFailed, run_ranks
from tests.tiny import make_run, train_rank

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", params=["bf16", "fp32"])
def trained(request: pytest.FixtureRequest, root: Path) -> RunPaths:
    run = make_run(root, f"to-export-{request.param}", ["train.train_tokens=2560", f"train.precision={request.param}", "evaluate.at_start=false"])
    run_ranks(1, train_rank, run, 0)
    return run


def export(_world: World, run: RunPaths) -> ExportRecord:
    from cpt.config.seal import read_config
    from cpt.export import export_run

    return export_run(run, read_config(run.config))


def test_exported_folder_answers_as_the_engine(trained: RunPaths) -> None:
    record = run_ranks(1, export, trained)[0]
    assert record.logit_difference <= 1e-4
    assert record.step == 5
    assert record.sample.startswith("Package: ")
    assert {"config.json", "tokenizer.json", "model.safetensors.index.json"} <= set(record.files)
    assert ExportRecord.load(trained.export_record) == record
    assert set(record.files) == {path.name for path in trained.export.iterdir()}


def test_a_folder_that_answers_otherwise_is_refused(trained: RunPaths, root: Path) -> None:
    run = RunPaths(root / f"{trained.root.name}-refused")
    run.root.mkdir()
    for path in (trained.config, trained.run, trained.checkpoints):
        (run.root / path.name).symlink_to(path)
    with pytest.raises(RankFailed, match="export refused: logits of the exported folder differ"):
        run_ranks(1, _export_with_swapped_norms, run)
    assert not run.export.exists()
    assert not list(run.root.glob(".export*"))


def _export_with_swapped_norms(world: World, run: RunPaths) -> ExportRecord:
    from safetensors.torch import load_file, save_file

    from cpt.export import export as module

    write = module.write_folder

    def write_wrong(read: object, config: object, base: Path, folder: Path, dtype: object) -> None:
        write(read, config, base, folder, dtype)  # type: ignore[arg-type]
        path = next(folder.glob("*.safetensors"))
        tensors = load_file(path)
        a, b = "model.layers.0.input_layernorm.weight", "model.layers.0.post_attention_layernorm.weight"
        tensors[a], tensors[b] = tensors[b], tensors[a]
        save_file(tensors, path, metadata={"format": "pt"})

    module.write_folder = write_wrong
    return export(world, run)


def test_nothing_is_generated_when_the_model_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cpt.config.compose import compose_parts
    from cpt.export import export as module

    model = compose_parts(["model=llama31_70b"]).model
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * 2**30))
    assert module.continuation(tmp_path, model) == "(nothing generated: the model needs 263 GiB here, 64 GiB are free)"
