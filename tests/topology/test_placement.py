"""Orders of nodes: what they bring, counted; and what they must never do."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpt.config.compose import compose_config
from cpt.core.errors import UserError
from cpt.topology.fabric import Fabric, Kind
from cpt.topology.hops import KindHops, hops, rows
from cpt.topology.layout import Group, Layout, from_config, pairs
from cpt.topology.placement import by_leaf, by_name, order, refill
from cpt.topology.traffic import Traffic, traffic

E_LLAMA = Layout(tp=8, pp=4, dp=15)


def tree(sizes: list[int], seed: int | None = None) -> Fabric:
    """Leaves of these sizes below one spine; with a seed, names tell nothing about places."""
    names = [f"node{n}" for n in range(1, sum(sizes) + 1)]
    if seed is not None:
        random.Random(seed).shuffle(names)
    left = iter(names)
    return Fabric(kind=Kind.tree, paths={next(left): ("spine", f"leaf{leaf}") for leaf, size in enumerate(sizes, 1) for _ in range(size)})


def test_who_talks_to_whom_in_megatrons_order() -> None:
    found = pairs(Layout(tp=2, pp=2, dp=2, gpus=2))  # a node per (stage, replica): stage 0 on nodes 0 and 1, stage 1 on 2 and 3
    assert found[Group.tp] == {(n, n): 2 for n in range(4)}
    assert found[Group.cp] == {}
    assert found[Group.dp] == {(0, 1): 2, (1, 0): 2, (2, 3): 2, (3, 2): 2}
    assert found[Group.pp] == {(0, 2): 2, (1, 3): 2}
    assert pairs(Layout(tp=2, pp=2, dp=2, gpus=2, virtual=2))[Group.pp] == {(0, 2): 2, (1, 3): 2, (2, 0): 2, (3, 1): 2}  # chunks come back


def test_groups_are_those_of_megatron_core() -> None:
    """Against its own arithmetic for rank orders, which needs no torch.distributed."""
    pytest.importorskip("cpt.engine")  # first: it prepares megatron-core for machines without a GPU
    core = pytest.importorskip("megatron.core.parallel_state")
    for layout in (Layout(tp=2, cp=2, pp=3, dp=2, gpus=1), Layout(tp=4, pp=2, dp=3, gpus=1)):
        ranks = core.RankGenerator(tp=layout.tp, ep=1, dp=layout.dp, pp=layout.pp, cp=layout.cp, order="tp-cp-ep-dp-pp")
        found = pairs(layout)
        for group, token in ((Group.tp, "tp"), (Group.cp, "cp"), (Group.dp, "dp-cp")):
            rings = [(ring[place], ring[(place + 1) % len(ring)]) for ring in ranks.get_ranks(token) for place in range(len(ring)) if len(ring) > 1]
            assert sorted(found[group].elements()) == sorted(rings), (layout, group)
        assert sorted(found[Group.pp].elements()) == sorted(pair for line in ranks.get_ranks("pp") for pair in pairwise(line))


def test_hops_counted_by_hand() -> None:
    """Two leaves of two nodes, two pipelines of two stages, a node each: node (stage 0, pipeline 0), (0, 1), (1, 0), (1, 1)."""
    fabric = Fabric(kind=Kind.tree, paths={"a": ("s", "l1"), "b": ("s", "l1"), "c": ("s", "l2"), "d": ("s", "l2")})
    layout = Layout(tp=8, pp=2, dp=2)
    found = hops(["a", "b", "c", "d"], fabric, layout, Traffic(dp=10, pp=7)).kinds
    assert found[Group.tp] == KindHops(pairs=32, mean=0, max=0, total=0, spine=0, spine_bytes=0)
    assert found[Group.dp] == KindHops(pairs=32, mean=1, max=1, total=32, spine=0, spine_bytes=0)  # a-b and c-d, there and back, 8 rails
    assert found[Group.pp] == KindHops(pairs=16, mean=3, max=3, total=48, spine=16, spine_bytes=112)  # a-c, b-d
    turned = hops(["a", "c", "b", "d"], fabric, layout).kinds
    assert (turned[Group.dp].mean, turned[Group.pp].mean) == (3, 1)


def test_bytes_decide_between_rings_and_pipelines() -> None:
    fabric, layout = tree([2, 2]), Layout(tp=8, pp=2, dp=2)
    names = list(fabric.paths)
    assert hops(order(names, fabric, layout), fabric, layout).kinds[Group.pp].max == 1  # by default pipelines first
    assert hops(order(names, fabric, layout, Traffic(pp=1, dp=9)), fabric, layout).kinds[Group.dp].max == 1
    assert hops(order(names, fabric, layout, Traffic(pp=9, dp=1)), fabric, layout).kinds[Group.pp].max == 1


@pytest.mark.parametrize("seed", range(5))
def test_sixty_nodes_with_names_that_tell_nothing(seed: int) -> None:
    fabric = tree([8] * 8, seed)
    allocated = by_name(random.Random(seed).sample(list(fabric.paths), 60))
    own = order(allocated, fabric, E_LLAMA)
    before, leaf, after = (hops(nodes, fabric, E_LLAMA).kinds for nodes in (allocated, by_leaf(allocated, fabric), own))
    assert sorted(own) == sorted(allocated)
    assert before[Group.pp].spine >= 0.75 * 360
    assert leaf[Group.pp].spine == 360  # a stage is longer than a leaf, so the next stage is never on it
    assert after[Group.pp].spine <= 40
    assert after[Group.dp].total < before[Group.dp].total
    assert own == order(allocated, fabric, E_LLAMA)


def test_names_that_follow_the_leaves_do_not_help_pipelines() -> None:
    fabric = tree([8] * 8)
    names = by_name(list(fabric.paths))
    before = hops(names[:60], fabric, E_LLAMA).kinds
    after = hops(order(names, fabric, E_LLAMA), fabric, E_LLAMA).kinds
    assert (before[Group.pp].spine, after[Group.pp].spine, after[Group.pp].max) == (360, 0, 1)


def test_never_more_bytes_over_the_spine_than_before() -> None:
    config = compose_config(["experiment=ellama_70b"])
    layout, sent = from_config(config), traffic(config)
    assert layout == E_LLAMA
    fabric = tree([8] * 8, 3)
    names = by_name(list(fabric.paths))[:60]
    before, after = hops(names, fabric, layout, sent), hops(order(names, fabric, layout, sent), fabric, layout, sent)
    assert after.spine_bytes < 0.6 * before.spine_bytes
    text = rows({"SLURM's": before, "ours": after})
    assert [len(row) for row in text] == [7] * 7  # a head, then TP, DP and PP of both
    assert text[0][-1] == "bytes a step over it"


def test_bytes_of_a_70b_step() -> None:
    """70.55 B parameters on TP8 x PP4: 2.2 B a rank, reduced in 4 bytes, gathered in 2; 96 micro-batches of 8192 x 8192 bf16 / TP, there and back."""
    sent = traffic(compose_config(["experiment=ellama_70b"]))
    assert sent.dp == pytest.approx(70.55e9 / 32 * 6 * 14 / 15, rel=0.01)
    assert sent.pp == pytest.approx(96 * 2 * 8192 * 8192 * 2 / 8)
    assert sent.cp == 0


def test_spares_are_taken_where_they_break_nothing() -> None:
    fabric = tree([8, 8, 5, 5])  # a node is left over on each of the last two
    own = order(by_name(list(fabric.paths)), fabric, Layout(tp=8, pp=4, dp=6))
    assert [fabric.leaf(node) for node in own[24:]] == ["leaf3", "leaf4"]
    assert hops(own, fabric, Layout(tp=8, pp=4, dp=6)).kinds[Group.pp].max == 1


def test_leftovers_make_pipelines_of_few_leaves() -> None:
    """3 + 1 and 2 + 2, not 3 + 2 ...: each pipeline in two parts crosses once."""
    fabric, layout = tree([3, 2, 1, 2]), Layout(tp=8, pp=4, dp=2)
    assert hops(order(list(fabric.paths), fabric, layout), fabric, layout).kinds[Group.pp].spine == 2 * 8


def test_a_stage_over_two_nodes_stays_together() -> None:
    fabric, layout = tree([8, 8], 1), Layout(tp=8, cp=2, pp=4, dp=2)
    found = hops(order(list(fabric.paths), fabric, layout), fabric, layout).kinds
    assert (found[Group.cp].max, found[Group.pp].max) == (1, 1)


def test_pods_come_before_cores() -> None:
    names = [f"n{n}" for n in range(64)]
    random.Random(5).shuffle(names)
    fabric = Fabric(kind=Kind.tree, paths={name: ("core", f"pod{n // 16}", f"leaf{n // 4}") for n, name in enumerate(names)})
    layout = Layout(tp=8, pp=8, dp=8)  # a pipeline is two leaves
    found = hops(order(by_name(names), fabric, layout), fabric, layout).kinds
    assert found[Group.pp].max == 3


def test_two_thousand_nodes() -> None:
    names = [f"n{n}" for n in range(2048)]
    random.Random(5).shuffle(names)
    fabric = Fabric(kind=Kind.tree, paths={name: ("core", f"pod{n // 256}", f"leaf{n // 32}") for n, name in enumerate(names)})
    layout = Layout(tp=8, pp=8, dp=256)
    found = hops(order(by_name(names), fabric, layout), fabric, layout).kinds
    assert (found[Group.pp].max, found[Group.dp].spine_share) == (1, 0.25)


def test_without_topology_nothing_is_moved() -> None:
    names = [f"node{n}" for n in reversed(range(60))]
    assert order(names, Fabric(), E_LLAMA) == names


def test_a_lost_node_moves_no_other() -> None:
    fabric = tree([8, 8])
    layout = Layout(tp=8, pp=4, dp=3)
    own = order(by_name(list(fabric.paths)), fabric, layout)
    spares = own[12:]
    lost = own[0]
    again = refill(own, [node for node in own if node != lost], fabric, layout)
    assert again[1:12] == own[1:12]
    assert again[0] in spares
    assert sorted(again) == sorted(set(own) - {lost})
    both = [spare for spare in spares if fabric.leaf(spare) == fabric.leaf(lost)]
    assert not both or again[0] in both  # of its own leaf, where there is one
    with pytest.raises(UserError, match="needs 12"):
        refill(own, own[:11], fabric, layout)


def test_wrong_input() -> None:
    fabric = tree([8] * 8)
    names = list(fabric.paths)
    with pytest.raises(UserError, match=r"are 59\n.*needs 60"):
        order(names[:59], fabric, E_LLAMA)
    with pytest.raises(UserError, match="are 59"):
        hops(names[:59], fabric, E_LLAMA)
    with pytest.raises(UserError, match="name node1 twice"):
        order([*names, "node1"], fabric, E_LLAMA)
    with pytest.raises(UserError, match=r"layout.pp: is 0"):
        Layout(pp=0)


@pytest.mark.parametrize(
    ("layout", "nodes", "pipeline", "rails"),
    [
        (E_LLAMA, 60, 4, True),
        (Layout(tp=4, pp=4, dp=30), 60, 4, True),  # two replicas on a node share their way
        (Layout(tp=8, cp=2, pp=4, dp=2), 16, 8, True),
        (Layout(tp=2, pp=4, dp=2), 2, 1, False),  # a node holds whole stages
        (Layout(tp=8), 1, 1, True),
    ],
)
def test_layouts(layout: Layout, nodes: int, pipeline: int, rails: bool) -> None:
    assert (layout.nodes, layout.pipeline_nodes, layout.on_rails) == (nodes, pipeline, rails)


@settings(max_examples=60, deadline=None)
@given(
    leaves=st.lists(st.integers(1, 9), min_size=1, max_size=9),
    sizes=st.tuples(st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from([1, 2]), st.sampled_from([1, 2, 3, 4, 6]), st.integers(1, 12), st.sampled_from([1, 2])),
    seed=st.integers(0, 99),
    weights=st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_an_order_is_a_permutation_and_never_costs_more(
    leaves: list[int], sizes: tuple[int, int, int, int, int], seed: int, weights: tuple[int, int] | None
) -> None:
    fabric = tree(leaves, seed)
    names = by_name(list(fabric.paths))
    tp, cp, pp, dp, virtual = sizes
    layout = Layout(tp=tp, cp=cp, pp=pp, dp=dp, virtual=virtual)
    if layout.nodes > len(names):
        with pytest.raises(UserError):
            order(names, fabric, layout)
        return
    sent = Traffic(dp=weights[0], pp=weights[1]) if weights else None
    own = order(names, fabric, layout, sent)
    assert sorted(own) == sorted(names)
    before, after = (hops(nodes, fabric, layout).kinds for nodes in (names, own))
    if weights:
        assert sum(w * after[g].total for w, g in zip(weights, (Group.dp, Group.pp), strict=True)) <= sum(
            w * before[g].total for w, g in zip(weights, (Group.dp, Group.pp), strict=True)
        )
    else:
        assert [after[g].total for g in (Group.tp, Group.cp, Group.pp, Group.dp)] <= [before[g].total for g in (Group.tp, Group.cp, Group.pp, Group.dp)]
