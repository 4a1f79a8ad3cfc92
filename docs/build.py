"""Build what of the documentation is generated, and check every link: `docs/build.py [--check]`.

With --check nothing is written, and a generated page that is not current is an error.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ROOT / "docs" / "reference" / "cli.md"

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
    generated = command_line()
    current = COMMANDS.exists() and COMMANDS.read_text(encoding="utf-8") == generated
    errors = []
    if not current and "--check" in sys.argv[1:]:
        errors.append(f"{COMMANDS.relative_to(ROOT)} is not current; run: make docs")
    elif not current:
        COMMANDS.write_text(generated, encoding="utf-8")
    errors += broken_links(pages())
    sys.stderr.writelines(f"docs: {error}\n" for error in errors)
    if errors:
        raise SystemExit(1)
    sys.stderr.write(f"docs: {len(pages())} pages, every link leads somewhere\n")


if __name__ == "__main__":
    main()
