"""Where points go: one sqlite file beside the runs, or a server. Nothing is imported from mlflow until it is needed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpt.config.run import RunConfig
from cpt.core.errors import Problem, UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient


def tracking_uri(config: RunConfig) -> str:
    """The configured server, or the sqlite file below the run root."""
    return config.tracking.uri or _sqlite(config.runs.tracking_database)


def ensure_store(config: RunConfig) -> None:
    """Create the database and the experiment once, at the first sync: nothing that is submitted waits for it. Costs nothing when it exists.

    It is built aside and linked into place, so nobody ever sees a half-migrated one (concurrent migrations of one new
    sqlite file fail). A server is left alone here: it makes its own.
    """
    database = config.runs.tracking_database
    if not config.tracking.enabled or config.tracking.uri or database.exists():
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    temp = database.with_name(f".{database.name}.{os.getpid()}.tmp")
    temp.unlink(missing_ok=True)
    try:
        experiment_id(connect(_sqlite(temp)), config)
        _close(temp)
        os.link(temp, database)
    except FileExistsError:
        pass  # another process was faster; its database is the one
    finally:
        temp.unlink(missing_ok=True)


def connect(uri: str) -> MlflowClient:
    """A client with short retries: the defaults block four minutes on a dead server. Raises `UserError` without mlflow."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    missing = [name for name in ("mlflow", *(["sqlalchemy"] if uri.startswith("sqlite") else [])) if importlib.util.find_spec(name) is None]
    if missing:
        fix = 'uv pip install -e ".[tracking]", tracking.uri=http://<server>, or tracking=none'
        raise UserError(Problem(where="tracking.uri", what=f"{uri} needs {missing[0]}", why="the base installs only MLflow's client", fix=fix))
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


def experiment_id(client: MlflowClient, config: RunConfig) -> str:
    """The experiment's id, created if missing. Not `set_experiment`, which may fall back to `Default` in a race."""
    from mlflow.exceptions import MlflowException

    name = config.tracking.experiment
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    # A server has its own place for artifacts; sqlite would put them into the working directory.
    place: dict[str, Any] = {} if config.tracking.uri else {"artifact_location": (config.runs.root / "mlflow-artifacts").as_uri()}
    try:
        return str(client.create_experiment(name, **place))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return experiment_id(client, config)


def _sqlite(database: Path) -> str:
    return f"sqlite:///{database.absolute()}"


def _close(database: Path) -> None:
    """Fold the write-ahead log into the file, which is about to get its real name."""
    import sqlite3

    connection = sqlite3.connect(database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()
