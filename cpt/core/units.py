"""How quantities are written for people: counts, bytes, durations, moments."""

from __future__ import annotations

from datetime import UTC, datetime

_COUNT_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_BYTE_UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def _scaled(value: float, units: tuple[tuple[float, str], ...], plain: str) -> str:
    step = 1000 / (units[0][0] / units[1][0])
    for size, suffix in units:
        if abs(value) >= 0.9995 * step * size:  # else the unit below would show a thousand
            return f"{value / size:.3g} {suffix}".strip()
    return f"{value:.3g}{plain}"


def count(value: float) -> str:
    """`11796480` -> `11.8 M`."""
    return _scaled(value, _COUNT_UNITS, "")


def size(value: float) -> str:
    """Bytes with binary units: `1610612736` -> `1.5 GiB`."""
    return _scaled(value, _BYTE_UNITS, " B")


def duration(seconds: float) -> str:
    """`5025.0` -> `1h 23m 45s`; under ten seconds with a decimal, under a tenth in milliseconds."""
    if 0 < seconds < 0.1:
        return f"{1000 * seconds:.2g}ms"
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (secs, "s"))
    first = next((i for i, (n, _) in enumerate(parts) if n), len(parts) - 1)
    return " ".join(f"{n}{unit}" for n, unit in parts[first : first + 3])


def epoch(moment: str) -> float:
    """`2026-11-23T20:00:00Z` -> seconds since the epoch; without a zone it is UTC; 0.0 for what is no moment."""
    try:
        found = datetime.fromisoformat(moment)
    except ValueError:
        return 0.0
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
