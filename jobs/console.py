"""What verbs print with: colors on a terminal, plain lines in a log, where tables keep their width and nothing wraps."""

from __future__ import annotations

import sys

from rich.console import Console

LOG_WIDTH = 160


def open_console() -> Console:
    """Square brackets in a line are text, not markup."""
    return Console(highlight=False, soft_wrap=True, markup=False, width=None if sys.stdout.isatty() else LOG_WIDTH)
