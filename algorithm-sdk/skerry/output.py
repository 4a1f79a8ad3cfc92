"""What an algorithm tells its log, which its user gets to read."""

from __future__ import annotations

import sys

ERROR_MARK = "error > "


def info(message: object) -> None:
    _write(f"info > {message}")


def warn(message: object) -> None:
    _write(f"warn > {message}")


def error(message: object) -> None:
    """Tells of an error and goes on; to end a function with one, raise AlgorithmError."""
    _write(f"{ERROR_MARK}{message}")


def printable(line: str) -> str:
    """A line of a log, without what could steer the terminal that it is shown on."""
    return "".join(
        character if character.isprintable() or character == "\t" else "\N{REPLACEMENT CHARACTER}" for character in line
    )


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
