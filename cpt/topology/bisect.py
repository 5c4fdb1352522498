"""Which node, link or join makes a collective slow, found by halves. Pure: a search asks for groups, is told their bandwidths, returns a `Verdict`.

::

    whole slow? ── no ──> done                             a round measures disjoint groups at the same time
        │ yes
    both halves  ── some slow ──> their halves, and so on, down to slow pairs ──> each of the two with partners known to be good:
        │ none slow                                        slow with two of them: the node; fast: the link of the pair
    parts of one half with parts of the other ── all slow ──> what joins the halves;  one slow ──> its parts, and so on, down to a link

Without the guilty the rest is measured once more: it must be fast, or the search goes on there. log2(n) + 3 rounds find one guilty node, log2(n) + 4 a link;
by peers alone 8 rounds find a node, 2 log2(n) + 5 a link.
A round's groups must not disturb each other, so the fabric must not be oversubscribed. A link is seen where a collective uses it: a ring, between neighbors.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from cpt.topology.culprits import Finding, Group, Kind, Measured, Search, Verdict
from cpt.topology.judging import SLOW, SLOW_BESIDE, Inner, Judge, Leaf, halves, pairs, similar, upper_median

type Block = tuple[Group, Group]
"""Two groups, each fast by itself."""


def diagnose(nodes: Sequence[str], ranks_per_node: int, expected: tuple[float, float] = (0.0, 0.0), leaves: Sequence[Group] = ()) -> Search[Verdict]:
    """`inside`, where nodes have several ranks, then `search` between those that are fast inside. `expected` of both."""
    first = (yield from inside(nodes, expected[0])) if ranks_per_node > 1 else Verdict(findings=(), rounds=())
    slow = {node for finding in first.findings for node in finding.nodes}
    second = yield from search([node for node in nodes if node not in slow], expected[1], leaves=leaves)
    return Verdict(findings=first.findings + second.findings, rounds=first.rounds + second.rounds)


def search(nodes: Sequence[str], expected: float = 0.0, threshold: float = 0.0, leaves: Sequence[Group] = ()) -> Search[Verdict]:
    """Between nodes, leaf after leaf where `leaves` are given, so that what joins leaves is between halves.

    `expected` is the bus bandwidth that any group should reach: it is made not to depend on the number of ranks (nccl-tests). At 0 peers of the same size
    are the measure, and nothing else: where ranks share cores or a fabric is thin, larger groups get less for reasons of their own. Their median counts, so up
    to half of them may be slow; and nodes known to be good are measured on beside those in question, so that who is called slow was slow beside others at
    the same moment, under the same load. Two nodes have no peers.
    """
    places = {node: number for number, leaf in enumerate(leaves) for node in leaf}
    ordered = tuple(sorted(nodes, key=lambda node: places.get(node, len(leaves))))
    judge = Judge(ordered, expected, threshold or (SLOW if expected else SLOW_BESIDE), places)
    findings = yield from judge.over(_by_expectation(judge) if expected else _by_peers(judge))
    return Verdict(findings=tuple(findings), rounds=tuple(judge.rounds))


def inside(nodes: Sequence[str], expected: float = 0.0, threshold: float = 0.0) -> Search[Verdict]:
    """Between the ranks of each node, all nodes at once. Without `expected` the measure is the median node. Slow is who is slow twice."""
    groups: list[Group] = [(node,) for node in nodes]
    rounds: list[tuple[Measured, ...]] = []
    slow = set(groups)
    while slow and len(rounds) < 2:
        speeds = yield groups
        measure = expected or (upper_median(speeds) if len(nodes) > 1 else 0.0)
        limit = (threshold or (SLOW if expected else SLOW_BESIDE)) * measure
        rounds.append(tuple(Measured(nodes=g, bandwidth=s, expected=measure, slow=s < limit or s <= 0) for g, s in zip(groups, speeds, strict=True)))
        slow &= {m.nodes for m in rounds[-1] if m.slow}
    guilty = [m for m in rounds[-1] if m.nodes in slow]
    found = tuple(Finding(kind=Kind.inside, nodes=m.nodes, bandwidth=m.bandwidth, expected=m.expected) for m in guilty)
    return Verdict(findings=found, rounds=tuple(rounds))


type _Found = Generator[list[Group], list[bool], list[Finding]]


def _by_expectation(judge: Judge) -> _Found:
    """Halve what is slow, leave the guilty out, measure the rest; until it is fast, or nobody more can be named."""
    findings: list[Finding] = []
    while len(rest := judge.rest) > 1:
        (slow,) = yield [rest]
        if not slow:
            break
        leaves = yield from _inside(rest, judge.places)
        found = yield from _named(judge, leaves)
        findings += found
        if not judge.leave_out(found):
            break
    return findings


def _by_peers(judge: Judge) -> _Found:
    """The same with groups of one size side by side: pairs, then halves and halves crossed; at last all that are good, for the number."""
    findings: list[Finding] = []
    while len(rest := judge.rest) > 2:
        leaves: list[Leaf] = []
        if not judge.good.issuperset(rest):
            leaves = yield from (judge.triangle() if len(rest) == 3 else _in_pairs(rest))
        if not leaves and len(rest) > 3:
            leaves = yield from _crosswise(rest, judge.places)
        found = yield from _named(judge, leaves)
        findings += found
        if not judge.leave_out(found):
            break
    if len(judge.rest) > 1:
        yield [judge.rest]
        judge.rounds[-1] = tuple(replace(m, expected=0.0, slow=m.bandwidth <= 0) for m in judge.rounds[-1])  # has no peers
    return findings


def _in_pairs(rest: Group) -> Inner:
    groups = pairs(rest)
    slow = yield groups
    return _without_joints((yield from _together([_inside(group, {}) for group, bad in zip(groups, slow, strict=True) if bad])))


def _without_joints(leaves: Sequence[Leaf]) -> list[Leaf]:
    """That parts are fast where the whole was slow says nothing without an expectation: smaller groups may be faster for their size."""
    return [leaf for leaf in leaves if not leaf.other]


def _crosswise(rest: Group, places: Mapping[str, int]) -> Inner:
    """What is between pairs that are fast. That two halves are slow together is only believed when they are fast again after it: loads come and go."""
    cut = halves(rest, places)
    block = cut if similar(*cut) else halves(rest)
    straight = [half for half in block if len(half) > 1]
    slow = yield straight
    if any(slow):
        return _without_joints((yield from _together([_inside(half, places) for half, bad in zip(straight, slow, strict=True) if bad])))
    ways = [_crossed(block), _crossed(block, again=True)]
    verdicts: list[list[bool]] = []
    for way in ways:
        verdicts.append((yield [a + b for a, b in way]))
    if all(len(way) == 2 and all(bad) for way, bad in zip(ways, verdicts, strict=True)):
        return [] if any((yield straight)) else [Leaf(*block)]
    parts = next(([part for part, bad in zip(way, slow, strict=True) if bad] for way, slow in zip(ways, verdicts, strict=True) if any(slow)), [])
    return _without_joints((yield from _narrowed(block, parts, both=False)))


def _inside(group: Group, places: Mapping[str, int]) -> Inner:
    """Of a slow group. It is cut between leaves where that is near its middle."""
    if len(group) == 2:
        return [Leaf(group)]
    left, right = halves(group, places)
    groups = [half for half in (left, right) if len(half) > 1]
    slow = yield groups
    guilty = [half for half, bad in zip(groups, slow, strict=True) if bad]
    if not guilty:
        return (yield from _between([(left, right)]))
    leaves = yield from _together([_inside(half, places) for half in guilty])
    return [*leaves, *(Leaf(half) for half in (left, right) if len(half) == 1)]


def _between(blocks: Sequence[Block]) -> Inner:
    """Of blocks one of which at least is slow across. Pieces are crossed outside in first, so that neighbors in a ring stay neighbors."""
    tests = [(block, _crossed(block) or [block]) for block in blocks]
    slow = iter((yield [a + b for _, parts in tests for a, b in parts]))
    verdicts = [(block, parts, [part for part, bad in zip(parts, islice(slow, len(parts)), strict=True) if bad]) for block, parts in tests]
    guilty = [verdict for verdict in verdicts if verdict[2]]
    if guilty:
        return (yield from _together([_narrowed(block, bad, len(bad) == len(parts) == 2) for block, parts, bad in guilty]))
    rest = [part for block, parts, _ in verdicts if parts != [block] for part in _crossed(block, again=True)]
    found = (yield from _between(rest)) if rest else []
    return found or [Leaf(*blocks[0])] if len(blocks) == 1 else found


def _narrowed(block: Block, bad: Sequence[Block], both: bool) -> Inner:
    """Parts of a block that are slow; when all its parts are, it is the whole joint."""
    if both:
        slow = yield [a + b for a, b in _crossed(block, again=True)]
        if all(slow):
            return [Leaf(*block)]
    links = [Leaf(a + b) for a, b in bad if len(a) + len(b) == 2]
    found = yield from _together([_between([part]) for part in bad if len(part[0]) + len(part[1]) > 2])
    return [*links, *found]


def _crossed(block: Block, again: bool = False) -> list[Block]:
    """Halves of one side with halves of the other, disjoint; `again` pairs them the other way. Nothing for a block of two nodes."""
    (a, b), (c, d) = halves(block[0]), halves(block[1])
    ways = [(a, c), (b, d)] if again else [(a, d), (b, c)]
    return [way for way in ways if way[0] and way[1]]


def _together(searches: Sequence[Inner]) -> Inner:
    """Searches in disjoint nodes, round by round at the same time."""
    found: list[Leaf] = []
    waiting: dict[Inner, list[Group]] = {}
    for part in searches:
        _step(part, None, waiting, found)
    while waiting:
        answers = iter((yield [group for groups in waiting.values() for group in groups]))
        for part, groups in list(waiting.items()):
            _step(part, list(islice(answers, len(groups))), waiting, found)
    return found


def _step(part: Inner, answer: list[bool] | None, waiting: dict[Inner, list[Group]], found: list[Leaf]) -> None:
    try:
        waiting[part] = next(part) if answer is None else part.send(answer)
    except StopIteration as end:
        waiting.pop(part, None)
        found += end.value


def _named(judge: Judge, leaves: Sequence[Leaf]) -> Generator[list[Group], list[bool], list[Finding]]:
    """Nodes, links and joins out of leaves. A node is guilty that was slow with two good partners: with one it may be their link."""
    slow_pairs: list[Group] = [leaf.nodes for leaf in leaves if len(leaf.nodes) == 2 and not leaf.other]
    unknown = list(dict.fromkeys(node for leaf in leaves if not leaf.other for node in leaf.nodes if node not in judge.good))
    guilty: list[str] = []
    while True:
        guilty += [node for node in unknown if node not in judge.good and sum(node in pair and judge.knows_other(pair, node) for pair in slow_pairs) > 1]
        unknown = [node for node in unknown if node not in judge.good and node not in guilty]
        if not (tests := judge.partners(unknown)):
            break
        slow = yield tests
        slow_pairs += [pair for pair, bad in zip(tests, slow, strict=True) if bad]
    links = yield from _still_slow([pair for pair in slow_pairs if judge.good.issuperset(pair)])
    found: list[tuple[Kind, Leaf]] = [(Kind.node, Leaf((node,))) for node in guilty] + [(Kind.link, Leaf(pair)) for pair in links]
    found += [(Kind.joint, leaf) for leaf in leaves if leaf.other] + ([(Kind.unclear, Leaf(tuple(unknown)))] if unknown else [])
    return [judge.finding(kind, leaf) for kind, leaf in found]


def _still_slow(links: Sequence[Group]) -> Generator[list[Group], list[bool], list[Group]]:
    """Of pairs that share no node, those that are slow once more: of a link no second pair could tell. What is left shows when the rest is measured."""
    apart = [link for i, link in enumerate(links) if not any(set(link) & set(other) for other in links[:i])]
    if not apart:
        return []
    slow = yield apart
    return [link for link, bad in zip(apart, slow, strict=True) if bad]
