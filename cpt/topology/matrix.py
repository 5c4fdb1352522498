"""`nvidia-smi topo -m` -> how near each GPU of a node is to the other GPUs and to the adapters."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cpt.core.artifacts import Artifact
from cpt.core.errors import Problem, UserError
from cpt.topology.names import natural

CLOSE = ("PIX", "PXB")
"""Ways that stay below a PCIe host bridge, nearest first: an adapter reads GPU memory there without passing a CPU."""
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix(Artifact):
    """Rows are GPUs; columns are GPUs, then adapters. Words as the driver writes them, also ones that are not known here."""

    gpus: tuple[str, ...]
    nics: tuple[str, ...]
    """Adapters by device name (`mlx5_0`), in the order of the columns."""
    words: tuple[tuple[str, ...], ...]
    cpus: tuple[str, ...]
    """CPU affinity of each GPU, as written; some drivers cut it."""
    numa: tuple[str, ...]
    """NUMA affinity of each GPU, as written: `0`, `0-3`, `N/A` or nothing."""

    def between(self, one: int, other: int) -> str:
        """The word between two GPUs."""
        return self.words[one][other]

    def to_nic(self, gpu: int, nic: str) -> str:
        """The word between a GPU and an adapter; empty for an adapter that the driver does not show."""
        return self.words[gpu][len(self.gpus) + self.nics.index(nic)] if nic in self.nics else ""


def parse_matrix(text: str) -> Matrix:
    """Raises `UserError` when there is no matrix, or a row of it is cut off."""
    lines = [_COLORS.sub("", line) for line in text.splitlines()]
    header = next((line for line in lines if "GPU0" in line and "Affinity" in line), None)
    if header is None:
        said = next((line.strip() for line in lines if line.strip()), "nothing")
        raise _bad(f"says {said[:100]!r}", "has no matrix of GPUs")
    columns = header.split("CPU Affinity")[0].split()
    gpus = tuple(name for name in columns if re.fullmatch(r"GPU\d+", name))
    rows = {words[0]: words[1:] for line in lines if line != header and (words := line.split()) and words[0] in gpus}
    for name in gpus:
        if len(rows.get(name, ())) < len(columns):
            raise _bad(f"{name} has {len(rows.get(name, ()))} of {len(columns)} columns", "was cut where it was copied")
    legend = dict(re.findall(r"^\s*(NIC\d+):\s*(\S+)", "\n".join(lines), re.MULTILINE))
    return Matrix(
        gpus=gpus,
        nics=tuple(legend.get(name, name) for name in columns if name not in gpus),
        words=tuple(tuple(rows[name][: len(columns)]) for name in gpus),
        cpus=tuple(_at(rows[name], len(columns)) for name in gpus),
        numa=tuple(_at(rows[name], len(columns) + 1) for name in gpus),
    )


def domains(matrix: Matrix) -> tuple[tuple[int, ...], ...]:
    """GPUs that reach each other over NVLink, however many links each pair has."""
    left, found = list(range(len(matrix.gpus))), []
    while left:
        reached, edge = {left[0]}, [left[0]]
        while edge:
            gpu = edge.pop()
            new = [other for other in left if other not in reached and matrix.between(gpu, other).startswith("NV")]
            reached.update(new)
            edge.extend(new)
        found.append(tuple(sorted(reached)))
        left = [gpu for gpu in left if gpu not in reached]
    return tuple(found)


def links(matrix: Matrix) -> int:
    """Fewest NVLinks of a pair that has any: 18 where the driver says NV18; 0 without NVLink."""
    counts = [int(word[2:]) for row in matrix.words for word in row if re.fullmatch(r"NV\d+", word)]
    return min(counts, default=0)


def nearest(matrix: Matrix, gpu: int) -> list[str]:
    """Adapters below the same host bridge as this GPU, nearest first."""
    near = [(CLOSE.index(word), natural(nic), nic) for nic in matrix.nics if (word := matrix.to_nic(gpu, nic)) in CLOSE]
    return [nic for _, _, nic in sorted(near)]


def _at(words: list[str], place: int) -> str:
    return words[place] if place < len(words) else ""


def _bad(what: str, why: str) -> UserError:
    return UserError(Problem(where="nvidia-smi topo -m", what=what, why=why, fix="run `nvidia-smi topo -m` on a compute node and keep its whole output"))
