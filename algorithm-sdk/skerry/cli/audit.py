"""``skerry audit``: verifying audit trails."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path

import click

from skerry.audit import Verifier
from skerry.cli.verbs import load_entry
from skerry.errors import ConfigurationError

_TRAILS = "skerry.audit_trails"
_path = click.Path(path_type=Path, dir_okay=False)


@click.group()
def audit() -> None:
    """Verify what servers and nodes have recorded."""


@audit.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--server", "servers", type=_path, multiple=True, help="The trail of the server with this configuration.")
@click.option("--node", "nodes", type=_path, multiple=True, help="The journal of the node with this configuration.")
def verify(files: tuple[Path, ...], servers: tuple[Path, ...], nodes: tuple[Path, ...]) -> None:
    """Check audit trails; ends with 1 and names the first record that was changed, moved, removed or cut off.

    FILES are exports, each chain's in their order (- is standard input). Trails of servers and of nodes that are given
    together are compared: each keeps heads of the other's chain, which shows a chain that was cut or written anew.
    """
    if not (files or servers or nodes):
        raise click.UsageError("Name a FILE, or --server or --node with a configuration.")
    verifier, live = Verifier(), list(_live(servers, nodes))
    _feed(verifier, ((str(file), _lines(file)) for file in files))
    _feed(verifier, ((where, trail()) for where, trail in live))
    if verifier.behind:
        _feed(verifier, ((where, trail()) for where, trail in live), again=True)
    heads = verifier.finish()
    for head in heads:
        guard = "its noted end" if head.writer in verifier.guarded else "no end was noted: a cut there can't be seen"
        click.echo(f"{head.writer}: {head.sequence} records, the last is {head.hash} ({guard})")
    for writer in verifier.absent:
        click.echo(f"{writer}: witnessed by others, but not among what was given here")
    click.echo(f"{verifier.records} records hold; {len(verifier.witnesses)} heads witnessed by others fit.")


def _feed(verifier: Verifier, sources: Iterable[tuple[str, Iterable[bytes]]], *, again: bool = False) -> None:
    for where, lines in sources:
        for number, line in enumerate(lines, start=1):
            verifier.feed(line, f"{where}, line {number}", again=again)


def _live(servers: Iterable[Path], nodes: Iterable[Path]) -> Iterator[tuple[str, Callable[[], Iterable[bytes]]]]:
    """What each is called, and what reads it as it is then."""
    for kind, paths in (("server", servers), ("node", nodes)):
        for path in paths:
            yield f"{kind} {path}", partial(_trail(kind), path)


def _lines(file: Path) -> Iterator[bytes]:
    if str(file) == "-":
        yield from sys.stdin.buffer
        return
    try:
        with file.open("rb") as lines:
            yield from lines
    except OSError as error:
        raise ConfigurationError(f"{file} can't be read: {error.strerror}.") from error


def _trail(kind: str) -> Callable[[Path], Iterable[bytes]]:
    [entry] = entry_points(group=_TRAILS, name=kind)
    trail: Callable[[Path], Iterable[bytes]] = load_entry(entry)
    return trail
