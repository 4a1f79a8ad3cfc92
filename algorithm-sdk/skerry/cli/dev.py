"""``skerry dev``: a whole federation on this machine."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from skerry.dev import federation as federations
from skerry.dev.folder import Folder
from skerry.dev.plan import Plan, parse_database, read_settings
from skerry.errors import ConfigurationError, SkerryError

name_option = click.option("--name", default="dev", show_default=True, help="Which one; several can run at once.")


@click.group()
def dev() -> None:
    """A whole federation on this machine: a server and some nodes, each with an organization, a key and its data.

    For trying algorithms and for tests. Everything is stopped and removed by `skerry dev down`.

    \b
      skerry dev up --nodes 3 --database default=a.csv,b.csv,c.csv --json >federation.json
      skerry dev status
      skerry dev logs node-2 --follow
      skerry dev down
    """


@dev.command()
@click.option("--nodes", default=3, show_default=True, type=int, help="How many organizations, each with a node.")
@name_option
@click.option(
    "--database",
    "databases",
    multiple=True,
    metavar="LABEL=FILE,FILE,…",
    help="A CSV, Parquet, Excel or SQLite file or a folder for each node (or one for all) under a label. Repeatable.",
)
@click.option(
    "--accept",
    type=click.Choice(["native", "vantage6", "both"]),
    default="native",
    show_default=True,
    help="Which encrypted formats the collaboration takes; all but native let nodes admit unsigned tasks.",
)
@click.option("--plain", is_flag=True, help="A collaboration without encryption, for seeing what goes over the wire.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for scripts, and nothing else, on stdout.")
@click.option(
    "--launcher",
    type=click.Choice(["docker", "process", "auto"]),
    default="auto",
    show_default=True,
    help="Containers, or plain processes where no engine can run (auto: containers if they can be had).",
)
@click.option("--port", type=click.IntRange(1, 65535), help="The server's port on 127.0.0.1 (default: any free one).")
@click.option(
    "--node-settings",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON with more settings for every node: sections are merged with those made here, lists appended.",
)
def up(  # noqa: PLR0917 (one for each option)
    nodes: int,
    name: str,
    databases: tuple[str, ...],
    accept: Any,
    plain: bool,
    as_json: bool,
    launcher: Any,
    port: int | None,
    node_settings: Path | None,
) -> None:
    """Start a federation, or those of its parts that have died, and say how to connect."""
    parsed = tuple(parse_database(text, nodes) for text in databases)
    settings = read_settings(node_settings) if node_settings else {}
    plan = Plan(name, nodes, parsed, accept, not plain, launcher, port, settings)
    with _interruptible():
        federation = federations.up(plan, federations.Places.of_user(), _say)
    click.echo(json.dumps(federation.facts)) if as_json else _show(federation)


@dev.command()
@name_option
@click.option("--all", "everything", is_flag=True, help="Every federation of this user.")
def down(name: str, everything: bool) -> None:
    """Stop a federation and remove everything that it made."""
    places = federations.Places.of_user()
    found = [federations.down(one, places, _say) for one in (federations.names(places) if everything else [name])]
    if not any(found):
        _say("there is none to stop")


@dev.command()
@click.option("--name", help="Only this one; without it, every federation of this user.")
def status(name: str | None) -> None:
    """Show which parts live and which nodes the server sees. Exit status 1 when one is missing."""
    places = federations.Places.of_user()
    names = [name] if name else federations.names(places)
    if not names:
        _say("there is no federation; start one with: skerry dev up")
    whole = [_show_parts(one, places) for one in names]
    if not all(whole):
        sys.exit(1)


@dev.command()
@name_option
@click.argument("part", default="")
@click.option("--lines", default=50, show_default=True, type=click.IntRange(1), help="How many of the last lines.")
@click.option("--follow", is_flag=True, help="Go on until interrupted.")
def logs(name: str, part: str, lines: int, follow: bool) -> None:
    """Show the logs of all parts or of PART: server, node-1, node-2, …"""
    folder = Folder(federations.Places.of_user().home / name)
    files = sorted(folder.logs.glob("*.log"))
    chosen = [file for file in files if part in {"", file.stem}]
    if not files:
        raise ConfigurationError(f"there is no federation called {name}; start one with: skerry dev up --name {name}")
    if not chosen:
        raise ConfigurationError(f"there is no part called {part}; there are: {', '.join(f.stem for f in files)}.")
    os.execvp("tail", ["tail", f"--lines={lines}", *(["--follow"] if follow else []), *map(str, chosen)])  # noqa: S606


def _say(line: str) -> None:
    click.echo(f"dev: {line}", err=True)


def _show(federation: federations.Federation) -> None:
    facts, name = federation.facts, federation.plan.name
    root, collaboration = facts["users"][0], facts["collaboration"]
    protection = f"encrypted, accepts {collaboration['accept']}" if collaboration["encrypted"] else "not encrypted"
    click.echo(f"server         {facts['server']['url']}{facts['server']['api_path']}")
    click.echo(f"collaboration  {collaboration['id']}, {protection}")
    for one in facts["organizations"]:
        click.echo(f"organization   {one['id']}, {one['name']}, key file: {one['private_key_file']}")
    click.echo(f"log in as      {root['username']}, password: {root['password']}")
    click.echo("")
    click.echo(f"For scripts: skerry dev up … --json. Logs: skerry dev logs --name {name}.")
    click.echo(f"Stop it with: skerry dev down --name {name}")


def _show_parts(name: str, places: federations.Places) -> bool:
    """Whether all parts are there."""
    alive, online = federations.alive(name, places), federations.online(name, places)
    click.echo(name)
    for part, lives in alive.items():
        seen = online.get(part.replace("-", " "))
        words = [_word("running" if lives else "DEAD", good=lives)]
        words += [] if seen is None else [_word("online" if seen else "OFFLINE", good=seen)]
        click.echo(f"  {part:<10} {', '.join(words)}")
    whole = all(alive.values()) and all(online.values())
    if not whole:
        click.echo(f"start what is missing with the same options as before: skerry dev up --name {name} …", err=True)
    return whole


def _word(word: str, *, good: bool) -> str:
    """Coloured, which click leaves out where the output is not a terminal."""
    return click.style(word, fg="green" if good else "red")


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM in the middle of starting cleans up as Ctrl-C does, and Ctrl-C also where the caller ignored it."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt as error:
        raise SkerryError("interrupted.") from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
