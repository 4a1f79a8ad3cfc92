"""What becomes of a run's outcome: sealed for the asker's eyes only, on the disk, and then at the server."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import replace
from functools import partial

from skerry.errors import NotRecorded, ServerError, ServerUnreachable
from skerry.wire import INLINE_LIMIT, Status
from skerry_node.course import Course, GivenUp
from skerry_node.journal import Finish, Stage
from skerry_node.launchers.launcher import LauncherError
from skerry_node.outcome import Outcome, add_sentence, read_log
from skerry_node.story import Story
from skerry_proxy.client import ProxyError

log = logging.getLogger(__name__)


class Delivery:
    """``hand_over`` is tried first; else ``seal`` comes before ``deliver``.

    The other verbs are for runs that have no outcome to seal.
    """

    def __init__(self, course: Course, story: Story) -> None:
        self._course = course
        self._story = story

    def hand_over(self, outcome: Outcome) -> bool:
        """Tries once to have a large result sealed straight into its upload, with nothing written down.

        False where it is small, or this fails: then it is sealed to the disk, and delivered however long that takes.
        Raises GivenUp when the server does not want it (any more).
        """
        course, output = self._course, outcome.output
        resume, proxy = course.entry.resume, course.parts.proxy
        if output is None or resume is None or output.size <= INLINE_LIMIT:
            return False
        try:
            self._story.record("run.deliver", durable=True, status=str(outcome.status))
            sealed_log = proxy.seal(resume, outcome.log, None, None).log
            status = proxy.hand_over(resume, course.token(), outcome.status, sealed_log, output.descriptor)
        except (ProxyError, NotRecorded) as error:
            course.forget_token()
            if isinstance(error, ProxyError) and error.kind == "fenced":
                os.close(output.descriptor)
                raise GivenUp(str(error)) from error
            log.info("Run %s: the result is kept to be delivered later: %s", course.key, error)
            return False
        os.close(output.descriptor)
        self._tell_delivered(status)
        return True

    def _tell_delivered(self, status: str) -> None:
        log.info("Run %s ended: %s", self._course.key, status)
        self._story.tell("run.delivered", status=status)

    def seal(self, outcome: Outcome) -> None:
        """From here on the result is on the disk, for the asker's eyes only. A full disk is waited for."""
        course = self._course
        sealed = self._seal(outcome)
        self._story.tell("run.seal", status=str(sealed.status), result=sealed.result)
        course.entry = replace(course.entry, stage=Stage.SEALED, finish=sealed)
        course.patiently(lambda: course.parts.journal.write(course.entry))

    def _seal(self, outcome: Outcome) -> Finish:
        course = self._course
        try:
            return course.ask_proxy(partial(self._seal_once, outcome))
        except ProxyError as error:
            log.warning("Run %s: the result can't be sealed: %s", course.key, error)
            failed = Outcome(Status.FAILED, add_sentence(outcome.log, f"The result can't be sealed: {error}"))
            return course.ask_proxy(partial(self._seal_once, failed))
        finally:
            if outcome.output is not None:
                os.close(outcome.output.descriptor)

    def _seal_once(self, outcome: Outcome) -> Finish:
        parts, resume, output = self._course.parts, self._course.entry.resume, outcome.output
        assert resume is not None  # noqa: S101 - for the reader and mypy
        if output is None:
            return Finish(outcome.status, parts.proxy.seal(resume, outcome.log, None, None).log, result=False)
        target = os.open(parts.journal.sealed(self._course.key), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            sealed = parts.proxy.seal(resume, outcome.log, output.descriptor, target)
            os.fsync(target)
        finally:
            os.close(target)
        return Finish(outcome.status, sealed.log, result=True)

    def deliver(self) -> None:
        """Until the server has it. Raises GivenUp when it does not want it (any more)."""
        course, finish = self._course, self._course.entry.finish
        assert finish is not None  # noqa: S101 - for the reader and mypy
        course.patiently(lambda: self._story.record("run.deliver", durable=True, status=str(finish.status)))
        try:
            status = course.ask_proxy(partial(self._deliver_once, finish))
        except ProxyError as error:
            log.warning("Run %s: the server does not take the result: %s", course.key, error)
            failed = replace(finish, status=Status.FAILED, result=False)
            status = course.ask_proxy(partial(self._deliver_once, failed))
        self._tell_delivered(status)

    def _deliver_once(self, finish: Finish) -> str:
        course, resume, proxy = self._course, self._course.entry.resume, self._course.parts.proxy
        assert resume is not None  # noqa: S101 - for the reader and mypy
        if not finish.result:
            return proxy.deliver(resume, course.token(), finish.status, finish.log, None)
        sealed = os.open(course.parts.journal.sealed(course.key), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return proxy.deliver(resume, course.token(), finish.status, finish.log, sealed)
        finally:
            os.close(sealed)

    def show_log(self, text: str) -> None:
        """While it runs: sealed for the asker, as the whole log at the end is."""
        course = self._course
        if course.entry.resume is not None:
            sealed = course.parts.proxy.seal(course.entry.resume, text, None, None)
            course.parts.server.show_log(course.key, sealed.log)

    def finish_unopened(self, outcome: Outcome) -> None:
        """Without an opened input there is nobody to seal for; the proxy's sentence holds nothing of the data."""
        course = self._course
        course.patiently(lambda: course.parts.server.finish(course.key, outcome.status, outcome.log))

    def report_breakdown(self) -> None:
        """The run must end in some state even if the node has a fault; the sentence is a constant.

        Raises NodeStops when the server has not heard of it by then.
        """
        course = self._course
        sentence = add_sentence("", "The node failed while it carried out this run; its log says why.")
        with contextlib.suppress(GivenUp):
            course.patiently(lambda: course.parts.server.finish(course.key, Status.UNKNOWN_ERROR, sentence))

    def leave_log(self) -> None:
        """A killed run's user still gets to read what it had written; whoever else ended it does not ask for it."""
        course, parts = self._course, self._course.parts
        resume = course.entry.resume
        if not course.stopped.is_set() or course.entry.stage is not Stage.STARTING or resume is None:
            return
        try:
            text = read_log(course)
            parts.server.finish(course.key, Status.KILLED, parts.proxy.seal(resume, text, None, None).log)
        except (LauncherError, ProxyError, ServerError, ServerUnreachable) as error:
            log.info("The log of run %s is not taken: %s", course.key, error)
