"""``skerry task``: tasks from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from skerry import outcomes
from skerry.cli.connection import Login, ask_password, connect, connected, forget, save
from skerry.errors import InputError
from skerry.output import printable
from skerry.wire import Status

if TYPE_CHECKING:
    from skerry.client import TaskHandle

_LONGEST_NAME = 40


@click.group()
def task() -> None:
    """Create tasks, wait for them, read their results.

    \b
    Log in once, or name a connection file that `skerry dev up --json` printed:
      skerry task login --server https://server.example.org --username ada --key key.pem --collaboration 1
      export SKERRY_CONNECTION=federation.json

    \b
    Then:
      skerry task create --image mean --method mean --arg column=age --database default --wait
      skerry task list --status active
      skerry task show 7
    """


@task.command()
@click.option("--server", required=True, metavar="URL", help="Such as https://server.example.org:443")
@click.option("--path", default="/api", show_default=True, help="The path of the server's API.")
@click.option("--username", required=True)
@click.option("--key", "key_file", type=click.Path(path_type=Path), help="Your organization's private key file.")
@click.option("--collaboration", type=int, help="The collaboration of all commands that don't name another.")
@click.option("--ca-file", type=click.Path(path_type=Path), help="Certificates of a private authority.")
@click.option("--mfa-code", help="The code of your second factor, if the server asks for one.")
def login(  # noqa: PLR0917 - one for each option
    server: str,
    path: str,
    username: str,
    key_file: Path | None,
    collaboration: int | None,
    ca_file: Path | None,
    mfa_code: str | None,
) -> None:
    """Log in, and keep the log-in (not the password) for the other commands.

    The password is prompted for, or read from the first line of standard input.
    """
    chosen = Login(server, path, _absolute(ca_file), _absolute(key_file), collaboration)
    client = chosen.client()
    client.authenticate(username, ask_password(username), mfa_code)
    chosen.set_up(client)
    save(Login(server, path, chosen.ca_file, chosen.private_key_file, collaboration, client.session.tokens.refresh))
    click.echo(f"logged in as {username} of organization {client.organization_id}", err=True)


@task.command()
def logout() -> None:
    """Forget the log-in."""
    click.echo("logged out" if forget() else "you were not logged in", err=True)


@task.command()
@click.option("--image", required=True, help="The algorithm.")
@click.option("--method", required=True, help="Which of its functions.")
@click.option("--arg", "arguments", multiple=True, metavar="NAME=VALUE", help="An argument; VALUE is JSON or a text.")
@click.option("--input", "input_file", type=click.File(), help="All arguments as a JSON object, from a file or -.")
@click.option("--organization", "organizations", multiple=True, type=int, help="Whose node; may be repeated.")
@click.option("--collaboration", type=int, help="In which collaboration.")
@click.option("--database", "databases", multiple=True, metavar="LABEL", help="May be repeated, in order.")
@click.option("--name", default="", help="What you call the task.")
@click.option("--wait", is_flag=True, help="Wait for the task and print its results.")
@connected
def create(  # noqa: PLR0917 - one for each option
    image: str,
    method: str,
    arguments: tuple[str, ...],
    input_file: Any,
    organizations: tuple[int, ...],
    collaboration: int | None,
    databases: tuple[str, ...],
    name: str,
    wait: bool,
    connection: Path | None,
    username: str | None,
) -> None:
    """Create a task and print its id, or with --wait its results as JSON.

    \b
      skerry task create --image mean --method mean --arg column=age --arg 'digits=2' \\
          --organization 1 --organization 2 --database default --wait

    Without --organization it is for the node of your own. Arguments on the command line can be seen by other users of
    this machine: give secret ones with --input -.
    """
    client = connect(connection, username)
    handle = client.task.create(
        organizations=list(organizations) or [client.organization_id],
        name=name or method,
        image=image,
        collaboration=collaboration,
        input_={"method": method, "kwargs": _arguments(arguments, input_file)},
        databases=[{"label": label} for label in databases],
    )
    click.echo(_as_json(_awaited(handle).results()) if wait else handle["id"])


@task.command()
@click.argument("task_id", type=int)
@click.option("--timeout", type=float, help="Give up after so many seconds; the task goes on.")
@connected
def wait(task_id: int, timeout: float | None, connection: Path | None, username: str | None) -> None:
    """Wait until all runs of a task have ended and print its status."""
    click.echo(_awaited(connect(connection, username).task.get(task_id), timeout)["status"])


@task.command()
@click.argument("task_id", type=int)
@click.option("--to", type=click.Path(file_okay=False, path_type=Path), help="Write them into files of this folder.")
@connected
def results(task_id: int, to: Path | None, connection: Path | None, username: str | None) -> None:
    """Print the results as a JSON list, one for each organization; waits for them if need be.

    With --to they are written as they are, whatever their size, and the files' names are printed.
    """
    handle = _awaited(connect(connection, username).task.get(task_id))
    if to is None:
        click.echo(_as_json(handle.results()))
    else:
        click.echo("\n".join(map(str, handle.download(to))))


@task.command("list")
@click.option("--collaboration", type=int, help="Only those of one collaboration.")
@click.option("--status", type=click.Choice([str(one) for one in Status]), help="Only those with this status.")
@click.option("--job", type=int, metavar="ID", help="Only a top-level task and all that came of it.")
@click.option("--parent", type=int, metavar="ID", help="Only the child tasks of one task.")
@click.option("--page", default=1, show_default=True, type=click.IntRange(1))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@connected
def list_(  # noqa: PLR0917 - one for each option
    collaboration: int | None,
    status: str | None,
    job: int | None,
    parent: int | None,
    page: int,
    as_json: bool,
    connection: Path | None,
    username: str | None,
) -> None:
    """List tasks, the newest first, with the task that created each."""
    tasks = connect(connection, username).task
    answer = tasks.list(collaboration=collaboration, status=status, job=job, parent=parent, page=page)
    if as_json:
        click.echo(json.dumps(answer["data"]))
        return
    click.echo(f"{'ID':>6}  {'PARENT':>6}  {'STATUS':<14}  {'NAME':<{_LONGEST_NAME}}  IMAGE")
    for row in answer["data"]:
        above = (row.get("parent") or {}).get("id", "")
        name = printable(row["name"] or "")[:_LONGEST_NAME]
        status = _coloured(row["status"], 14)
        click.echo(f"{row['id']:>6}  {above:>6}  {status}  {name:<{_LONGEST_NAME}}  {printable(row['image'])}")
    if "next" in (answer.get("links") or {}):
        click.echo(f"there are more: --page {page + 1}", err=True)


@task.command()
@click.argument("task_id", type=int)
@connected
def show(task_id: int, connection: Path | None, username: str | None) -> None:
    """Show a task, and how its runs went, with their logs."""
    handle = connect(connection, username).task.get(task_id)
    name, image = printable(handle["name"] or ""), printable(handle["image"])
    above = f", child of task {handle['parent']['id']}" if handle.get("parent") else ""
    click.echo(f"task {handle['id']}: {name}, {image}, {_coloured(handle['status'])}{above}")
    for run in handle.runs():
        click.echo(f"run {run['id']} at organization {run['organization_id']}: {_coloured(run['status'])}")
        for line in (run["log"] or "").splitlines():
            click.echo(f"    {printable(line)}")


@task.command()
@click.argument("task_id", type=int)
@connected
def kill(task_id: int, connection: Path | None, username: str | None) -> None:
    """End a task and all its child tasks."""
    connect(connection, username).task.kill(task_id)
    click.echo(f"task {task_id} is being ended", err=True)


def _awaited(task: TaskHandle, timeout: float | None = None) -> TaskHandle:
    """Waits, and says beforehand what an interruption would mean."""
    if not Status(task["status"]).finished:
        words = f"waiting for task {task['id']}; Ctrl-C leaves it running (skerry task wait {task['id']}, or kill)"
        click.echo(words, err=True)
    return task.wait(timeout)


def _coloured(status: str, width: int = 0) -> str:
    """Click leaves the colours out where the output is not a terminal."""
    colour = "red" if outcomes.failed(status) else ("green" if outcomes.ended(status) else "yellow")
    return click.style(f"{status:<{width}}", fg=colour)


def _arguments(pairs: tuple[str, ...], input_file: Any) -> dict[str, Any]:
    try:
        given = json.load(input_file) if input_file is not None else {}
    except ValueError as error:
        raise InputError("What --input gives is not JSON.") from error
    if not isinstance(given, dict):
        raise InputError("What --input gives must be a JSON object: the arguments by name.")
    return {**given, **dict(map(_pair, pairs))}


def _pair(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise InputError(f'"{text}" is not an argument: write NAME=VALUE.')
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _as_json(results: list[Any]) -> str:
    return json.dumps(results, default=_plain)


def _plain(value: Any) -> Any:
    """An array as lists, a data frame as records."""
    return value.tolist() if hasattr(value, "tolist") else value.to_dict("records")
