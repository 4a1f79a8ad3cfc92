"""What a node must remember of its attempts: a folder for each, its entry replaced as a whole at each step."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from skerry.errors import SkerryError
from skerry.wire import Status
from skerry_node import areas
from skerry_node.files import replace_file
from skerry_node.launchers.launcher import Attempt
from skerry_node.orders import Order, parse_order

log = logging.getLogger(__name__)


class Stage(StrEnum):
    """How far an attempt is. It can have been started from ``STARTING`` on, and only then."""

    CLAIMED = "claimed"
    STARTING = "starting"
    SEALED = "sealed"


@dataclass(frozen=True, slots=True)
class Finish:
    """How the run ended, sealed: ``log`` as it travels; ``result`` says whether there is a sealed one."""

    status: Status
    log: str
    result: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """``started`` is Unix seconds, ``resume`` the proxy's, ``user`` the run's own number; ``ports`` are those of its
    relays, by their names; ``vpn`` those at which the other runs of its job reach it, None without a VPN.
    """

    order: Order
    stage: Stage = Stage.CLAIMED
    resume: dict[str, Any] | None = None
    user: int | None = None
    started: float | None = None
    finish: Finish | None = None
    ports: Mapping[str, int] = field(default_factory=dict)
    vpn: Mapping[int, str | None] | None = None

    @property
    def key(self) -> Attempt:
        return self.order.key


class Journal:
    """The entries below one folder. Each attempt's entry is written by one thread only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o711, exist_ok=True)

    def folder(self, attempt: Attempt) -> Path:
        return self._folder / str(attempt)

    def data(self, attempt: Attempt) -> Path:
        """The area that holds the run's own files while it runs."""
        return self.folder(attempt) / "data"

    def sealed(self, attempt: Attempt) -> Path:
        """The sealed result: ciphertext, until it is delivered (in a plain collaboration: the result)."""
        return self.folder(attempt) / "sealed"

    def write(self, entry: Entry) -> None:
        """On the disk when this returns."""
        folder = self.folder(entry.key)
        folder.mkdir(mode=0o711, exist_ok=True)
        replace_file(folder / "entry.json", json.dumps(_dump(entry)))

    def remove(self, attempt: Attempt) -> None:
        """The entry goes first, so that what is left of a removal that broke off is only rubbish."""
        folder = self.folder(attempt)
        (folder / "entry.json").unlink(missing_ok=True)
        areas.remove(folder / "data")
        shutil.rmtree(folder, ignore_errors=True)

    def read(self) -> list[Entry]:
        """All entries; folders without one are removed. A damaged one is left alone, and said."""
        entries = []
        for folder in sorted(self._folder.iterdir()):
            if not (folder / "entry.json").exists():
                areas.remove(folder / "data")
                shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                entries.append(_load(json.loads((folder / "entry.json").read_bytes())))
            except (ValueError, KeyError, TypeError, SkerryError) as error:
                log.warning("%s is damaged and is left alone: %s", folder / "entry.json", error)
        return entries


def _dump(entry: Entry) -> dict[str, Any]:
    finish = asdict(entry.finish) if entry.finish else None
    return {
        "order": entry.order.raw,
        "stage": entry.stage,
        "resume": entry.resume,
        "user": entry.user,
        "started": entry.started,
        "finish": finish,
        "ports": dict(entry.ports),
        "vpn": None if entry.vpn is None else list(entry.vpn.items()),
    }


def _load(value: dict[str, Any]) -> Entry:
    finish = value["finish"]
    return Entry(
        order=parse_order(value["order"]),
        stage=Stage(value["stage"]),
        resume=value["resume"],
        user=value["user"],
        started=value["started"],
        finish=Finish(Status(finish["status"]), finish["log"], finish["result"]) if finish else None,
        ports=value["ports"],
        vpn=None if value["vpn"] is None else {int(port): label for port, label in value["vpn"]},
    )
