"""`History`: a run's configs over its steps, as launched and as amended; and the learning rate that follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cpt.config.amend import RATE
from cpt.config.run import RunConfig
from cpt.config.schedule import learning_rate, rewarmed
from cpt.config.seal import read_config
from cpt.core.amendments import Amendment, Amendments
from cpt.core.errors import Problem, UserError
from cpt.core.paths import RunPaths


@dataclass(frozen=True, slots=True)
class History:
    """`configs[0]` as launched, `configs[k + 1]` as sealed by `amendments[k]`."""

    configs: Sequence[RunConfig]
    amendments: Sequence[Amendment]

    def in_force(self, step: int) -> tuple[RunConfig, Amendment | None]:
        """Whose learning rate update `step` (0-based) has: amendments that do not concern the rate leave its curve alone."""
        found: tuple[RunConfig, Amendment | None] = (self.configs[0], None)
        for amendment, sealed in zip(self.amendments, self.configs[1:], strict=True):
            if amendment.step <= step and any(change.key.startswith(RATE) for change in amendment.changes):
                found = (sealed, amendment)
        return found

    def rate(self, step: int) -> float:
        """Of update `step`: from an amendment on, over its `schedule.rewarm_steps`, from the rate before it to the new curve."""
        config, amendment = self.in_force(step)
        rate = learning_rate(step, config.train.steps, config.peak_lr, config.schedule)
        if amendment is None or amendment.step == 0:
            return rate
        return rewarmed(step, amendment.step, amendment.learning_rate, rate, config.schedule.rewarm_steps)

    def starting(self, step: int) -> list[Amendment]:
        """Those that take hold with update `step`."""
        return [amendment for amendment in self.amendments if amendment.step == step]

    def kept(self, step: int) -> History:
        """Without what was amended after `step`: the past of a run that goes on from there in another way."""
        amendments = [amendment for amendment in self.amendments if amendment.step <= step]
        return History(self.configs[: len(amendments) + 1], amendments)


def read_history(run: RunPaths) -> History:
    """Raises `UserError` when `config.yaml` is not what the last amendment sealed: it was edited, or a kill came between two files."""
    amendments = Amendments.of(run).amendments
    last = run.sealed_config(len(amendments))
    if last.is_file() and last.read_bytes() != run.config.read_bytes():
        why = "a run's settings are changed with cpt resume RUN key=value, which writes both"
        raise UserError(Problem(where=str(run.config), what=f"differs from {last}", why=why, fix=f"cp {last} {run.config}"))
    if not amendments:
        return History([read_config(run.config)], [])
    return History([read_config(run.sealed_config(number)) for number in range(len(amendments) + 1)], amendments)
