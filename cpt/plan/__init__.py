"""What a run will be and cost, before a GPU is taken; refuses what cannot fit, with what would. Torch-free, milliseconds.

`flops` and `memory` are formulas of a model and a layout, `shapes` searches layouts with them, `plan` puts it all in a
`PlanRecord`, `table` writes that for people.
"""

from cpt.plan.plan import plan, unprepared
from cpt.plan.table import rows

__all__ = ["plan", "rows", "unprepared"]
