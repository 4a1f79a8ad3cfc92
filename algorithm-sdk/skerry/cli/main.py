"""The command ``skerry``. In an install without its extras it says in a sentence what is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from skerry.errors import MissingExtra


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, 1 for what went wrong, 2 for a command that there isn't or that is used wrongly."""
    try:
        import_module("click")
    except ImportError:
        sys.stderr.write(f"skerry: {MissingExtra('client', 'The command line')}\n")
        return 1
    verbs = import_module("skerry.cli.verbs")
    code: int = verbs.run(sys.argv[1:] if arguments is None else list(arguments))
    return code
