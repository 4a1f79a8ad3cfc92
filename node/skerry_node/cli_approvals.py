"""``skerry node algorithms``, ``approve`` and ``refuse``: the owner's word on what waits for it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from skerry_node.approvals import Approvals, Decision, Question, Verdict
from skerry_node.options import CONFIG, load

_SHORT = 12
_SHORTEST = 4
_NOBODY_LOGGED_IN = 2**32 - 1
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_YES = click.option("--yes", is_flag=True, help="Do not ask again.")
_FUNCTIONS = click.option("--function", "functions", multiple=True, help="Only this function; may be given repeatedly.")
_ALL = click.option("--all-functions", is_flag=True, help="All functions of the image, also those not asked for yet.")


@click.command()
@CONFIG
@_JSON
def algorithms(path: Path, *, as_json: bool) -> None:
    """List the algorithms that were asked for and wait, or waited, for your approval."""
    approvals = Approvals(load(path).state_folder)
    rows = _rows(approvals)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif rows:
        _print(rows)
    else:
        click.echo("Nothing was asked for.")


@click.command()
@click.argument("ref")
@CONFIG
@_FUNCTIONS
@_ALL
@_YES
@_JSON
def approve(ref: str, path: Path, functions: tuple[str, ...], *, all_functions: bool, yes: bool, as_json: bool) -> None:
    """Approve an image, named by its REF in `skerry node algorithms`: for the functions that wait for a decision.

    Runs that wait for it go on at once. It holds for this very content of the image, until `skerry node refuse`.
    """
    _decide(path, ref, _Wish(Verdict.APPROVED, functions, all_functions), yes=yes, as_json=as_json)


@click.command()
@click.argument("ref")
@CONFIG
@_FUNCTIONS
@_ALL
@_YES
@_JSON
def refuse(ref: str, path: Path, functions: tuple[str, ...], *, all_functions: bool, yes: bool, as_json: bool) -> None:
    """Refuse an image, named by its REF in `skerry node algorithms`: runs that wait for it end as not allowed."""
    _decide(path, ref, _Wish(Verdict.REFUSED, functions, all_functions), yes=yes, as_json=as_json)


class _Wish:
    """What the owner wants to be so, for these functions."""

    def __init__(self, verdict: Verdict, functions: Sequence[str], all_functions: bool) -> None:
        if functions and all_functions:
            raise click.UsageError("--function and --all-functions can't be used together.")
        self.verdict = verdict
        self._functions = functions
        self._all = all_functions

    def choose(self, questions: Sequence[Question], approvals: Approvals) -> list[str | None]:
        """Without a word about functions: those not decided yet, or else all. Raises UsageError for an unknown one."""
        asked = [question.function for question in questions]
        for function in self._functions:
            if function not in asked:
                raise click.UsageError(f'Nobody asked for a function "{function}"; asked for: {", ".join(asked)}.')
        if self._all:
            return [None]
        undecided = [one.function for one in questions if approvals.find_verdict(one.image, one.function) is None]
        return list(self._functions or undecided or asked)


def _decide(path: Path, ref: str, wish: _Wish, *, yes: bool, as_json: bool) -> None:
    approvals = Approvals(load(path).state_folder)
    questions = _find(approvals.questions(), ref)
    functions = wish.choose(questions, approvals)
    image = questions[0].image
    if not yes:
        _show(questions)
        names = ", ".join("all functions" if name is None else f'"{name}"' for name in functions)
        verb = "Approve" if wish.verdict is Verdict.APPROVED else "Refuse"
        click.confirm(f"{verb} {names} of {questions[0].reference} ({image})?", abort=True, err=True)
    now, user = time.time(), _login_user()
    decisions = [Decision(image=image, function=name, verdict=wish.verdict, at=now, by=user) for name in functions]
    approvals.decide(decisions)
    if as_json:
        click.echo(json.dumps([decision.model_dump(mode="json") for decision in decisions], indent=2))
    else:
        click.echo(f"{wish.verdict}: {', '.join(name or 'all functions' for name in functions)} of {_ref(image)}")


def _login_user() -> int:
    """Who logged in on this machine, where the kernel knows: behind sudo too; else whose process this is."""
    try:
        user = int(Path("/proc/self/loginuid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        user = _NOBODY_LOGGED_IN
    return os.getuid() if user == _NOBODY_LOGGED_IN else user


def _find(questions: Sequence[Question], ref: str) -> list[Question]:
    """The questions about the one image that is meant. Raises UsageError."""
    digest = ref.removeprefix("sha256:")
    found = [one for one in questions if len(digest) >= _SHORTEST and _hex(one.image).startswith(digest)]
    if not found:
        raise click.UsageError(f'Nothing known is "{ref}"; `skerry node algorithms` lists what was asked for.')
    if len({one.image for one in found}) > 1:
        raise click.UsageError(f'More than one image begins with "{ref}"; write more of it.')
    return found


def _hex(image: str) -> str:
    return image.rpartition(":")[2]


def _ref(image: str) -> str:
    return _hex(image)[:_SHORT]


def _rows(approvals: Approvals) -> list[dict[str, Any]]:
    return [
        {
            "ref": _ref(one.image),
            **one.model_dump(mode="json"),
            "decision": approvals.find_verdict(one.image, one.function),
        }
        for one in approvals.questions()
    ]


def _print(rows: Sequence[dict[str, Any]]) -> None:
    """The names are what strangers chose: no markup is taken from them."""
    table = Table(box=None)
    for title in ("ref", "image", "function", "databases", "asked by", "at", "waiting runs", "decision"):
        table.add_column(title, overflow="fold")
    for row in rows:
        cells = (
            row["ref"],
            row["reference"],
            row["function"],
            ", ".join(row["databases"]) or "none",
            _asker(row),
            datetime.fromtimestamp(row["since"], UTC).strftime("%Y-%m-%d %H:%M UTC"),
            ", ".join(map(str, row["runs"])) or "none",
            row["decision"] or "none yet",
        )
        table.add_row(*(escape(str(cell)) for cell in cells))
    Console().print(table)


def _asker(row: dict[str, Any]) -> str:
    claim = "" if row["signed"] else " (the server's claim)"
    return f"user {row['user']} of organization {row['organization']}{claim}"


def _show(questions: Sequence[Question]) -> None:
    for question in questions:
        click.echo(f"image      {question.reference}\nid         {question.image}", err=True)
        for digest in question.digests:
            click.echo(f"digest     {digest}", err=True)
        click.echo(f"function   {question.function}\nasked by   {_asker(question.model_dump())}\n", err=True)
