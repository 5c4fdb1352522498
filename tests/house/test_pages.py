"""What the pages promise is there: commands, verbs, experiments, the tree, links."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import VERBS

PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (Path(__file__).parents[2] / "docs").glob("*.md")))


def page(repository: Path, name: str) -> str:
    return (repository / name).read_text()


def tracked(repository: Path) -> list[Path]:
    """Files that git keeps, those not yet added included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [repository / line for line in listed.stdout.splitlines() if (repository / line).is_file()]


@pytest.mark.parametrize("name", PAGES)
def test_commands_exist(repository: Path, name: str) -> None:
    text = page(repository, name)
    commands = re.findall(r"(?:^|[`\s])cpt ([a-z]+)", "\n".join(re.findall(r"`[^`\n]+`|^    .*$|```.*?```", text, re.M | re.S)))
    assert set(commands) <= set(VERBS)
    targets = set(re.findall(r"^([a-z]+):", page(repository, "Makefile"), re.M))
    assert set(re.findall(r"`make ([a-z]+)|^(?:    )?make ([a-z]+)", text, re.M)) <= {pair for target in targets for pair in ((target, ""), ("", target))}


@pytest.mark.parametrize("name", PAGES)
def test_choices_exist(repository: Path, name: str) -> None:
    text = page(repository, name)
    groups = {path.name for path in (repository / "hydra_conf").iterdir() if path.is_dir()} - {"chosen"}  # a sweep writes those
    for group in groups:
        for choice in re.findall(rf"\b{group}=([a-z0-9_]+)", text):
            assert (repository / "hydra_conf" / group / f"{choice}.yaml").is_file(), f"{group}={choice}"


def test_readme_names_every_verb(repository: Path) -> None:
    text = page(repository, "README.md")
    assert [verb for verb in VERBS if f"cpt {verb}" not in text] == []


def test_readme_shows_what_plan_says(repository: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```text\n(.*?)```", page(repository, "README.md"), re.S)
    refused, shown = (next(block for block in blocks if start in block) for start in ("$ cpt plan", "fullest rank"))
    good = cpt(repository, "plan", "experiment=ellama_70b", f"run_root={tmp_path}").stdout
    said = {" ".join(line.split()) for line in good.splitlines()}
    assert [line for line in shown.splitlines() if " ".join(line.split()) not in said] == []
    command, answer = refused.split("\n", 1)
    assert cpt(repository, *command.removeprefix("$ cpt ").split()).stderr == answer


def cpt(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "jobs.cli", *arguments], cwd=repository, capture_output=True, text=True, check=False)


def test_tree_is_the_tree(repository: Path) -> None:
    """Every line of README's tree exists, and every room and group of the disk has its line."""
    block = re.search(r"```text tree\n(.*?)```", page(repository, "README.md"), re.S)
    assert block
    named, folders = set(), [""]
    for line in block.group(1).splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        entry = line.split()[0]
        folders = [*folders[: depth + 1], entry]
        named.add("".join(folders[: depth + 1]) + entry)
    assert sorted(path for path in named if not (repository / path).exists()) == []
    rooms = {f"cpt/{path.parent.name}/" for path in (repository / "cpt").glob("*/__init__.py")}
    storeys = {f"{path.relative_to(repository).parts[0]}/" for path in tracked(repository) if len(path.relative_to(repository).parts) > 1}
    assert (rooms | storeys) - named == set()


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(repository: Path, name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)|src=\"([^\"]+)\"", page(repository, name))
    local = [link for pair in links for link in pair if link and not link.startswith("http")]
    assert [link for link in local if not ((repository / name).parent / link).exists()] == []


def test_changelog_has_an_unreleased_part(repository: Path) -> None:
    assert "## Unreleased" in page(repository, "CHANGELOG.md")


def test_lock_is_pinned_and_names_no_index(repository: Path) -> None:
    lines = page(repository, "requirements.lock").splitlines()
    assert len(lines) > 100
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []


def test_nothing_names_one_persons_machine(repository: Path) -> None:
    home = re.compile(rb"/(?:home|root|Users|workspace|work)/[A-Za-z0-9_.]+")
    allowed = (b"/home/me", b"/home/user")  # nobody
    found = []
    for path in tracked(repository):
        for match in home.findall(path.read_bytes()) if path.suffix not in (".png", ".bin", ".jsonl", ".svg") else []:
            if match not in allowed:
                found.append(f"{path.relative_to(repository)}: {match.decode()}")
    assert found == []


def test_shell_scripts_can_be_executed(repository: Path) -> None:
    assert [path.name for path in (repository / ".ci").iterdir() if not path.stat().st_mode & 0o100] == []
