"""How a run ended: what is made of its exit, its log and the result that it wrote."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from skerry.output import ERROR_MARK
from skerry.wire import End, Limit, Status
from skerry_node.course import Course
from skerry_node.launchers.launcher import Ended
from skerry_node.output import BadOutput, Output, is_whole, open_output
from skerry_proxy.logs import shorten

_SIGNALS = range(129, 193)
"""Exit codes of what a signal has ended."""
_UNKNOWN_CODE = 255
"""What the engine says of a container whose end it missed, and also of one that ended with it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: its whole log, and its result when it is completed."""

    status: End
    log: str
    output: Output | None = None


def add_sentence(text: str, sentence: str) -> str:
    return f"{text}\n{ERROR_MARK}{sentence}\n".lstrip("\n")


def collect(course: Course, ended: Ended, *, watched: bool) -> Outcome:
    """Reads the log and, after a good end, opens the result. ``watched``: the engine was there all the time."""
    text = course.patiently(lambda: read_log(course))
    if ended.reason is not None:
        return Outcome(_name_end(ended), add_sentence(text, ended.reason))
    if ended.code == _UNKNOWN_CODE and not watched:
        return _judge(course, text)
    if ended.code != 0:
        return Outcome(Status.CRASHED, _add_exit(course, text, ended.code))
    try:
        return Outcome(Status.COMPLETED, text, _open_output(course))
    except BadOutput as error:
        return Outcome(Status.CRASHED, add_sentence(text, str(error)))


def _name_end(ended: Ended) -> End:
    """Of an algorithm that did not come to its own."""
    if not ended.started:
        return Status.START_FAILED
    return Limit.TIME if ended.late else Status.FAILED


def read_log(course: Course) -> str:
    """What the algorithm wrote, where the owner gives that out: it can hold whatever the algorithm saw."""
    config = course.parts.config
    if not config.share.logs:
        return "The owner of this node does not give out what algorithms write to their logs.\n"
    return shorten(course.parts.launcher.logs(course.key), config.limits.log)


def _judge(course: Course, text: str) -> Outcome:
    """The engine missed the end: what the algorithm wrote tells whether it came to its own."""
    with contextlib.suppress(BadOutput):
        output = _open_output(course)
        if is_whole(output.descriptor):
            return Outcome(Status.COMPLETED, text, output)
        os.close(output.descriptor)
    sentence = "The engine was restarted and does not know how the algorithm ended, and its result is not whole."
    return Outcome(Status.CRASHED, add_sentence(text, sentence))


def _open_output(course: Course) -> Output:
    owner = os.geteuid() if course.entry.user is None else course.entry.user
    return open_output(course.folder, owner=owner, limit=course.parts.config.limits.output)


def _add_exit(course: Course, text: str, code: int) -> str:
    if code in _SIGNALS:
        return add_sentence(text, f"The algorithm was ended by signal {code - 128}.")
    said = course.parts.config.share.logs and text.strip()
    return text if said else add_sentence(text, f"The algorithm ended with exit code {code}.")
