"""``skerry node import``: our configuration from that of a vantage6 node."""

from __future__ import annotations

import os
from pathlib import Path

import click
import yaml

from skerry.errors import ConfigurationError
from skerry_node.config import read_yaml
from skerry_node.importing import Import, convert


@click.command(name="import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write it here, and secrets beside it."
)
def import_(file: Path, output: Path | None) -> None:
    """Make a configuration from FILE, that of a vantage6 4.x node. What carries over is printed, or written with -o.

    Each key that has no counterpart is named, with what to do instead. The API key and passwords are never printed:
    with -o they are written into files beside it that only you can read.
    """
    made = convert(read_yaml(file), file.stem)
    if output is None:
        click.echo(_render(made), nl=False)
    else:
        for path in (output, *(output.parent / name for name in made.secrets)):
            if path.exists():
                raise ConfigurationError(f"{path} is there already; it is not overwritten.")
        for name, secret in made.secrets.items():
            _write(output.parent / name, f"{secret}\n")
        _write(output, _render(made))
        click.echo(f"Look through {output}, then: skerry node check --config {output}")
    for note in made.notes:
        click.echo(note, err=True)
    if output is None:
        click.echo(f"Not printed: {', '.join(made.secrets)}; -o writes them.", err=True)


def _render(made: Import) -> str:
    head = "".join(f"# {note}\n" for note in made.notes)
    return head + yaml.safe_dump(made.config, sort_keys=False, allow_unicode=True)


def _write(path: Path, text: str) -> None:
    """Raises ConfigurationError when it can't be, or is there."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{path} can't be written: {error.strerror}.") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as target:
        target.write(text)
