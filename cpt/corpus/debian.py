"""Packages and package lists from the machine's own Debian mirror, in a private folder: the system's apt state is never touched.

Everything is bounded in time; a mirror that does not answer raises `MirrorUnavailable`, once, and readers fall back.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cpt.core.artifacts import write_text

UPDATE_SECONDS = 60
DOWNLOAD_SECONDS = 180

# `#clear` first: container images set languages to "none" and add hooks, and plain settings only append to theirs.
_CONFIG = """\
#clear Acquire::Languages;
Acquire::Languages {{ "en"; }};
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
Dir::State::lists "{root}/lists";
Dir::Cache "{root}/cache";
APT::Sandbox::User "root";
Acquire::Retries "1";
Acquire::http::Timeout "15";
Acquire::https::Timeout "15";
"""


class MirrorUnavailable(Exception):
    """No apt here, or its mirror does not answer."""


class Mirror:
    """apt with all its state below `root`; lists are fetched at first use, once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._config = root / "apt.conf"
        self._failure: str | None = None
        self._ready = False

    def catalogue(self) -> tuple[Iterator[dict[str, str]], str]:
        """Stanzas of every package with its English description, and which archive they are from."""
        self._update()
        lists = sorted((self._root / "lists").glob("*_Packages*"))
        translations = sorted((self._root / "lists").glob("*_Translation-en*"))
        if not lists or not translations:
            raise MirrorUnavailable("the mirror has no package descriptions")
        descriptions = {stanza["Package"]: stanza.get("Description-en", "") for path in reversed(translations) for stanza in self._stanzas(path)}
        return self._join(lists, descriptions), f"Debian package catalogue ({', '.join(self._archives())})"

    def unpack(self, package: str) -> tuple[Path, str]:
        """Download and unpack one package: (folder, version)."""
        folder = self._root / "packages"
        found = sorted(folder.glob(f"{package}_*.deb"))
        if not found:
            self._update()
            folder.mkdir(parents=True, exist_ok=True)
            self._run(["apt-get", "-q", "-c", str(self._config), "download", package], DOWNLOAD_SECONDS, folder)
            found = sorted(folder.glob(f"{package}_*.deb"))
        if not found:
            raise MirrorUnavailable(f"the mirror gave no {package}")
        target = folder / found[-1].stem
        if not target.is_dir():
            temp = folder / f".{found[-1].stem}.{os.getpid()}.tmp"
            self._run(["dpkg", "-x", str(found[-1]), str(temp)], DOWNLOAD_SECONDS, folder)
            temp.rename(target)
        return target, found[-1].stem.split("_")[1].replace("%3a", ":")

    def _join(self, lists: list[Path], descriptions: dict[str, str]) -> Iterator[dict[str, str]]:
        seen: set[str] = set()
        for stanza in (stanza for path in lists for stanza in self._stanzas(path)):
            if stanza["Package"] not in seen:
                seen.add(stanza["Package"])
                yield {**stanza, "Description": descriptions.get(stanza["Package"], "")}

    def _update(self) -> None:
        """Fetch the lists. Yesterday's are good enough when the mirror is away today."""
        if self._failure is not None:
            raise MirrorUnavailable(self._failure)
        if self._ready:
            return
        for folder in ("lists/partial", "cache/archives/partial"):
            (self._root / folder).mkdir(parents=True, exist_ok=True)
        write_text(self._config, _CONFIG.format(root=self._root))
        why = "the mirror does not answer"
        try:
            self._run(["apt-get", "-q", "-c", str(self._config), "update"], UPDATE_SECONDS, self._root)
        except MirrorUnavailable as error:
            why = str(error)
        # apt calls it a success when nothing could be fetched; the lists decide.
        if not any((self._root / "lists").glob("*_Packages*")):
            self._failure = why
            raise MirrorUnavailable(why)
        self._ready = True

    def _run(self, command: list[str], seconds: int, folder: Path) -> str:
        if shutil.which(command[0]) is None:
            raise MirrorUnavailable(f"no {command[0]} on this machine")
        try:
            done = subprocess.run(command, cwd=folder, timeout=seconds, capture_output=True, text=True, errors="replace", check=True)
        except subprocess.TimeoutExpired:
            raise MirrorUnavailable(f"{command[0]} gave no answer in {seconds} s") from None
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip() or "no message").splitlines()[-1]
            raise MirrorUnavailable(f"{command[0]} failed: {last}") from None
        return done.stdout

    def _stanzas(self, path: Path) -> Iterator[dict[str, str]]:
        """apt keeps its lists compressed in a form of its choice, and reads them itself."""
        helper = shutil.which("apt-helper", path="/usr/lib/apt:/usr/libexec/apt") or "apt-helper"
        return parse_stanzas(self._run([helper, "cat-file", str(path)], UPDATE_SECONDS, self._root))

    def _archives(self) -> list[str]:
        found = []
        for path in sorted((self._root / "lists").glob("*InRelease")):
            fields = dict(re.findall(r"^(Suite|Codename|Date): (.+)$", path.read_text(errors="replace"), re.MULTILINE))
            found.append(f"{fields.get('Codename', path.name)} of {fields.get('Date', 'unknown date')}")
        return found


def installed_stanzas() -> list[dict[str, str]]:
    """The packages installed on this machine with their own descriptions; empty where there is no dpkg."""
    if shutil.which("dpkg-query") is None:
        return []
    form = "Package: ${Package}\nSource: ${source:Package}\nSection: ${Section}\nDescription: ${Description}\n\n"
    done = subprocess.run(["dpkg-query", "-W", f"-f={form}"], capture_output=True, text=True, errors="replace", check=False, timeout=60)
    return list(parse_stanzas(done.stdout))


def parse_stanzas(text: str) -> Iterator[dict[str, str]]:
    """Debian control stanzas; continuation lines keep their line breaks and lose their first space."""
    for block in text.split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in block.split("\n"):
            if line.startswith((" ", "\t")):
                fields[name] = f"{fields.get(name, '')}\n{line[1:]}"
            elif ":" in line:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        if fields.get("Package"):
            yield fields
