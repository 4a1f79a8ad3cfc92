"""The ``skerry node`` command."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO

import click
from rich.console import Console
from rich.table import Table

from skerry import logs
from skerry.audit import Record, Verifier
from skerry.invitations import Invitation
from skerry.probes import PROBES
from skerry_node import cli_approvals, cli_clean, cli_import, joining, metrics
from skerry_node.checks import Finding, check_machine, judge_sandbox, try_sandbox
from skerry_node.daemon import Daemon
from skerry_node.launchers.choice import make_launcher
from skerry_node.options import CONFIG as _CONFIG
from skerry_node.options import load as _load
from skerry_node.preflight import Report, expected
from skerry_node.state import State, is_locked
from skerry_node.template import write_template
from skerry_node.trail import FOLDER, read_lines

log = logging.getLogger(__name__)


@click.group()
def node() -> None:
    """Run the node of an organization: it starts algorithms beside the data."""


@node.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def new(folder: Path) -> None:
    """Write a configuration with comments into FOLDER."""
    path = write_template(folder)
    click.echo(f"Fill in {path}, then: skerry node check --config {path}")


@node.command()
@click.argument("invitation", type=click.File("r"))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--key", "key_file", type=click.Path(path_type=Path, dir_okay=False), help="Your organization's key file, if any."
)
def join(invitation: IO[str], folder: Path, key_file: Path | None) -> None:
    """Join a collaboration with the INVITATION that its administrator sent (a file; - for standard input).

    Makes FOLDER with the node's configuration, its key to the server and, unless there are some, your organization's
    keys. An invitation is good once.
    """
    joined = joining.join(Invitation.parse(invitation.read()), folder, key_file)
    welcome = joined.welcome
    click.echo(f"Joined: {welcome.organization.name} in {welcome.collaboration.name}, as node {welcome.name}.")
    if joined.fingerprint is not None:
        click.echo(f"The fingerprint of your organization's keys: {joined.fingerprint}")
        click.echo("Read it out to the other organizations, who compare it with what they see.")
    if joined.advice is not None:
        click.echo(joined.advice)
    click.echo(f"Say in {joined.config} what you allow, then: skerry node check --config {joined.config}")


@node.command("rotate-key")
@_CONFIG
def rotate_key(path: Path) -> None:
    """Replace the node's API key. A running node and its runs go on."""
    joining.rotate_api_key(_load(path))
    click.echo("The node has a new API key; the old one is dead.")


@node.command()
@_CONFIG
def start(path: Path) -> None:
    """Serve until interrupted. Running algorithms go on, and the next start takes them up again."""
    config = _load(path)
    logs.set_up(config.log_level, config.log_format)
    state = State(config.state_folder)
    try:
        launcher = make_launcher(config, state.installation)
        for phrase in launcher.missing():
            log.warning("NOT SEPARATED, for development only: %s", phrase)
        try:
            daemon = Daemon(config, state, launcher)
            _stop_on_signals(daemon)
            with metrics.served(config.metrics, daemon):
                daemon.run()
        finally:
            launcher.close()
    finally:
        state.close()


@node.command()
@_CONFIG
@click.option("--probes", is_flag=True, help="Also list what was tried inside the sandbox, and what came of it.")
def check(path: Path, *, probes: bool) -> None:
    """Say what this machine and configuration can and can't do; ends with 1 when the node could take no runs.

    Runs the probe image as a node does before it takes runs.
    """
    config = _load(path)
    findings = check_machine(config)
    if config.launcher == "docker" and all(finding.good for finding in findings if finding.needed):
        report = try_sandbox(config)
        findings += judge_sandbox(report)
        if probes:
            _print_probes(report, config.docker.runtime)
    _print(findings)
    if any(not finding.good and finding.needed for finding in findings):
        sys.exit(1)


@node.command()
@_CONFIG
def status(path: Path) -> None:
    """Say whether the node runs and what it holds; ends with 1 when it does not run."""
    config = _load(path)
    runs = sorted(entry.name for entry in (config.state_folder / "runs").glob("*-*"))
    running = is_locked(config.state_folder)
    click.echo(f"node {config.name}: {'running' if running else 'not running'}")
    click.echo(f"runs here: {', '.join(runs) or 'none'}")
    sys.exit(0 if running else 1)


@node.command()
@_CONFIG
@click.option("--run", type=click.IntRange(1), help="Only what concerns this run.")
@click.option("--json", "as_json", is_flag=True, help="The records as they lie in the journal, a line each.")
def audit(path: Path, run: int | None, as_json: bool) -> None:
    """Tell from the audit journal what the node did; `skerry audit verify --node` says whether it is whole."""
    for record in _records(path):
        if run is not None and record.deed.about.get("run") != run:
            continue
        click.echo(record.line().decode().rstrip() if as_json else tell(record))


def _records(path: Path) -> Iterator[Record]:
    """Raises BrokenChain for what is no record."""
    verifier = Verifier()
    for number, line in enumerate(export_trail(path), start=1):
        verifier.feed(line, f"line {number}")
        value = json.loads(line)
        if "head" not in value:
            yield Record.parse(value)


def export_trail(path: Path) -> Iterator[bytes]:
    """The lines of the journal of the node with this configuration, which may run meanwhile."""
    return read_lines(_load(path).state_folder / FOLDER)


def tell(record: Record) -> str:
    """A record as a line to read."""
    deed = record.deed
    actor = " ".join(str(part) for part in (deed.actor.kind, deed.actor.id) if part is not None)
    what = " ".join(str(part) for part in (deed.object.kind, deed.object.id) if part is not None)
    details = ", ".join(
        f"{name}: {_show(value)}" for name, value in deed.details.items() if value not in (None, [], {})
    )
    return f"{record.time[:23]}  {deed.action:<14} {what} (by {actor}){f': {details}' if details else ''}"


def _show(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


node.add_command(cli_approvals.algorithms)
node.add_command(cli_approvals.approve)
node.add_command(cli_approvals.refuse)
node.add_command(cli_clean.clean)
node.add_command(cli_import.import_)


def _stop_on_signals(daemon: Daemon) -> None:
    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal asks for it
        daemon.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _print(findings: list[Finding]) -> None:
    table = Table(box=None, show_header=False)
    for finding in findings:
        mark = "[green]yes[/]" if finding.good else "[red]no[/]" if finding.needed else "[yellow]no[/]"
        table.add_row(mark, finding.what, "" if finding.good else finding.remedy)
    Console().print(table)


def _print_probes(report: Report, runtime: str) -> None:
    table = Table("probe", "an algorithm tries to", "came of it", "should", box=None)
    for probe in PROBES:
        answer, wanted = report.answers.get(probe.name, "not tried"), expected(probe, runtime)
        color = "green" if answer == wanted else "red"
        table.add_row(probe.name, probe.what, f"[{color}]{answer}[/]", str(wanted))
    Console().print(table)
