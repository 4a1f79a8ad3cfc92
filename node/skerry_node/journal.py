"""What a node must remember of its attempts: a folder for each, its entry replaced as a whole at each step."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from skerry.errors import NotRecorded, SkerryError
from skerry.wire import End, parse_end
from skerry_node import areas
from skerry_node.clocks import boot_id
from skerry_node.ended import EndedAttempts
from skerry_node.files import replace_file
from skerry_node.launchers.launcher import Attempt
from skerry_node.orders import Order, parse_order

log = logging.getLogger(__name__)

_LOST = "lost"
_NAME = re.compile(r"([1-9][0-9]{0,17})-([1-9][0-9]{0,9})")


class Stage(StrEnum):
    """How far an attempt is. It can have been started from ``STARTING`` on, and only then."""

    CLAIMED = "claimed"
    STARTING = "starting"
    SEALED = "sealed"


@dataclass(frozen=True, slots=True)
class Finish:
    """How the run ended, sealed: ``log`` as it travels; ``result`` says whether there is a sealed one."""

    status: End
    log: str
    result: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """``started`` is in seconds since this boot, None also for what was started before it; ``resume`` is the proxy's,
    ``user`` the run's own number; ``ports`` are those of its relays, by their names; ``vpn`` those at which the other
    runs of its job reach it, None without a VPN.
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


@dataclass(frozen=True, slots=True)
class Records:
    """What a journal holds. ``lost``: attempts of which there was an entry that can't be read."""

    entries: tuple[Entry, ...]
    lost: tuple[Attempt, ...]


class Journal:
    """The entries below one folder, and beside it what ended. Each attempt's entry is written by one thread only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o711, exist_ok=True)
        self._ended = EndedAttempts(folder.with_name("ended.sqlite3"))
        self._unconcluded: dict[Attempt, str | None] = {}

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

    def conclude(self, attempt: Attempt, task: str | None) -> None:
        """It may have been started, and is over. Raises NotRecorded: then its entry stays until ``catch_up``."""
        self._unconcluded[attempt] = task
        self._ended.add(attempt, task)
        self.remove(attempt)
        self._unconcluded.pop(attempt, None)

    def catch_up(self) -> None:
        """Concludes what could not be written down before, as far as there is room now; by one thread only."""
        with contextlib.suppress(NotRecorded):
            for attempt, task in list(self._unconcluded.items()):
                self.conclude(attempt, task)

    def is_over(self, order: Order) -> bool:
        """Whether that very attempt was concluded here. Raises NotRecorded."""
        return self._ended.has(order.key, order.task.uuid)

    def lose(self, attempt: Attempt) -> None:
        """Notes, on the disk, that the attempt may have been started; nothing else of it is kept."""
        folder = self.folder(attempt)
        folder.mkdir(mode=0o711, exist_ok=True)
        replace_file(folder / _LOST, "")
        (folder / "entry.json").unlink(missing_ok=True)
        self.sealed(attempt).unlink(missing_ok=True)
        areas.remove(folder / "data")

    def read(self) -> Records:
        """All entries, and those that are damaged. Folders without either are removed."""
        entries, lost = list[Entry](), list[Attempt]()
        for folder in sorted(self._folder.iterdir()):
            attempt = _parse_name(folder.name)
            if attempt is None:
                log.warning("%s is none of this node's and is left alone", folder)
            elif (folder / _LOST).exists():
                lost.append(attempt)
            elif not (folder / "entry.json").exists():
                areas.remove(folder / "data")
                shutil.rmtree(folder, ignore_errors=True)
            elif (entry := _read_entry(folder / "entry.json", attempt)) is not None:
                entries.append(entry)
            else:
                lost.append(attempt)
        return Records(tuple(entries), tuple(lost))

    def close(self) -> None:
        self._ended.close()


def _parse_name(name: str) -> Attempt | None:
    found = _NAME.fullmatch(name)
    return Attempt(int(found[1]), int(found[2])) if found else None


def _read_entry(path: Path, attempt: Attempt) -> Entry | None:
    """None, and a line in the log, for one that is damaged."""
    try:
        entry = _load(path.read_bytes())
    except (OSError, ValueError, SkerryError) as error:
        # What is in it may be the algorithm's own: only what is wrong is told.
        log.error("%s is damaged (%s): its run ends without a result", path, type(error).__name__)  # noqa: TRY400
        return None
    if entry.key != attempt or (entry.stage is not Stage.CLAIMED and entry.resume is None):
        log.error("%s is damaged (it is not whole): its run ends without a result", path)
        return None
    return entry


def _dump(entry: Entry) -> dict[str, Any]:
    finish = asdict(entry.finish) if entry.finish else None
    return {
        "order": entry.order.raw,
        "stage": entry.stage,
        "resume": entry.resume,
        "user": entry.user,
        "started": entry.started,
        "boot": boot_id(),
        "finish": finish,
        "ports": dict(entry.ports),
        "vpn": None if entry.vpn is None else list(entry.vpn.items()),
    }


class _Stored(BaseModel):
    """An entry as it lies on the disk, where anything may have happened to it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    order: dict[str, Any]
    stage: str
    resume: dict[str, Any] | None
    user: Annotated[int, Field(gt=0)] | None
    started: float | None
    boot: str | None = None  # a version before this one wrote the time of day, and no boot
    finish: _StoredFinish | None
    ports: dict[str, int]
    vpn: list[tuple[int, str | None]] | None


class _StoredFinish(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    status: str
    log: str
    result: bool


def _load(raw: bytes) -> Entry:
    stored = _Stored.model_validate_json(raw)
    finish = stored.finish
    return Entry(
        order=parse_order(stored.order),
        stage=Stage(stored.stage),
        resume=stored.resume,
        user=stored.user,
        started=stored.started if stored.boot == boot_id() else None,
        finish=Finish(parse_end(finish.status), finish.log, finish.result) if finish else None,
        ports=stored.ports,
        vpn=None if stored.vpn is None else dict(stored.vpn),
    )
