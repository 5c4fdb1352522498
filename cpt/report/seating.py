"""The section about switches: which node of the last attempt has which ranks, and what their order brought."""

from __future__ import annotations

from cpt.report import topology_picture
from cpt.report.facts import Facts
from cpt.report.page import EMPTY, Html, picture, section
from cpt.topology.layout import from_config
from cpt.topology.seats import Seats


def seating(facts: Facts) -> Html:
    """Nothing where one switch joins all nodes, or where nobody knows."""
    kept = [attempt.seats for attempt in facts.run.attempts() if attempt.seats.is_file()]
    if not kept:
        return EMPTY
    seats = Seats.load(kept[-1])
    orders = {"SLURM's": seats.by_slurm, "ours": seats.nodes} if seats.ordered else {"SLURM's": seats.by_slurm}
    drawn = topology_picture.fabric(orders, seats.fabric, from_config(facts.config))
    return section("Ranks and switches", picture(drawn, "Nodes under their switches, by pipeline."), lead=f"{seats.line[0].upper()}{seats.line[1:]}.")
