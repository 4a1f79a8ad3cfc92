"""``skerry node clean``: what is left of runs that ended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from skerry_node import leftovers
from skerry_node.config import Config
from skerry_node.leftovers import Leftover
from skerry_node.options import CONFIG, load
from skerry_node.state import State, is_locked


@click.command()
@CONFIG
@click.option("--yes", is_flag=True, help="Remove what is listed.")
def clean(path: Path, *, yes: bool) -> None:
    """List what no run of this node needs any more: containers and folders of runs that ended while nobody looked, and
    the images that docker.keep_images lets go. With --yes it is removed; images that the node did not pull never are.
    """
    config = load(path)
    running = is_locked(config.state_folder)
    if running:
        click.echo("The node runs and cleans up after its runs by itself; only images are looked at.", err=True)
    with contextlib.nullcontext() if running or not yes else _locked(config):
        found = list(_find(config, running=running))
        for one in found:
            if yes:
                one.remove()
            click.echo(f"{'removed' if yes else 'would remove'} {one.what}")
    if not found:
        click.echo("There is nothing to remove.")
    elif not yes:
        click.echo("Nothing was removed; add --yes to remove it.", err=True)


@contextlib.contextmanager
def _locked(config: Config) -> Iterator[None]:
    """The node can't be started meanwhile."""
    state = State(config.state_folder)
    try:
        yield
    finally:
        state.close()


def _find(config: Config, *, running: bool) -> Iterator[Leftover]:
    if not running:
        yield from leftovers.find_remains(config)
    if config.launcher == "docker":
        yield from leftovers.find_images(config)
