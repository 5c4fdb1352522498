"""Clusters of documents that share keys: edges between documents of equal keys, and the connected components of edges. The smallest number of each stays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Numbers = npt.NDArray[np.uint64]


def edges_of(keys: Numbers, numbers: Numbers) -> Numbers:
    """[n], [n] -> [2, m]: of documents with equal keys, the smallest number above each of the others. One that has a key twice is linked to nobody by it."""
    order = np.lexsort((numbers, keys))
    keys, numbers = keys[order], numbers[order]
    begins = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=begins[1:])
    smallest = numbers[begins][np.cumsum(begins) - 1]
    later = numbers != smallest
    return np.stack([smallest[later], numbers[later]])


def components(edges: Numbers) -> tuple[Numbers, Numbers]:
    """[2, m] -> (every number that has an edge, once, ascending; the smallest number that each is connected with, maybe over others)."""
    nodes, places = np.unique(edges, return_inverse=True)
    places = places.reshape(edges.shape)
    graph = coo_array((np.ones(edges.shape[1], dtype=bool), (places[0], places[1])), shape=(len(nodes), len(nodes)))
    _, labels = connected_components(graph, directed=False)
    _, first = np.unique(labels, return_index=True)  # nodes ascend: where a label occurs first, its smallest number is
    return nodes, nodes[first[labels]]
