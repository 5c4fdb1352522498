"""The page: every number from a file, nothing invented, nothing fetched, nothing injected."""

from __future__ import annotations

import base64
import re
import struct
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from cpt.core.attempts import StopRecord
from cpt.core.errors import MissingInput
from cpt.core.manifest import DataManifest
from cpt.core.paths import RunPaths
from cpt.core.records import BenchmarkScore, EvaluationRecord, SweepTable
from cpt.report.canvas import thin
from cpt.report.facts import read_facts
from cpt.report.headline import headline_cards, warning_list
from cpt.report.results import sweep
from cpt.report.write import SECTIONS, render
from cpt.tracking.journal import Journal
from jobs.report import main

from .conftest import worse


class Balance(HTMLParser):
    """Fails on a tag that is closed and not open; remembers what stayed open and every address."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(run: RunPaths) -> str:
    return render(read_facts(run, ""))


def first_screen(run: RunPaths) -> str:
    facts = read_facts(run, "")
    return warning_list(facts).markup + headline_cards(facts).markup


def test_page_is_whole_well_formed_and_fetches_nothing(full_page: str) -> None:
    text = full_page
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    assert all(address.startswith("data:image/png;base64,") for address in parser.addresses)
    assert "<script" not in text and "@import" not in text and "url(" not in text
    assert "not run" not in text


def test_pictures_are_pngs_of_the_pages_width(full_page: str) -> None:
    images = [base64.b64decode(data) for data in re.findall(r"base64,([^\"]+)", full_page)]
    sizes = [struct.unpack(">II", image[16:24]) for image in images if image.startswith(b"\x89PNG")]
    assert len(sizes) == len(images) == 9
    assert {width for width, _ in sizes} == {1440} and all(300 < height < 1000 for _, height in sizes)


@pytest.mark.parametrize(
    "number",
    [
        "−0.870",  # domain loss 3.92 -> 3.05
        "2.913 → 2.890 nats a token; evaluated at step 40; worst source novels +0.030, limit +0.05",
        "+17.0 ± 4.7",  # 4 forgotten, 21 gained of 100: sqrt(25 - 17^2/100)/100
        "−2.0 ± 2.4",
        "40 / 40 steps",
        "node_lost → requeue; 3 step(s) computed again",
        '<div class="value">145 s</div><div class="detail">node2 lost power at step 23, on purpose',
        "near duplicate 5,310, too short 812, exact duplicate 96",
        "Chosen: trial 002, lowest domain loss of 3 trial(s)",
        "passed: largest logit difference 2.40e-06 of the largest logit, allowed 1e-05",
        "8 complete saves, median 5.8s",
        "cpt launch experiment=demo chosen=demo",
        "optimizer.lr_ratio=0.03,0.3",
        "dequantized from 4 bit",
        "megatron-core 0.19.2",
    ],
)
def test_number_is_there(full_page: str, number: str) -> None:
    assert number in full_page


def test_text_from_files_is_escaped(full_page: str) -> None:
    assert "a small &lt;b&gt;tool&lt;/b&gt;" in full_page and "<b>tool" not in full_page
    assert "&lt;Debian bookworm&gt;" in full_page


def test_what_did_not_run_is_said_and_nothing_is_drawn(bare_run: RunPaths) -> None:
    text = page(bare_run)
    assert "<img" not in text
    assert text.count("not run") >= len(SECTIONS) - 3
    for stage in ("Evaluation before and after", "Prepare", "Training", "Export", "Parity gate", "Sweep", "No attempt has begun"):
        assert f"{stage}: not run" in text
    assert "No SLURM" in text and "The run is not finished: it is at step 0 of 40" in text


def test_without_evaluation_the_numbers_are_those_of_training_and_say_so(full_run: RunPaths) -> None:
    full_run.evaluation("after").unlink()
    text = first_screen(full_run)
    assert "3.920 → 3.050 nats a token; during training, step 40" in text
    assert "benchmarks were not run" in text


def test_too_much_forgetting_is_the_first_thing_said(full_run: RunPaths) -> None:
    worse(EvaluationRecord.load(full_run.evaluation("after")), 0.3105).save(full_run.evaluation("after"))
    text = first_screen(full_run)
    assert "Held-out loss of the general source novels rose by 0.340 nats a token, more than the limit of 0.05." in text
    assert "no general source rose more than +0.040, in the run general source novels by +0.340: the short trial did not foresee it" in text
    assert '<div class="card bad"><div class="label">General held-out loss' in text
    assert text.index("Read this first") < text.index('class="cards"')


def test_stopped_run_is_called_unfinished(full_run: RunPaths) -> None:
    StopRecord(reason="trigger", step=40, attempt=1).save(full_run.stopped)
    assert "it stopped at step 40 (trigger) of 40" in first_screen(full_run)


def test_damaged_record_is_a_warning_and_not_the_end(full_run: RunPaths) -> None:
    full_run.plan.write_text("{")
    full_run.parity.write_text('{"tolerance": 1}')
    text = page(full_run)
    assert "plan.json: not JSON" in text and "parity.json: is not a ParityRecord" in text and "Plan: not run" in text


def test_evaluations_of_other_items_are_not_compared(full_run: RunPaths) -> None:
    after = EvaluationRecord.load(full_run.evaluation("after"))
    score = after.benchmarks[0]
    fewer = BenchmarkScore(**{**score.as_dict(), "correct": dict(list(score.correct.items())[:-1])})
    replace(after, benchmarks=[fewer, *after.benchmarks[1:]]).save(full_run.evaluation("after"))
    assert "cannot be compared: quiz: 1 item(s) in only one of the two" in first_screen(full_run)


def test_benchmark_at_chance_and_substituted_data_are_warned_about(full_run: RunPaths) -> None:
    for label in ("before", "after"):
        record = EvaluationRecord.load(full_run.evaluation(label))
        scores = [replace(score, accuracy=0.26) for score in record.benchmarks]
        replace(record, benchmarks=scores).save(full_run.evaluation(label))
    paths = read_facts(full_run, "").config.runs.data("demo")
    manifest = DataManifest.load(paths.manifest)
    first = replace(manifest.sources[0], origin="fallback (no mirror): tests/assets/listings.jsonl")
    replace(manifest, sources=[first, *manifest.sources[1:]]).save(paths.manifest)
    text = first_screen(full_run)
    assert "Benchmark quiz is at chance level (25%)" in text
    assert "Source listings is a substitute: fallback (no mirror)" in text


def test_mixture_that_was_not_read_as_planned_is_warned_about(full_run: RunPaths) -> None:
    facts = read_facts(full_run, "")
    last = facts.rows[-2]
    assert "data/tokens/listings" in last.values
    last.values["data/tokens/listings"] = 40_000.0
    assert "Source listings was read as 66.1% of tokens, planned were 50.0%." in warning_list(facts).markup


def test_sweep_of_one_axis_with_a_failed_trial_and_unknown_base(full_run: RunPaths) -> None:
    path = read_facts(full_run, "").config.runs.sweep("demo").table
    table = SweepTable.load(path)
    rows = [replace(row, settings={"optimizer.lr_ratio": row.index, "mixture.domain_share": 0.5}) for row in table.rows]
    rows[0] = replace(rows[0], state="failed", domain_loss=None, general_loss=None)
    replace(table, rows=rows, base_domain_loss=None, base_general_loss=None).save(path)
    text = sweep(read_facts(full_run, "")).markup
    assert "Held-out loss of each trial" in text and ">failed<" in text


def test_a_sweep_named_on_the_command_line_is_shown(full_run: RunPaths, capsys: pytest.CaptureFixture[str]) -> None:
    facts = read_facts(full_run, "")
    old, new = facts.config.runs.sweep("demo"), facts.config.runs.sweep("other")
    new.root.mkdir()
    replace(SweepTable.load(old.table), name="other").save(new.table)
    assert main(["--run", str(full_run.root), "--sweep", "other"]) == 0
    assert str(full_run.report) in capsys.readouterr().out
    assert "Sweep other, 4 trials" in full_run.report.read_text()


def test_folder_that_is_no_run_is_the_users_error(tmp_path: object) -> None:
    with pytest.raises(MissingInput, match=r"config\.yaml"):
        main(["--run", str(tmp_path)])


def test_thinning_keeps_every_spike() -> None:
    points = [(float(step), 1.0) for step in range(100_000)]
    points[54_321], points[99_999] = (54_321.0, 9.0), (99_999.0, -3.0)
    xs, ys = thin(points)
    assert len(xs) <= 2000 and (54_321.0, 9.0) in set(zip(xs, ys, strict=True)) and min(ys) == -3.0
    assert xs == sorted(xs)
    assert thin(points[:50])[0] == [float(step) for step in range(50)]


def test_a_loss_that_nobody_timed_is_measured_from_the_last_sign_of_life(full_run: RunPaths) -> None:
    full_run.drill.unlink()
    assert '<div class="value">148 s</div><div class="detail">from the last step to the next' in first_screen(full_run)


def test_a_forgotten_source_is_not_hidden_by_one_that_gains(full_run: RunPaths) -> None:
    after = EvaluationRecord.load(full_run.evaluation("after"))
    moved = {"dictionary": -0.9, "man_de": +0.4}
    replace(after, losses=[replace(loss, loss=loss.loss + moved.get(loss.name, 0.0)) for loss in after.losses]).save(full_run.evaluation("after"))
    text = first_screen(full_run)
    assert "general source man_de rose by 0.360" in text
    assert '<div class="card bad"><div class="label">General held-out loss</div><div class="value">−0.147' in text
    full_run.evaluation("after").unlink()
    worst = read_facts(full_run, "").forgotten()
    assert worst and worst[0] == "novels" and worst[1] == pytest.approx(0.03)


def test_a_run_without_the_chosen_setting_says_so(full_run: RunPaths) -> None:
    assert "does not have the setting" not in first_screen(full_run)
    path = read_facts(full_run, "").config.runs.sweep("demo").table
    replace(SweepTable.load(path), chosen=0).save(path)
    assert "does not have the setting that the sweep chose: optimizer.lr_ratio is 0.3, chosen was 0.03." in first_screen(full_run)


def test_updates_that_stood_out_are_listed_once_and_marked(full_run: RunPaths) -> None:
    assert "Updates that stood out" not in page(full_run)
    worst = [{"sample": 93, "loss": "nan", "source": "listings", "documents": [17]}, {"sample": 94, "loss": 9.1, "source": "<novels>", "documents": [2]}]
    with Journal(full_run, 1) as journal:
        for step, kind, action, loss in ((24, "non_finite", "skip", "nan"), (24, "non_finite", "skip", "nan"), (31, "loss_spike", "rollback", 9.25)):
            fields = {"why": f"loss {loss}", "loss": loss, "grad_norm": 2.5, "worst": worst}
            journal.event("anomaly", kind=kind, action=action, step=step, samples=[4 * step - 4, 4 * step], **fields)
        journal.event("rollback", step=20, checkpoint="step_00000020", skipped=[120, 124], rollbacks=1, generators="exact")
    text = page(full_run)
    assert "2 update(s), all here" in text and "Rolled back to step 20; samples 120 to 123 were never read again." in text
    assert "non finite" in text and "93 of listings, 94 of &lt;novels&gt;" in text and "120 to 123" in text and "9.250" in text
