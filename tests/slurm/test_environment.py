"""Who a rank is, from SLURM's variables or the supervisor's."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpt.core.errors import UserError
from cpt.core.paths import RunPaths
from slurm.environment import attempt_from_environment, deadline_from_environment, master_port, world_from_environment

STEP = {
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURMD_NODENAME": "node2",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "20131",
}
SUPERVISED = {"RANK": "2", "LOCAL_RANK": "2", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "20001"}


def test_a_task_of_srun() -> None:
    world = world_from_environment(STEP)
    assert (world.rank, world.local_rank, world.world_size) == (4, 1, 6)
    assert (world.master_addr, world.master_port, world.node_name) == ("node1", 20131, "node2")


def test_a_rank_of_the_supervisor_even_inside_a_job() -> None:
    world = world_from_environment(STEP | SUPERVISED)
    assert (world.rank, world.local_rank, world.world_size, world.master_port) == (2, 2, 4, 20001)


def test_a_batch_script_is_no_rank() -> None:
    batch = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "6"}
    assert world_from_environment(batch).world_size == 1
    assert world_from_environment({}).world_size == 1


def test_a_world_of_one_needs_no_meeting_point() -> None:
    alone = {name: value for name, value in STEP.items() if not name.startswith("MASTER")} | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}
    assert world_from_environment(alone).master_port == 0


@pytest.mark.parametrize("missing", ["MASTER_ADDR", "MASTER_PORT", "SLURM_STEP_NUM_TASKS"])
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(UserError, match=missing):
        world_from_environment({name: value for name, value in STEP.items() if name != missing})


def test_what_is_no_number_is_named() -> None:
    with pytest.raises(UserError, match="SLURM_LOCALID"):
        world_from_environment(STEP | {"SLURM_LOCALID": "one"})


def test_the_attempt_is_the_scripts_or_the_next_free(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    assert attempt_from_environment(run, {}) == 0
    run.attempt(8).root.mkdir(parents=True)
    assert attempt_from_environment(run, {}) == 9
    assert attempt_from_environment(run, {"CPT_ATTEMPT": "008"}) == 8, "not octal"


def test_the_deadline_is_the_supervisors() -> None:
    assert deadline_from_environment({}) is None, "no time limit"
    assert deadline_from_environment({"CPT_DEADLINE": "1795000000"}) == 1_795_000_000.0
    with pytest.raises(UserError, match="CPT_DEADLINE"):
        deadline_from_environment({"CPT_DEADLINE": "soon"})


def test_ports_differ_between_jobs_and_attempts() -> None:
    ports = {master_port(job, attempt) for job in ("7", "8_0", "8_1") for attempt in range(20)}
    assert len(ports) == 60
    assert all(20_000 <= port < 30_000 for port in ports)
