"""The folder of a node: its configuration, its key to the server, its share of the data."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skerry.dev.connection import API_PATH
from skerry.dev.folder import Folder, write_private
from skerry.dev.plan import Plan
from skerry.dev.processes import Process

PARALLEL_RUNS = 4


@dataclass(frozen=True, slots=True)
class Post:
    """What a node needs to report at its server."""

    name: str
    api_key: str
    url: str


def write(folder: Folder, plan: Plan, number: int, post: Post, registry: Path) -> None:
    """Makes the folder of node ``number`` (from 1) with its configuration, ``node.yaml``."""
    home = folder.node(number)
    (home / "data").mkdir(parents=True)
    # Others may pass through, to what is theirs, but not look around.
    home.chmod(folder.path.stat().st_mode & 0o777)
    write_private(home / "api-key", post.api_key)
    configuration = {
        "name": post.name,
        "server": {"url": post.url, "api_path": API_PATH},
        "api_key_file": str(home / "api-key"),
        "state_folder": str(home / "state"),
        "encryption": {"private_key_file": str(folder.key(number))} if plan.encrypted else None,
        "databases": [_share(home / "data", plan, index, number) for index in range(len(plan.databases))],
        "policies": {"unsigned_tasks": "allow" if plan.admits_unsigned else "refuse"},
        "limits": {"parallel_runs": PARALLEL_RUNS},
        "launcher": plan.launcher,
        "process": {"registry": str(registry)},
        "development": True,
    }
    # JSON is YAML too.
    write_private(home / "node.yaml", json.dumps(_merge(configuration, plan.node_settings), indent=2) + "\n")


def _merge(ours: Any, more: Any) -> Any:
    """Sections are merged and lists appended to; of two values the second counts."""
    if isinstance(ours, dict) and isinstance(more, dict):
        return {**ours, **{key: _merge(ours[key], value) if key in ours else value for key, value in more.items()}}
    if isinstance(ours, list) and isinstance(more, list):
        return [*ours, *more]
    return more


def _share(folder: Path, plan: Plan, index: int, number: int) -> dict[str, str]:
    """A read-only copy: the original may change or be closed to the user of a run."""
    database = plan.databases[index]
    source = Path(database.files[number - 1])
    kind = database.type
    if kind == "folder":
        copy = folder / database.label
        shutil.copytree(source, copy)
    else:
        copy = folder / f"{database.label}{source.suffix.lower()}"
        shutil.copyfile(source, copy)
    _open_to_runs(copy)
    return {"label": database.label, "uri": str(copy), "type": kind}


def _open_to_runs(path: Path) -> None:
    """Readable for every user and writable for none, with all in it."""
    for one in (path, *path.rglob("*")):
        one.chmod(0o555 if one.is_dir() else 0o444)


def installation(folder: Folder, number: int) -> str | None:
    """The id by which a node labels its containers; None when it never got so far."""
    try:
        return (folder.node(number) / "state" / "installation").read_text().strip()
    except OSError:
        return None


def sandbox(folder: Folder, number: int, pid: int) -> list[str] | None:
    """What the node of this process found amiss with its sandbox; None while it has not tried it yet."""
    try:
        teller, *problems = (folder.node(number) / "state" / "sandbox").read_text().splitlines()
    except (FileNotFoundError, ValueError):
        return None
    return problems if teller == str(pid) else None


def minders(folder: Folder, number: int) -> list[Process]:
    """The processes that watch over the algorithms of a node with the process launcher, and end with them."""
    found = []
    for file in folder.node(number).glob("state/processes/*/minder"):
        try:
            pid, started = file.read_text().split()
            found.append(Process(int(pid), int(started)))
        except (OSError, ValueError):
            continue
    return found


def environment() -> dict[str, str]:
    """What a part of the federation gets of ours: enough to start Python and find the engine."""
    engine, python = ("DOCKER_HOST", "XDG_RUNTIME_DIR"), ("VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    kept = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", *engine, *python)
    return {name: os.environ[name] for name in kept if name in os.environ}
