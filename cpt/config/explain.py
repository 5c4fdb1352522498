"""What Hydra and OmegaConf say, as one problem in three parts: the dotted path, the rule, what to type."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from cpt.config.run import RunConfig
from cpt.config.section import Section
from cpt.core.errors import Problem

_KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "String": "text"}


def explain(error: Exception, overrides: Sequence[str] = ()) -> Problem:
    """One problem for any error of composing `overrides`."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    text = str(cause).strip()
    if isinstance(cause, MissingConfigException):
        return _no_choice(str(cause.missing_cfg_file), list(cause.options or []))
    if isinstance(cause, OverrideParseException):
        return Problem(
            where=cause.override, what="cannot be read", why=text.splitlines()[0], fix="section.key=value, with quotes around values that hold = or ,"
        )
    if ambiguous := re.search(r"argument '([^=']+)=([^']*)'", text):
        path, values = ambiguous.groups()
        return Problem(where=path, what=f"is {values}", why="one run has one value; only a sweep takes several", fix=f"cpt train -m {path}={values}")
    path = _full_path(str(getattr(cause, "full_key", None) or "config"), overrides)
    if "not in struct" in text:
        return Problem(where=path, what="is a new entry", why="entries are added with a plus sign", fix=f"+{path}=<value>")
    if "Key '" in text:
        return _unknown_key(path, getattr(cause, "object_type", None))
    return _wrong_value(path, text.splitlines()[0])


def _full_path(path: str, overrides: Sequence[str]) -> str:
    """OmegaConf names only the last part of some keys; the override that was typed has all of them."""
    typed = [override.partition("=")[0].lstrip("+~") for override in overrides]
    return next((key for key in typed if key.endswith(f".{path}") or f".{path}." in key), path)


def _no_choice(missing: str, options: list[str]) -> Problem:
    group, _, name = missing.rpartition("/")
    options = options or ["none"]
    return Problem(
        where=group,
        what=f"has no choice {name!r}",
        why=f"the choices are {', '.join(options)}: the files of hydra_conf/{group}/",
        fix=f"{group}={next(iter(difflib.get_close_matches(name, options, n=1)), options[0])}",
    )


def _unknown_key(path: str, owner: object) -> Problem:
    """`owner` is the type of the section that has no such key."""
    parent, _, key = path.rpartition(".")
    siblings = [field.name for field in dataclasses.fields(owner)] if isinstance(owner, type) and issubclass(owner, Section) else []  # type: ignore[arg-type]
    why = f"{parent or 'the config'} has {', '.join(siblings)}" if siblings else "there is no such section"
    meant = [f"{parent}.{name}" if parent else name for name in difflib.get_close_matches(key, siblings, n=1)]
    meant += [leaf for leaf in _leaves(RunConfig(), "") if leaf.rpartition(".")[2] == key]
    return Problem(where=path, what="unknown key", why=why, fix=f"{meant[0]}=<value>" if meant else "cpt config experiment=<name> shows every key")


def _wrong_value(path: str, text: str) -> Problem:
    if match := re.match(r"Value '(.*)' of type '\w+' could not be converted to (\w+)", text):
        value, kind = match.groups()
        kind = _KINDS.get(kind, kind)
        return Problem(where=path, what=f"is {value!r}", why=f"must be {kind}", fix=f"{path}=<{kind}>")
    if match := re.match(r"Invalid value '(.*)', expected one of \[(.*)\]", text):
        value, options = match.groups()
        return Problem(where=path, what=f"is {value!r}", why="is not one of its choices", fix=f"{path}={options.replace(', ', ' or ')}")
    if "is not a ListConfig" in text:
        return Problem(where=path, what="is one value", why="must be a list", fix=f"{path}=[<value>,<value>]")
    if match := re.search(r"is not a subclass of (Source|Classifier|Filter)Config", text):
        kind, fix = match[1].lower(), "write it in hydra_conf/corpus/<name>.yaml, then corpus=<name>"
        return Problem(where=path, what=f"is a new {kind}", why=f"{kind}s are part of a named corpus", fix=fix)
    return Problem(where=path, what="wrong value", why=text, fix="cpt config experiment=<name> shows every key; cpt/config/ says what each takes")


def _leaves(section: Section, prefix: str) -> list[str]:
    """Every dotted path below `section` that is a value."""
    children = dict(section.sections())
    found = [f"{prefix}{field.name}" for field in dataclasses.fields(section) if field.name not in children]  # type: ignore[arg-type]
    for name, child in children.items():
        found += _leaves(child, f"{prefix}{name}.")
    return found
