"""What can be chosen composes; what cannot is refused with the path, the rule and what to type."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.config import RunConfig
from cpt.config.compose import CONFIG_FOLDER, compose_config
from cpt.config.fingerprint import fingerprint
from cpt.config.seal import read_config, to_yaml
from cpt.config.section import Sealed
from cpt.core.artifacts import write_text
from cpt.core.errors import EXIT_YOURS, MissingInput, Problem, UserError

CHOICES = [
    f"{path.parent.relative_to(CONFIG_FOLDER)}={path.stem}"
    for path in sorted(CONFIG_FOLDER.rglob("*.yaml"))
    if path.parent != CONFIG_FOLDER and path.parent.name != "experiment"
]
EXPERIMENTS = [path.stem for path in sorted((CONFIG_FOLDER / "experiment").glob("*.yaml")) if path.stem != "none"]


def problems(*overrides: str) -> list[Problem]:
    """Everything that is wrong with these, on top of the demo."""
    with pytest.raises(UserError) as caught:
        compose_config(["experiment=demo", *overrides])
    assert caught.value.exit_code == EXIT_YOURS
    return list(caught.value.problems)


def one_problem(*overrides: str) -> Problem:
    found = problems(*overrides)
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes(experiment: str) -> None:
    config = compose_config([f"experiment={experiment}"])
    assert config.train.steps > 0
    with pytest.raises(Sealed):
        config.seed = 2


@pytest.mark.parametrize("choice", CHOICES)
def test_every_group_file_composes(choice: str) -> None:
    """Each is read into its typed section, also where it does not fit the rest of the demo."""
    try:
        compose_config(["experiment=demo", choice])
    except UserError as error:
        shapes = ("parallel.", "slurm.nodes", "train.sequence_length", "train.global_batch_size")
        assert all(problem.where.startswith(shapes) for problem in error.problems), error


def test_sealed_config_reads_back_equal(tmp_path: Path) -> None:
    config = compose_config(["experiment=demo", "+mixture.weights.listings=2", "optimizer.lr_ratio=0.3"])
    write_text(tmp_path / "config.yaml", to_yaml(config))
    again = read_config(tmp_path / "config.yaml")
    assert again == config
    assert fingerprint(again) == fingerprint(config)


def test_edited_run_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with pytest.raises(MissingInput):
        read_config(path)
    write_text(path, to_yaml(compose_config(["experiment=demo"])))
    path.write_text(path.read_text() + "surprise: 1\n")
    with pytest.raises(UserError, match="surprise"):
        read_config(path)


def test_fingerprint_is_of_what_changes_results() -> None:
    def of(*overrides: str) -> str:
        return fingerprint(compose_config(["experiment=demo", *overrides]))

    base = of()
    assert of("name=other", "checkpoint.interval=7", "slurm.time=1:00:00", "train.micro_batch_size=1", "tracking=none") == base
    changed = [of("optimizer.lr_ratio=0.2"), of("seed=5"), of("mixture=domain_heavy"), of("train.train_tokens=20480"), of("schedule=constant")]
    assert len({base, *changed}) == 6


def test_chosen_configs_below_the_run_root_are_found(tmp_path: Path) -> None:
    chosen = tmp_path / "conf" / "chosen" / "mine.yaml"
    chosen.parent.mkdir(parents=True)
    chosen.write_text("# @package _global_\noptimizer:\n  lr_ratio: 0.123\n")
    config = compose_config(["experiment=demo", f"run_root={tmp_path}", "chosen=mine"])
    assert config.optimizer.lr_ratio == 0.123
    assert one_problem(f"run_root={tmp_path}", "chosen=nobody").where == "chosen"


@pytest.mark.parametrize("plus", ["", "+", "++"])
@pytest.mark.parametrize("key", ["x", "train.x", "model.rope_scaling.x"])
def test_unknown_key_at_any_depth(plus: str, key: str) -> None:
    found = one_problem(f"{plus}{key}=1")
    assert (found.where, found.what) == (key, "unknown key")


def test_unknown_key_says_what_was_meant() -> None:
    assert one_problem("train.global_batch=4") == Problem(
        where="train.global_batch",
        what="unknown key",
        why="train has global_batch_size, micro_batch_size, sequence_length, train_tokens, precision, fp8, attention, attention_dropout, hidden_dropout, "
        "document_masking, anomaly, stats_interval",
        fix="train.global_batch_size=<value>",
    )
    assert one_problem("train.lr_ratio=1").fix == "optimizer.lr_ratio=<value>"
    assert one_problem("corpus.sources.listings.color=red").why.startswith("corpus.sources.listings has group, language, reader")


def test_wrong_type() -> None:
    assert one_problem("train.train_tokens=abc") == Problem(
        where="train.train_tokens", what="is 'abc'", why="must be a whole number", fix="train.train_tokens=<a whole number>"
    )
    assert one_problem("train.precision=fp8") == Problem(
        where="train.precision", what="is 'fp8'", why="is not one of its choices", fix="train.precision=fp32 or bf16"
    )
    assert one_problem("slurm.exclude=node1").fix == "slurm.exclude=[<value>,<value>]"
    assert one_problem("+mixture.weights.listings=a").why == "must be a number"


def test_unknown_choice_lists_the_choices() -> None:
    found = one_problem("optimizer=adam")
    assert (found.where, found.what, found.fix) == ("optimizer", "has no choice 'adam'", "optimizer=adamw")
    assert "demo" in one_problem("experiment=demos").fix


def test_what_only_a_sweep_takes() -> None:
    assert one_problem("optimizer.lr_ratio=0.1,0.3").fix == "cpt train -m optimizer.lr_ratio=0.1,0.3"


def test_unreadable_override_and_new_entries() -> None:
    assert one_problem("seed=[1").what == "cannot be read"
    assert one_problem("mixture.weights.listings=2").fix == "+mixture.weights.listings=<value>"
    assert one_problem("+corpus.sources.mine={reader: jsonl}").where == "corpus.sources.mine"


def test_all_problems_at_once() -> None:
    found = problems("train.micro_batch_size=0", "optimizer.lr_ratio=-1", "name=a/b", "slurm.time=soon", "evaluate.parity_tolerance=0")
    assert {problem.where for problem in found} == {"train.micro_batch_size", "optimizer.lr_ratio", "name", "slurm.time", "evaluate.parity_tolerance"}
    assert "train.micro_batch_size=<a positive number>" in {problem.fix for problem in found}


def test_a_default_config_is_not_a_run() -> None:
    assert RunConfig().train.steps == 0
    with pytest.raises(UserError, match="train_tokens"):
        compose_config(["experiment=none"])
