"""Build what of the documentation is generated, and check every link: `docs/build.py [--check]`.

With --check nothing is written, and a generated page that is not current is an error.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import click

from skerry_server.app import describe_api
from skerry_server.policy import DEFAULT_ROLES, NODE_GRANTS, RUN_GRANTS, Grant, Operation, Resource, Scope

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"

_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


def command_line() -> str:
    """The help of every command, as a page."""
    verbs = {entry.name: entry.load() for entry in sorted(entry_points(group="skerry.commands"))}
    parts = ["# The command line", "", "Generated from the commands' own help by `make docs`.", ""]
    for name, verb in verbs.items():
        parts += _section(verb, f"skerry {name}", None)
    return "\n".join(parts).rstrip() + "\n"


def _section(command: click.Command, path: str, parent: click.Context | None) -> list[str]:
    context = click.Context(command, info_name=path if parent is None else path.rsplit(" ", 1)[1], parent=parent)
    context.max_content_width = 100
    context.terminal_width = 100
    lines = [f"## {path}", "", "```", command.get_help(context).rstrip(), "```", ""]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                lines += _section(child, f"{path} {name}", context)
    return lines


def permissions() -> str:
    """Who may do what: a row for each resource and operation, a column for each role, and how far in the cells."""
    roles = {name: role.grants for name, role in DEFAULT_ROLES.items()} | {
        "*a node*": NODE_GRANTS,
        "*a run*": RUN_GRANTS,
    }
    parts = ["# Permissions", "", "Generated from the server's table (`policy.py`) by `make docs`.", ""]
    parts += [f"- **{name}**: {role.description}" for name, role in DEFAULT_ROLES.items()]
    parts += [
        "",
        "A cell says how far: to what is one's own, to one's organization, to its collaborations, or everywhere.",
        "",
    ]
    parts += ["| resource | operation | " + " | ".join(roles) + " |", "| --- " * (len(roles) + 2) + "|"]
    for resource, operation in itertools.product(Resource, Operation):
        cells = [_reach(grants, resource, operation) for grants in roles.values()]
        if any(cells):
            parts.append(f"| {resource} | {operation} | " + " | ".join(cells) + " |")
    return "\n".join(parts) + "\n"


def _reach(grants: frozenset[Grant], resource: Resource, operation: Operation) -> str:
    scopes = {grant.scope for grant in grants if (grant.resource, grant.operation) == (resource, operation)}
    return ", ".join(scope for scope in Scope if scope in scopes)


def openapi() -> str:
    """The main door's description."""
    return json.dumps(describe_api(), indent=1) + "\n"


GENERATED: dict[str, Callable[[], str]] = {
    "cli.md": command_line,
    "permissions.md": permissions,
    "openapi.json": openapi,
}


def write_or_check(*, check: bool) -> Iterator[str]:
    """Writes the generated pages; with ``check``, names those that are not current instead."""
    for name, generate in GENERATED.items():
        page, text = REFERENCE / name, generate()
        if page.exists() and page.read_text(encoding="utf-8") == text:
            continue
        if check:
            yield f"{page.relative_to(ROOT)} is not current; run: make docs"
        else:
            page.write_text(text, encoding="utf-8")


def broken_links(pages: list[Path]) -> Iterator[str]:
    """Links to files of ours, and to headings in them, that are not there."""
    for page in pages:
        text = _CODE.sub("", _FENCE.sub("", page.read_text(encoding="utf-8")))
        for target in _LINK.findall(text):
            if not re.match(r"[a-z]+:", target) and not _reaches(page, target):
                yield f"{page.relative_to(ROOT)}: {target} leads nowhere"


def _reaches(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.exists():
        return False
    return not anchor or file.suffix != ".md" or anchor in anchors(file.read_text(encoding="utf-8"))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    headings = _HEADING.findall(_FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def pages() -> list[Path]:
    """Every page of ours: at the top, in the documentation and beside the examples."""
    found = [*ROOT.glob("*.md"), *(path for top in ("docs", "examples") for path in (ROOT / top).rglob("*.md"))]
    return sorted(found)


def main() -> None:
    errors = [*write_or_check(check="--check" in sys.argv[1:]), *broken_links(pages())]
    sys.stderr.writelines(f"docs: {error}\n" for error in errors)
    if errors:
        raise SystemExit(1)
    sys.stderr.write(f"docs: {len(pages())} pages, every link leads somewhere\n")


if __name__ == "__main__":
    main()
