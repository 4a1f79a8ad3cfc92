"""Algorithms that wait for their owner's word: what is asked for, and what was decided, each in a file of its own.

Only the daemon writes what is asked for, and only the command line what is decided, so that a decision can be made
whether the node runs or not. Decisions hold for the content of an image, whatever its name.
"""

from __future__ import annotations

import fcntl
import logging
import stat
import threading
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from skerry.errors import ConfigurationError, SkerryError
from skerry_node.files import replace_file

log = logging.getLogger(__name__)
T = TypeVar("T")

MOST_WAITING = 64
_MOST_REMEMBERED = 500
_LONGEST_NAME = 200


class NotAskable(SkerryError):
    """The owner can't be asked for this; the sentence is for the user."""


class Verdict(StrEnum):
    APPROVED = "approved"
    REFUSED = "refused"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Question(_Record):
    """A function of an image (its ``image`` id, under which names it was asked for), and the runs that wait for it.

    ``user``, ``organization`` and ``databases`` are those of whoever asked last, at ``since`` (Unix seconds).
    """

    image: str
    function: str
    reference: str
    digests: tuple[str, ...]
    databases: tuple[str, ...]
    user: int | None
    organization: int
    signed: bool
    since: float
    runs: tuple[int, ...] = ()


class Decision(_Record):
    """``function`` None: all that nothing else was decided for. ``by``: the user of the machine who decided."""

    image: str
    function: str | None
    verdict: Verdict
    at: float
    by: int | None = None


_QUESTIONS = TypeAdapter(tuple[Question, ...])
_DECISIONS = TypeAdapter(tuple[Decision, ...])


class Approvals:
    """What is in a node's state folder about it. Safe for threads; see above for processes."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "approvals"
        self._lock = threading.Lock()

    # --- for the daemon ----------------------------------------------------------------------------------

    def start(self) -> None:
        """No run waits: those of an earlier daemon will ask again."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with self._lock:
            try:
                questions = self.questions()
            except ConfigurationError as error:
                log.warning("%s What was asked for is forgotten.", error)
                questions = ()
            self._write_questions([one.model_copy(update={"runs": ()}) for one in questions])

    def ask(self, question: Question) -> None:
        """Lists the runs of the question as waiting. Raises NotAskable."""
        if not question.function.isprintable() or len(question.function) > _LONGEST_NAME:
            raise NotAskable("The owner of this node can't be asked for a function of such a name.")
        with self._lock:
            questions = list(self.questions())
            if sum(len(one.runs) for one in questions) >= MOST_WAITING:
                raise NotAskable("Too many runs wait for approval by the owner of this node; try again later.")
            old = next((one for one in questions if _same(one, question)), None)
            if old is not None:
                questions.remove(old)
                question = question.model_copy(update={"runs": (*old.runs, *question.runs)})
            self._write_questions([*questions, question])

    def withdraw(self, run: int) -> None:
        """The run waits no longer; that it was asked for stays listed."""
        with self._lock:
            left = [
                one.model_copy(update={"runs": tuple(other for other in one.runs if other != run)})
                for one in self.questions()
            ]
            self._write_questions(left)

    def find_verdict(self, image: str, function: str) -> Verdict | None:
        """None while nothing is decided, and when what was decided can't be trusted."""
        try:
            decided = {one.function: one.verdict for one in self.decisions() if one.image == image}
        except ConfigurationError as error:
            log.warning("%s Nothing counts as approved.", error)
            return None
        return decided.get(function, decided.get(None))

    def _write_questions(self, questions: Sequence[Question]) -> None:
        waiting = sum(bool(one.runs) for one in questions)
        kept = [one for one in questions if not one.runs][-max(_MOST_REMEMBERED - waiting, 1) :]
        kept += [one for one in questions if one.runs]
        replace_file(self._folder / "asked.json", _QUESTIONS.dump_json(tuple(kept), indent=1).decode())

    def waiting_images(self) -> set[str]:
        """The ids of the images that runs wait for. Raises ConfigurationError when the file is damaged."""
        return {one.image for one in self.questions() if one.runs}

    # --- for the owner -----------------------------------------------------------------------------------

    def questions(self) -> tuple[Question, ...]:
        """Oldest first. Raises ConfigurationError when the file is damaged."""
        return _read(self._folder / "asked.json", _QUESTIONS)

    def decisions(self) -> tuple[Decision, ...]:
        """Raises ConfigurationError when the file is damaged, or open to others."""
        return _read(self._folder / "decided.json", _DECISIONS)

    def decide(self, new: Sequence[Decision]) -> None:
        """From now on; a decision about all functions of an image takes the place of those about single ones."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = [old for old in self.decisions() if not any(_replaces(one, old) for one in new)]
            replace_file(self._folder / "decided.json", _DECISIONS.dump_json((*kept, *new), indent=1).decode())


def _same(one: Question, other: Question) -> bool:
    return (one.image, one.function) == (other.image, other.function)


def _replaces(new: Decision, old: Decision) -> bool:
    return new.image == old.image and new.function in {None, old.function}


def _read(path: Path, kind: TypeAdapter[tuple[T, ...]]) -> tuple[T, ...]:
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read ({error.strerror}).") from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigurationError(f"{path} is open to other users of this machine; close it with chmod 600 {path}.")
    try:
        return kind.validate_json(content)
    except ValidationError as error:
        raise ConfigurationError(f"{path} is damaged; remove it to begin anew.") from error
