"""One run's story in the node's audit journal: what was ordered, admitted, started, ended and delivered."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

from skerry.audit import What, Who
from skerry.errors import NotRecorded
from skerry_node.course import Course
from skerry_node.journal import Entry
from skerry_node.launchers.launcher import Ended
from skerry_node.outcome import Outcome
from skerry_proxy.client import GateUse, OpenedRun, ProxyError

log = logging.getLogger(__name__)


def about(entry: Entry) -> dict[str, int]:
    """To what a record of this attempt belongs."""
    order = entry.order
    return {"run": order.run, "attempt": order.attempt, "task": order.task.id, "job": order.task.job_id}


class Story:
    """``record`` raises NotRecorded: what was to be recorded must not be done. ``tell`` is for what happened anyhow."""

    def __init__(self, course: Course) -> None:
        self._course = course

    def record(self, action: str, actor: Who | None = None, *, durable: bool = False, **details: Any) -> None:
        what = What("run", self._course.key.run)
        self._course.parts.trail.write(action, what, about(self._course.entry), actor, durable=durable, **details)

    def tell(self, action: str, actor: Who | None = None, **details: Any) -> None:
        """While the journal can't be written, the log alone has it."""
        try:
            self.record(action, actor, **details)
        except NotRecorded as error:
            log.error("Run %s: %s is not on record: %s", self._course.key, action, error)  # noqa: TRY400 - says it all

    def record_order(self, input_size: int) -> None:
        """Whom the server names is only its claim; who signed is known after the opening."""
        order = self._course.order
        raw = order.raw.get("task", {})
        self.record(
            "run.order",
            Who("server"),
            image=order.task.image,
            databases=[database.label for database in order.task.databases],
            claimed_organization=_as_id(raw.get("init_org_id")),
            claimed_user=_as_id(raw.get("init_user_id")),
            parent=_as_id(raw.get("parent_id")),
            input_bytes=input_size,
        )

    def record_admission(self, opened: OpenedRun) -> None:
        sender = opened.sender
        self.record(
            "run.admit",
            Who("user", sender.user, sender.origin),
            function=opened.method,
            image=opened.image,
            databases=list(opened.databases),
            for_organization=sender.organization,
            signed=sender.signed,
        )

    def record_end(self, ended: Ended, outcome: Outcome) -> None:
        size = os.fstat(outcome.output.descriptor).st_size if outcome.output is not None else None
        self._course.patiently(
            lambda: self.record(
                "run.end",
                status=str(outcome.status),
                code=ended.code,
                why=ended.reason,
                log_bytes=len(outcome.log.encode()),
                output_bytes=size,
            )
        )

    def record_pins(self) -> None:
        """Keys that the proxy has come to trust since somebody last looked. Raises NotRecorded."""
        with contextlib.suppress(ProxyError):
            self._course.parts.trail.note_pins(self._course.parts.proxy.pins())

    def tell_gate(self, used: GateUse) -> None:
        """What the gate was asked, what went out and in by each relay, and the keys that child tasks brought in."""
        self.tell(
            "run.gate",
            calls=used.calls,
            refused=used.refused,
            children=list(used.children),
            relays=list(used.relays),
        )
        try:
            self.record_pins()
        except NotRecorded as error:
            log.error("Run %s: pinned keys are not on record: %s", self._course.key, error)  # noqa: TRY400 - says all


def _as_id(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None
