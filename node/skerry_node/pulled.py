"""The algorithm images that a node has pulled itself, and which of them the owner's policy lets go.

Images that were on the machine before, or came by another way, are never in here, so never removed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from skerry_node.config import KeepImages
from skerry_node.files import replace_file

log = logging.getLogger(__name__)

_FRESH = 60.0
"""Seconds in which another use is not written down anew."""
_GRACE = 3600.0
"""Seconds in which an image that was just asked for may not have got its container yet."""


class Pulled(BaseModel):
    """An image by its id, the names under which it was pulled, when a run last asked for it (Unix seconds)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str
    references: tuple[str, ...]
    used: float


_ENTRIES = TypeAdapter(tuple[Pulled, ...])


class PulledImages:
    """Kept in one file of the node's. Safe for threads."""

    def __init__(self, state: Path) -> None:
        self._path = state / "images.json"
        self._lock = threading.Lock()

    def list(self) -> tuple[Pulled, ...]:
        """Empty when the file is damaged: what is not known is not removed."""
        try:
            return _ENTRIES.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return ()
        except (OSError, ValidationError):
            log.warning("%s can't be read: no image that it lists is removed any more", self._path)
            return ()

    def note_use(self, image: str, reference: str, now: float, *, new: bool) -> None:
        """A run asked for it. One that is neither ``new`` on the machine nor known is not the node's."""
        with self._lock:
            known = {one.image: one for one in self.list()}
            old = known.get(image)
            if old is None and not new:
                return
            if old is None or reference not in old.references or now > old.used + _FRESH:
                names = old.references if old is not None else ()
                known[image] = Pulled(image=image, references=tuple(dict.fromkeys((*names, reference))), used=now)
                self._write(known)

    def forget(self, image: str) -> None:
        with self._lock:
            self._write({one.image: one for one in self.list() if one.image != image})

    def _write(self, known: Mapping[str, Pulled]) -> None:
        """Does not raise: an image that is not in the file is kept longer than it had to be, and no more."""
        try:
            replace_file(self._path, _ENTRIES.dump_json(tuple(known.values()), indent=1).decode())
        except OSError as error:
            log.warning("The images that were pulled can't be written down: %s: make room on the disk", error)


def choose(
    entries: Collection[Pulled], sizes: Mapping[str, int], in_use: Collection[str], keep: KeepImages, now: float
) -> list[Pulled]:
    """Those to remove: not used for too long, or, least recently used first, more than there is room for.

    ``sizes`` (bytes) has the images that are still there, ``in_use`` those that a container was made of.
    """
    there = sorted((one for one in entries if one.image in sizes), key=lambda one: one.used)
    removable = [one for one in there if one.image not in in_use and one.used < now - _GRACE]
    chosen = []
    total = sum(sizes[one.image] for one in there)
    for one in removable:
        too_old = keep.days is not None and one.used < now - keep.days * 86400
        too_much = keep.size is not None and total > keep.size
        if too_old or too_much:
            chosen.append(one)
            total -= sizes[one.image]
    return chosen
