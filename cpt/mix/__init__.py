"""Shares of tokens, planned and refused before a run exists."""

from cpt.mix.caps import PARTS, part_of
from cpt.mix.plan import plan_mixture

__all__ = ["PARTS", "part_of", "plan_mixture"]
