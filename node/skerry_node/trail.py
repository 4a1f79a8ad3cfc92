"""The node's audit journal: JSON lines, each bound to the one before (``skerry.audit``), in files that only grow.

The files of one folder are one chain: ``audit.jsonl`` is written to; a full one is put aside under the number of its
last record, and the chain goes on. ``head`` beside them says how far it has come: a journal that ends before that was
cut. Nothing here is ever deleted.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import secrets
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from skerry.audit import Deed, Head, Record, What, Who, follow
from skerry.errors import ConfigurationError, NotRecorded
from skerry.wire import canonical

log = logging.getLogger(__name__)

FOLDER = "audit"
_CURRENT = "audit.jsonl"
_HEAD = "head"
_ASIDE = re.compile(r"audit\.(\d{12})\.jsonl")
_LARGEST = 16 << 20
_CLOSED = -1
_TRIES = 10
_REMEDY = "run skerry audit verify --node, keep the folder as evidence, and move it away to begin a new chain."


class Trail:
    """Safe for threads; one process at a time. Raises ConfigurationError for a journal that can't be gone on with.

    ``write`` raises NotRecorded, and then nothing may be done; ``ready`` says whether writing works (again).
    """

    def __init__(self, folder: Path, clock: Callable[[], datetime], largest: int = _LARGEST) -> None:
        self._folder = folder
        self._clock = clock
        self._largest = largest
        self._lock = threading.Lock()
        self._broken = False
        self._written: Counter[tuple[str, str]] = Counter()
        self._pins: dict[int, tuple[str, bool]] = {}
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            torn = _drop_torn(folder / _CURRENT)
            self._head = _find_head(folder)
            self._file = _append_to(folder / _CURRENT)
            self._head_file = os.open(folder / _HEAD, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _sync(folder)
        except OSError as error:
            raise ConfigurationError(f"{folder}: the audit journal can't be opened ({error.strerror}).") from error
        if torn:
            self.write("journal.repair", What("journal"), bytes=torn)

    @property
    def head(self) -> Head:
        return self._head

    def close(self) -> None:
        """What a thread still has to tell is refused then; it does not go into what has the descriptors next."""
        with self._lock:
            closed, self._file, self._head_file = {self._file, self._head_file}, _CLOSED, _CLOSED
            for descriptor in closed - {_CLOSED}:
                os.close(descriptor)

    def write(
        self,
        action: str,
        object_: What,
        about: Mapping[str, int] | None = None,
        actor: Who | None = None,
        *,
        durable: bool = False,
        **details: Any,
    ) -> None:
        """One record; with ``durable`` it, and all before it, are on the disk when this returns."""
        deed = Deed(actor or Who("node"), action, object_, about or {}, details)
        with self._lock:
            try:
                self._append(deed, durable=durable)
            except (OSError, ValueError, TypeError) as error:
                self._broken = True
                raise NotRecorded(
                    f"The node can't write its audit journal in {self._folder} ({error}), so it does nothing more: "
                    "make room on the disk."
                ) from error
            self._broken = False
            self._written[action, str(details.get("status", ""))] += 1

    @property
    def writable(self) -> bool:
        """Whether the last record could be written."""
        return not self._broken

    def written(self) -> Mapping[tuple[str, str], int]:
        """How many records of each action, and status where they have one, this process has written."""
        with self._lock:
            return dict(self._written)

    def note_pins(self, pins: list[dict[str, Any]]) -> None:
        """Records those keys of organizations that are pinned otherwise than when this was last called.

        Raises NotRecorded.
        """
        for pin in pins:
            organization, about = int(pin["organization_id"]), {"organization": int(pin["organization_id"])}
            fingerprint, confirmed = known = str(pin["fingerprint"]), bool(pin["confirmed"])
            if self._pins.get(organization) != known:
                what = What("organization", organization)
                self.write("key.pin", what, about, durable=True, fingerprint=fingerprint, confirmed=confirmed)
                self._pins[organization] = known

    def ready(self) -> bool:
        """Whether the journal can be written; after a failure it is tried."""
        if self._broken:
            try:
                self.write("journal.resume", What("journal"), durable=True)
            except NotRecorded as error:
                log.error("%s The node takes no runs.", error)  # noqa: TRY400 - the sentence says it all
                return False
            log.warning("The audit journal can be written again.")
        return True

    def _append(self, deed: Deed, *, durable: bool) -> None:
        record = follow(self._head, deed, self._clock().isoformat(timespec="microseconds"))
        line, size = record.line(), os.fstat(self._file).st_size
        if size + len(line) > self._largest and size:
            self._rotate()
            size = 0
        try:
            _write_all(self._file, line)
            if durable:
                os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, size)
            raise
        self._head = record.head
        if durable:
            os.pwrite(self._head_file, canonical(record.head.as_dict()).ljust(256) + b"\n", 0)

    def _rotate(self) -> None:
        os.fsync(self._file)
        (self._folder / _CURRENT).rename(self._folder / f"audit.{self._head.sequence:012d}.jsonl")
        full, self._file = self._file, _append_to(self._folder / _CURRENT)
        os.close(full)
        _sync(self._folder)


def now() -> datetime:
    return datetime.now(UTC)


def files_of(folder: Path) -> list[Path]:
    """The files of a journal, oldest first."""
    aside = sorted(path for path in folder.glob("audit.*.jsonl") if _ASIDE.fullmatch(path.name))
    current = folder / _CURRENT
    return [*aside, current] if current.exists() else aside


def read_lines(folder: Path) -> Iterator[bytes]:
    """All records of a journal as they lie there, then the head that was noted; a node may write meanwhile.

    Raises ConfigurationError.
    """
    try:
        said = _noted_head(folder)
        with ExitStack() as opened:
            for file in _open_all(folder, opened):
                yield from (line for line in file if line.endswith(b"\n"))
    except OSError as error:
        raise ConfigurationError(f"{folder}: the audit journal can't be read ({error.strerror}).") from error
    if said is not None:
        yield canonical({"head": said.as_dict()}) + b"\n"


def _open_all(folder: Path, opened: ExitStack) -> Sequence[BinaryIO]:
    """The files of one moment, oldest first: none has been put aside while they were opened. Raises OSError."""
    for _ in range(_TRIES):
        paths = files_of(folder)
        with suppress(FileNotFoundError):
            files = [opened.enter_context(path.open("rb")) for path in paths]
            if files_of(folder) == paths:
                return files
    raise FileNotFoundError(errno.ENOENT, "one of its files is not there")


def _find_head(folder: Path) -> Head:
    """Where the chain goes on. Raises ConfigurationError when its end is not what was noted."""
    noted, files = _noted_head(folder), [path for path in files_of(folder) if path.stat().st_size]
    found = _last_record(files[-1]).head if files else None
    if noted is not None and (found is None or found.sequence < noted.sequence):
        last = found.sequence if found else 0
        raise ConfigurationError(
            f"{folder}: the audit journal was cut: of {noted.sequence} records {last} are left; {_REMEDY}"
        )
    return found or Head(f"node-{secrets.token_hex(8)}")


def _last_record(path: Path) -> Record:
    with path.open("rb") as file:
        [line] = deque(file, maxlen=1)
    try:
        record = Record.parse(json.loads(line))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: the last audit record is damaged ({error}); {_REMEDY}") from error
    if not record.holds:
        raise ConfigurationError(f"{path}: the last audit record was changed; {_REMEDY}")
    return record


def _noted_head(folder: Path) -> Head | None:
    path = folder / _HEAD
    text = path.read_bytes().strip() if path.exists() else b""
    try:
        return Head.parse(json.loads(text)) if text else None
    except ValueError as error:
        raise ConfigurationError(f"{path} is damaged ({error}); {_REMEDY}") from error


def _drop_torn(path: Path) -> int:
    """Cuts off a last line that a crash left unfinished: nobody acted on it. Its length in bytes."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        file.truncate(whole)
    return len(content) - whole


def _append_to(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _write_all(file: int, line: bytes) -> None:
    written = os.write(file, line)
    if written != len(line):
        raise OSError(None, "the disk is full")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
