"""Ways through folders in which others are at work: what goes meanwhile is left out (``Path.rglob`` fails)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def below(folder: Path, name: str | None = None) -> list[Path]:
    """All files and folders below this one, or those of that name; in order."""
    found = (Path(parent, one) for parent, folders, files in os.walk(folder) for one in (*folders, *files))
    return sorted(path for path in found if name in {None, path.name})


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """The files below a folder with what is in them; links are not followed."""
    for path in below(folder):
        try:
            if path.is_file() and not path.is_symlink():
                yield path, path.read_bytes()
        except FileNotFoundError:
            continue
