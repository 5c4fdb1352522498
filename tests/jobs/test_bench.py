"""`cpt bench`: one verb, several benches; what each answers is shown and kept with its command and machine."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import ClassVar

import pytest

from cpt.bench.figures import Figures, Say, machine, take_options, whole_number
from cpt.core.errors import UserError
from jobs import bench, launch_bench


class Stub:
    """A bench that measures nothing."""

    OPTIONS: ClassVar = {"pairs": "5"}

    @staticmethod
    def run(options: dict[str, str], overrides: list[str], say: Say) -> Figures:
        say("pair 1 of 2")
        return Figures(columns=("a", "b"), rows=[("one", "[2]")], data={"options": options, "overrides": overrides}, notes=["a note"])


def test_shows_and_keeps_what_was_measured_with_command_and_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(bench.BENCHES, "stub", "stub")
    monkeypatch.setattr(importlib, "import_module", lambda _name: Stub)
    saved = tmp_path / "deep" / "stub.json"
    assert bench.main(["stub", "pairs=2", "model=tiny", f"save={saved}"]) == 0
    shown, kept = capsys.readouterr().out, json.loads(saved.read_text())
    assert all(text in shown for text in ("cpt bench stub pairs=2 model=tiny", "pair 1 of 2", "one", "[2]", "a note", "processor", str(saved)))
    assert kept["options"]["pairs"] == "2" and kept["overrides"] == ["model=tiny"]
    assert kept["command"].startswith("cpt bench stub pairs=2") and kept["machine"] == machine()


@pytest.mark.parametrize("name", bench.BENCHES)
def test_every_bench_is_there(name: str) -> None:
    module = importlib.import_module(bench.BENCHES[name])
    assert callable(module.run) and all(isinstance(value, str) for value in module.OPTIONS.values())
    assert (module.__doc__ or "").startswith(f"`cpt bench {name}`")


@pytest.mark.parametrize("arguments", [[], ["fly"]])
def test_unknown_names_are_refused_with_the_list(arguments: list[str]) -> None:
    with pytest.raises(UserError, match="cpt bench launch"):
        bench.main(arguments)


def test_options_are_not_overrides() -> None:
    assert take_options({"pairs": "5", "steps": "2"}, ["steps=3", "model=tiny", "train.pairs=1"]) == (
        {"pairs": "5", "steps": "3"},
        ["model=tiny", "train.pairs=1"],
    )
    assert whole_number({"pairs": "5"}, "pairs") == 5
    for wrong in ("0", "-1", "x", ""):
        with pytest.raises(UserError, match="pairs"):
            whole_number({"pairs": wrong}, "pairs")


def test_launch_takes_even_numbers_of_trials() -> None:
    assert launch_bench.trials_of(launch_bench.OPTIONS) == [100, 1000]
    for wrong in ("3", "0", "x", "2,"):
        with pytest.raises(UserError):
            launch_bench.trials_of({"trials": wrong})
