"""What must be true before a run directory exists, and what lies in it: glue between the rooms that know."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from cpt.config.compose import compose_config
from cpt.config.fingerprint import fingerprint
from cpt.config.run import RunConfig
from cpt.config.seal import Texts, read_config
from cpt.core.artifacts import json_text, write_all
from cpt.core.errors import MissingInput, Problem, UserError
from cpt.core.manifest import DataManifest
from cpt.core.paths import RunPaths
from cpt.core.records import MixturePlan, PlanRecord, RunRecord
from cpt.topology import Hint
from slurm.script import Origin, render

_VERSIONS = ("cpt", "hydra-core", "submitit", "torch", "megatron-core", "transformers", "numpy")


@dataclass(frozen=True)
class Prepared:
    """A config that fits its data, its base and its machines."""

    config: RunConfig
    text: str
    """The config as YAML."""
    plan: PlanRecord
    record: RunRecord

    def write(self, run: RunPaths, hint: Hint | None = None) -> None:
        """The sealed config last: a directory that has one is whole. Whoever shares the owner's group may pull a trigger."""
        run.triggers.mkdir(parents=True, exist_ok=True)
        run.triggers.chmod(0o2775)
        files = {
            run.run: json_text(self.record.as_dict()),
            run.plan: json_text(self.plan.as_dict()),
            run.script: render(self.config, run, Origin(), hint=hint),
            run.config: self.text,
        }
        write_all({path: text.encode() for path, text in files.items()})


def prepare(config: RunConfig) -> Prepared:
    """Manifest, mixture, plan. Raises `UserError` with what is missing or cannot work; writes nothing."""
    return Preparer()(config)


class Preparer:
    """`prepare` for many configs: what several of them share, as trials of a sweep do, is looked at once."""

    def __init__(self) -> None:
        self._texts = Texts()
        self._manifests: dict[tuple[object, ...], tuple[RunConfig, DataManifest]] = {}
        self._mixtures: dict[tuple[object, ...], tuple[RunConfig, MixturePlan]] = {}
        self._versions = _versions(_VERSIONS)

    def __call__(self, config: RunConfig) -> Prepared:
        """As `prepare`."""
        from cpt.plan import plan

        mixture = self._mixture(config)
        record = RunRecord(
            name=config.name,
            fingerprint=fingerprint(config),
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            command=command(),
            versions=self._versions,
            mixture=mixture,
        )
        return Prepared(config, self._texts.of(config), plan(config, mixture), record)

    def _mixture(self, config: RunConfig) -> MixturePlan:
        """Sections are told apart by identity: each record keeps the config whose sections it was made from."""
        from cpt.mix import plan_mixture

        manifest = self._manifest(config)
        tokens, length = config.train.train_tokens, config.train.sequence_length
        key = (id(manifest), id(config.mixture), tokens, length)
        if key not in self._mixtures:
            self._mixtures[key] = (config, plan_mixture(config.mixture, manifest, tokens, length))
        return self._mixtures[key][1]

    def _manifest(self, config: RunConfig) -> DataManifest:
        from cpt.data import open_manifest

        key = (config.run_root, id(config.corpus), id(config.model))
        if key not in self._manifests:
            _require_base(config)
            self._manifests[key] = (config, open_manifest(config))
        return self._manifests[key][1]


def open_single(overrides: Sequence[str]) -> tuple[RunConfig, RunPaths]:
    """Config and directory of a run of one rank, made if it is not there. Raises `UserError` when the config wants more ranks."""
    config = compose_config(overrides)
    if config.slurm.world_size > 1:
        why = f"slurm.nodes x slurm.tasks_per_node is {config.slurm.world_size} ranks"
        raise UserError(
            Problem(where="cpt train", what="starts one rank, here", why=why, fix="cpt launch, or slurm.nodes=1 slurm.tasks_per_node=1 parallel=single")
        )
    run = config.runs.run(config.name, fingerprint(config))
    if not run.config.is_file():
        prepare(config).write(run)
    return read_config(run.config), run


def command() -> list[str]:
    """What the user typed."""
    return ["cpt", *sys.argv[1:]]


def _require_base(config: RunConfig) -> None:
    folder = config.runs.base(config.model.name)
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise MissingInput(path=folder, why=f"the weights of {config.model.name} start the run", fix=f"cpt base model={config.model.name}")


def _versions(names: Sequence[str]) -> dict[str, str]:
    """Read from the installed packages' metadata, which imports nothing."""
    installed = {found.metadata["Name"].lower(): found.version for found in metadata.distributions()}
    return {name: installed[name] for name in names if name in installed}
