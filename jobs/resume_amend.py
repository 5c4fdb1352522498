"""`cpt resume RUN key=value ...`: the amendment that these settings are, shown by a check and written by a resume."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence

from cpt.config.amend import amended, changes
from cpt.config.history import History
from cpt.config.seal import to_yaml
from cpt.core.amendments import Amendment, Amendments
from cpt.core.artifacts import json_text, write_all
from cpt.core.errors import Problem, UserError
from cpt.core.manifest import DataManifest
from cpt.core.paths import RunPaths
from cpt.data import open_manifest
from cpt.data.mixture import changed_sources
from cpt.mix import plan_mixture
from cpt.plan import plan
from jobs.resume_check import Resume, with_corpus
from slurm import standing, submit
from slurm.script import Origin, render
from slurm.standing import State


def propose(found: Resume, overrides: Sequence[str], accept: bool) -> Resume:
    """The run as it would go on; the same when nothing changes. Raises `UserError` with what may not change or does not fit.

    Amendments after the checkpoint, of a run that went back before them, are taken up in the new one.
    """
    config = amended(found.config, overrides)
    manifest, past, train = open_manifest(config), found.history.kept(found.step), config.train
    since = dataclasses.replace(found, config=config, history=past)
    exchanged = changed_sources(since.mixture, manifest)
    if problems := list(_problems(since, manifest, [] if accept else exchanged)):
        raise UserError(problems)
    changed = changes(past.configs[-1], config)
    if not changed and not exchanged:
        return found
    tokens = found.position.tokens
    amendment = Amendment(
        time=time.time(),
        step=found.step,
        sample=found.position.next_sample,
        changes=changed,
        mixture=plan_mixture(config.mixture, manifest, train.train_tokens, train.sequence_length, tokens),
        tokens=tokens,
        learning_rate=past.rate(found.step - 1) if found.step else 0.0,
        accepted=[name for name in exchanged if tokens.get(name)],
    )
    return with_corpus(dataclasses.replace(since, history=History([*past.configs, config], [*past.amendments, amendment]), problems=()))


def write(found: Resume) -> None:
    """Make the last amendment of `found` the run's: its config, plan and script, with every config that was sealed before kept."""
    run, config, amendments = found.run, found.config, list(found.history.amendments)
    text = to_yaml(config)
    files = {
        run.sealed_config(0): to_yaml(found.history.configs[0]),
        run.sealed_config(len(amendments)): text,
        run.plan: json_text(plan(config, found.mixture).as_dict()),
        run.script: render(config, run, Origin(), hint=submit.compact(config)),
        run.config: text,
        run.amendments: json_text(Amendments(amendments=amendments).as_dict()),
    }
    write_all({path: content.encode() for path, content in files.items()})
    if submit.is_done(run) and found.step < config.train.steps:
        run.stopped.unlink()  # it was done with a smaller budget


def require_idle(run: RunPaths) -> None:
    """Raises `UserError` while an attempt may read what is about to change."""
    if (known := standing.of_run(run)).state in (State.running, State.queued):
        fix = f"touch {run.triggers}/stop, wait until it has saved, then again"
        raise UserError(Problem(where=run.root.name, what=f"is {known.state}", why="its settings cannot be exchanged under way", fix=fix))


def _problems(since: Resume, manifest: DataManifest, exchanged: Sequence[str]) -> Iterator[Problem]:
    """`since` has the config that is asked for, and the past up to its checkpoint."""
    steps, root = since.config.train.steps, since.run.root
    if steps <= since.step and steps != since.history.configs[-1].train.steps:
        least = (since.step + 1) * since.config.train.tokens_per_step
        what = f"is {since.config.train.train_tokens}, {steps} steps"
        yield Problem(where="train.train_tokens", what=what, why=f"{since.step} steps are done", fix=f"train.train_tokens={least} or more")
    here = {source.name for source in manifest.sources}
    for name in exchanged:
        if name in here:
            why = "the corpus was prepared again; what was read of it could not be told from what was not"
            fix = f"restore the corpus; or cpt resume {root} --accept-changed-data"
            yield Problem(where=f"corpus.sources.{name}", what="has other tokens than those trained on", why=why, fix=fix)
