"""Passphrases, never from an argument list: from a prompt, a file, or standard input."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from skerry.errors import ConfigurationError

passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read the passphrase from the first line of this file. Without it: a prompt, or standard input.",
)


def ask_passphrase(file: Path | None, *, confirm: bool = False) -> str:
    """Raises ConfigurationError when there is none."""
    if file is None and sys.stdin.isatty():
        return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm))
    lines = (file.read_text() if file is not None else sys.stdin.readline()).splitlines()
    if not lines or not lines[0]:
        raise ConfigurationError(f"There is no passphrase in {file or 'standard input'}.")
    return lines[0]
