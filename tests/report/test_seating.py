"""The report's section about switches: there where ranks were seated by them, absent where one switch joins all."""

from __future__ import annotations

from pathlib import Path

from cpt.config.compose import compose_config
from cpt.config.seal import to_yaml
from cpt.core.artifacts import write_text
from cpt.core.paths import RunPaths
from cpt.report.facts import read_facts
from cpt.report.seating import seating
from cpt.topology.fabric import Fabric, Kind
from cpt.topology.seats import seats


def test_a_run_over_two_leaves_shows_its_seats(tmp_path: Path) -> None:
    config = compose_config(["experiment=demo", f"run_root={tmp_path}", "slurm.nodes=4", "slurm.spare_nodes=0"])
    run = RunPaths(tmp_path / "run")
    write_text(run.config, to_yaml(config))
    assert seating(read_facts(run, "")).markup == ""
    wires = Fabric(kind=Kind.tree, paths={f"node{n}": ("spine", f"leaf{n % 2}") for n in range(1, 5)})
    found = seats(["node1", "node2", "node3", "node4"], wires, config)
    assert found and found.ordered
    found.save(run.attempt(0).seats)
    markup = seating(read_facts(run, "")).markup
    assert "Ranks ordered by switches: pipeline neighbors" in markup
    assert "data:image/png;base64," in markup
