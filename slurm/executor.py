"""submitit's SLURM executor, for one callable that all tasks of an array share."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import DelayedSubmission, FailedJobError

from cpt.config.run import RunConfig
from slurm import script
from slurm.client import SlurmFailed

_PICKLE = "task.pkl"


class ArrayExecutor(submitit.SlurmExecutor):
    """Everything that a task needs is in place before sbatch is called, so its submitter may die right after.

    submitit's own arrays have a pickle per task, which get their names when the job id is known: a launcher that dies meanwhile loses the
    array. Here each task links the one pickle to the name under which submitit looks for it.
    """

    def submit_tasks(self, function: Callable[[], Any], tasks: int) -> str:
        """Queue an array of `tasks` tasks; returns its job id. Raises `SlurmFailed` with what sbatch says."""
        self.folder.mkdir(parents=True, exist_ok=True)
        delayed = DelayedSubmission(function)
        delayed.set_timeout(self.parameters["time"], 0)
        delayed.dump(self.folder / _PICKLE)
        self.parameters |= {"map_count": tasks, "setup": [*self.parameters["setup"], _link(self.folder)]}
        try:
            return str(self._submit_command(self._submitit_command_str).job_id)
        except FailedJobError as error:
            raise SlurmFailed(f"sbatch: {str(error).strip()}") from None


def _link(folder: Path) -> str:
    own = shlex.quote(f"{folder}/") + '"${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}_submitted.pkl"'
    return f"ln -sfn {_PICKLE} {own}"


def parameters(config: RunConfig, name: str, options: Mapping[str, str]) -> dict[str, Any]:
    """submitit's words for an array whose tasks are started by the batch shell; `options` are sbatch's own, an empty value is a switch."""
    return {
        "job_name": name,
        "time": max(1, round(config.slurm.minutes)),
        "array_parallelism": config.slurm.array_parallelism,
        "stderr_to_stdout": True,
        "setup": list(script.setup(config)),
        "use_srun": False,
        "wckey": None,
        "additional_parameters": {option: value or True for option, value in options.items()},
    }
