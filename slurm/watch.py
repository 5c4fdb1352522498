"""Who is silent, who does not get on: heartbeats of one attempt -> trouble, named. Pure; clocks and probes come from outside.

Two different failures look alike from afar. A rank that is *silent* does not even beat: its process is stopped, or its node is gone.
Ranks that are *stuck* beat, but none of them gets on. A silent node is called lost only when SLURM's own daemon on it does not answer
either; when it does, it may be the file system that is slow, and only the much longer limits of a hang end the attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cpt.config.running import SlurmConfig
from cpt.core.attempts import Ending
from cpt.core.heartbeat import Beat, Phase

Answering = Callable[[Sequence[str]], set[str]]
"""Those of some nodes whose SLURM daemon answers now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """What ends an attempt from outside. `seconds`: how long the ranks had been silent or stuck."""

    ending: Ending
    nodes: Sequence[str]
    ranks: Sequence[int]
    message: str
    seconds: float = 0.0


def limits(config: SlurmConfig, longest: Mapping[str, float]) -> dict[Phase, float]:
    """Phase -> seconds without progress that are a hang, from the longest that each phase has taken so far in this run.

    Before anything was measured `slurm.start_seconds` holds for all: a first save or evaluation may be slow.
    """

    def limit(phase: Phase) -> float:
        if phase is Phase.start or phase not in longest:
            return max(config.start_seconds, config.hang_seconds)
        return max(config.hang_seconds, config.hang_factor * longest[phase])

    return {phase: limit(phase) for phase in Phase}


@dataclass
class Pulse:
    """One rank as the watcher has seen it, on the watcher's own clock."""

    beat: Beat
    changed: float
    """When a new beat was last seen."""
    advanced: float
    """When phase or step last changed."""


@dataclass
class Monitor:
    """Remembers beats between looks. Times are seconds on any clock that only goes forward."""

    config: SlurmConfig
    longest: dict[str, float] = field(default_factory=dict)
    """Phase -> the longest that it has taken; handed from attempt to attempt."""
    pulses: dict[int, Pulse] = field(default_factory=dict)
    missing: dict[str, float] = field(default_factory=dict)
    """Node -> since when its daemon does not answer."""
    ask_again: float = 0.0
    """Not before this time."""

    def see(self, beats: Iterable[Beat], now: float) -> None:
        """Take in the beats that lie there now."""
        for beat in beats:
            known = self.pulses.get(beat.rank)
            if known is None:
                self.pulses[beat.rank] = Pulse(beat, now, now)
            elif beat != known.beat:
                advanced = (beat.phase, beat.step) != (known.beat.phase, known.beat.step)
                if advanced:
                    self._measure(known.beat, beat)
                self.pulses[beat.rank] = Pulse(beat, now, now if advanced else known.advanced)

    def trouble(self, now: float, answering: Answering) -> Trouble | None:
        """The worst that can be said now; None when all is well or nothing is certain yet."""
        working = {rank: pulse for rank, pulse in self.pulses.items() if pulse.beat.phase is not Phase.done}
        silent = {rank: pulse for rank, pulse in working.items() if now - pulse.changed >= self.config.silence_seconds}
        return _lost(silent, working, now, answering) or self._cut_off(working, now, answering) or self._hang(working, silent, now)

    def _cut_off(self, working: Mapping[int, Pulse], now: float, answering: Answering) -> Trouble | None:
        """Ranks may beat through the file system while their network is gone: when nobody gets on, nodes are asked, twice, for a daemon may restart."""
        stalled = now - max((pulse.advanced for pulse in working.values()), default=now)
        if stalled < max(self.config.silence_seconds, 2 * max(self.longest.values(), default=0.0)):
            self.missing.clear()
            return None
        if now < self.ask_again:
            return None
        self.ask_again = now + self.config.silence_seconds / 4
        nodes = _nodes(working.values())
        self.missing = {node: self.missing.get(node, now) for node in sorted(set(nodes) - answering(nodes))}
        gone = [node for node, since in self.missing.items() if now - since >= self.config.silence_seconds / 2]
        if not gone or len(gone) == len(nodes):
            return None
        ranks = sorted(rank for rank, pulse in working.items() if pulse.beat.host in gone)
        message = f"lost {' '.join(gone)}: nobody got on for {stalled:.0f} s, and SLURM's daemon there does not answer"
        return Trouble(ending=Ending.node_lost, nodes=gone, ranks=ranks, message=message, seconds=stalled)

    def _hang(self, working: Mapping[int, Pulse], silent: Mapping[int, Pulse], now: float) -> Trouble | None:
        """The first limit to pass. Blamed are those who do not beat, else those who are behind, else nobody."""
        allowed = limits(self.config, self.longest)
        late = {rank: pulse for rank, pulse in working.items() if now - pulse.advanced >= allowed[pulse.beat.phase]}
        if not late:
            return None
        pulse = max(late.values(), key=lambda pulse: now - pulse.advanced)
        culprits = {rank: pulse for rank, pulse in silent.items() if rank in late} or _behind(working)
        seconds = now - pulse.advanced
        message = f"no progress for {seconds:.0f} s in phase {pulse.beat.phase} after step {pulse.beat.step} (allowed {allowed[pulse.beat.phase]:.0f} s)"
        who = f"; {'silent' if silent else 'behind'}: {describe(culprits)}" if culprits else "; no rank differs from the others"
        return Trouble(ending=Ending.hang, nodes=_nodes(culprits.values()), ranks=sorted(culprits), message=message + who, seconds=seconds)

    def _measure(self, before: Beat, after: Beat) -> None:
        """How long the finished phase took; several steps between two beats share their time."""
        if before.phase in (Phase.start, Phase.done):
            return
        seconds = (after.since - before.since) / max(1, after.step - before.step)
        self.longest[before.phase] = max(seconds, self.longest.get(before.phase, 0.0))


def _lost(silent: Mapping[int, Pulse], working: Mapping[int, Pulse], now: float, answering: Answering) -> Trouble | None:
    """Nodes without a single rank that still beats, and without a daemon that answers."""
    speaking = {pulse.beat.host for rank, pulse in working.items() if rank not in silent}
    mute = [node for node in _nodes(silent.values()) if node not in speaking]
    gone = sorted(set(mute) - answering(mute)) if mute else []
    if not gone:
        return None
    theirs = {rank: pulse for rank, pulse in silent.items() if pulse.beat.host in gone}
    seconds = max(now - pulse.changed for pulse in theirs.values())
    message = f"lost {' '.join(gone)}: no heartbeat for {seconds:.0f} s, and SLURM's daemon there does not answer"
    return Trouble(ending=Ending.node_lost, nodes=gone, ranks=sorted(theirs), message=message, seconds=seconds)


def _behind(working: Mapping[int, Pulse]) -> dict[int, Pulse]:
    """Ranks at an earlier step than the foremost; none when all are at the same."""
    foremost = max(pulse.beat.step for pulse in working.values())
    return {rank: pulse for rank, pulse in working.items() if pulse.beat.step < foremost}


def _nodes(pulses: Iterable[Pulse]) -> list[str]:
    return sorted({pulse.beat.host for pulse in pulses})


def describe(pulses: Mapping[int, Pulse], most: int = 8) -> str:
    """`rank 3 on node2, rank 4 on node2 and 12 more`."""
    named = [f"rank {rank} on {pulse.beat.host}" for rank, pulse in sorted(pulses.items())[:most]]
    more = len(pulses) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
