"""One run's way through the node: open, admit, pull, prepare, start, watch, collect, seal, deliver, clean."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import replace

from skerry import logs
from skerry.audit import Who
from skerry.errors import Conflict, NotRecorded, ServerError, ServerUnreachable
from skerry.wire import Status
from skerry_node import admission, areas, databases, environment, relays
from skerry_node.consent import wait_for_consent
from skerry_node.course import Course, GivenUp, NodeStops, Parts, RunEnded, ending
from skerry_node.delivery import Delivery
from skerry_node.journal import Entry, Stage
from skerry_node.launchers.launcher import (
    Attempt,
    Ended,
    EngineAway,
    Image,
    ImageNotFound,
    LauncherError,
    Phase,
    Source,
    Spec,
    StartFailed,
    Vanished,
)
from skerry_node.live_log import LiveLog
from skerry_node.orders import Order, Others
from skerry_node.outcome import Outcome, add_sentence, collect, read_log
from skerry_node.peering import Peering
from skerry_node.policies import Rule, relaxations_of
from skerry_node.server import BackOff
from skerry_node.story import Story, about
from skerry_node.ways import Ways
from skerry_proxy.client import OpenedRun, ProxyError

__all__ = ["Parts", "Pipeline", "about"]

log = logging.getLogger(__name__)

_MARGIN = 4 << 20
_POLL_SECONDS = 600.0
_RETRY_SECONDS = 5.0
_CLEAN_SECONDS = 1.0
_CLEAN_TRIES = 6
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_ROOM = "The node's disk is full, so that the run could not be started."


@contextlib.contextmanager
def _ending_without_room() -> Iterator[None]:
    """A disk that is full before the start ends the run; which file it was is for the log, not for the user."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        log.error("%s: make room on the disk", error)  # noqa: TRY400 - the sentence says it all
        raise RunEnded(Status.FAILED, _NO_ROOM) from error


class Pipeline:
    """One attempt. ``carry_out`` runs in a thread of its own; its other verbs come from others.

    ``uncleaned``: the engine still has its container, though it is over here and never begins again.
    """

    def __init__(self, parts: Parts, entry: Entry) -> None:
        self._parts = parts
        self._course = Course(parts, entry)
        self._story = Story(self._course)
        self._ways = Ways(self._course, self._story)
        self._peering = Peering(self._course, self._story)
        self._delivery = Delivery(self._course, self._story)
        self._starting = threading.Lock()
        self._databases: tuple[Source | databases.Service, ...] = ()
        self._cleaned = self.uncleaned = False
        self._lost = False
        self._reported = entry.stage is not Stage.CLAIMED
        self._watched = entry.stage is Stage.CLAIMED

    @property
    def key(self) -> Attempt:
        return self._course.key

    @property
    def order(self) -> Order:
        return self._course.order

    @property
    def stage(self) -> Stage:
        return self._course.entry.stage

    def stop(self, reason: str, *, told: bool = True) -> None:
        """Ends the run without a report: the server has ended it, or given it to another.

        Not ``told`` by the server, it may be given again: it is lost where it may have been started.
        """
        log.info("Run %s is stopped: %s", self.key, reason)
        self._lost = not told
        self._story.tell("run.stop", Who("server"), why=reason)
        self._course.stopped.set()
        with self._starting:
            self._course.stop_container()

    def serve_again(self) -> None:
        """Opens the gate anew after the proxy was replaced, or gives it a fresh upstream token."""
        self._ways.serve_again()
        self._peering.introduce_again()

    def meet(self, others: Others) -> None:
        """Lets in the peers that the server now names, and shuts out all others. Does not raise."""
        self._peering.meet(others)

    def carry_out(self) -> None:
        """All steps that are left. Does not raise: what can't be told to the server is in the node's log."""
        try:
            self._carry_out()
        except NodeStops:
            log.info("Run %s goes on without the node", self.key)
        except GivenUp as reason:
            log.info("Run %s is given up: %s", self.key, reason)
            self._story.tell("run.give_up", why=str(reason))
            if not self._lost:
                self._delivery.leave_log()
            self._clean()
        except Exception:
            log.exception("Run %s broke off in the node", self.key)
            self._story.tell("run.break_off")
            self._end_broken()

    def _end_broken(self) -> None:
        """The journal keeps the run until the server has heard of its end, and would not give it again."""
        with contextlib.suppress(NodeStops):
            self._delivery.report_breakdown()
            self._clean()

    def _carry_out(self) -> None:
        if self._course.entry.stage is not Stage.SEALED:
            outcome = self._live()
            if self._course.entry.resume is None:
                self._delivery.finish_unopened(outcome)
                self._clean()
                return
            if self._delivery.hand_over(outcome):
                self._clean()
                return
            self._delivery.seal(outcome)
        # What is left takes next to nothing of what the places are for.
        self._parts.places.leave(self.key)
        # The asker waits for the result, and nobody for the cleaning; but nothing stays for a server that is away.
        cleaning = threading.Timer(_CLEAN_SECONDS, self._clean_container)
        cleaning.start()
        try:
            self._delivery.deliver()
        finally:
            cleaning.cancel()
            cleaning.join()
        self._clean()

    def _live(self) -> Outcome:
        """From wherever the attempt is to its end."""
        try:
            if self._course.entry.stage is Stage.CLAIMED:
                with ending(Status.FAILED, NotRecorded), _ending_without_room():
                    self._begin()
            else:
                self._attach()
            ended = self._watch()
            self._peering.drain()
            outcome = collect(self._course, ended, watched=self._watched)
        except RunEnded as end:
            log.info("Run %s ends %s: %s", self.key, end.status, end.sentence)
            action = "run.refuse" if self._course.entry.stage is Stage.CLAIMED else "run.end"
            self._story.tell(action, status=str(end.status), why=end.sentence)
            return Outcome(end.status, add_sentence("", end.sentence))
        self._story.record_end(ended, outcome)
        return outcome

    # --- before the start ------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._story.record_order(self._input_size())
        if self._parts.users is not None:
            self._course.entry = replace(self._course.entry, user=self._parts.users.take())
        opened = self._open()
        self._course.entry = replace(self._course.entry, resume=opened.resume)
        self._story.record_pins()
        self._admit(opened)
        self._enter_and_start(*self._prepare(opened))
        self._report_active()

    def _open(self) -> OpenedRun:
        """The proxy opens the input into the run's folder. Raises RunEnded."""
        size, allowed = self._input_size(), self._parts.config.limits.input
        if size > allowed:
            raise RunEnded(
                Status.NOT_ALLOWED, f"The input has {size} bytes; this node allows {allowed} (limits.input)."
            )
        descriptor = self._make_folder()
        try:
            return self._course.ask_proxy(lambda: self._parts.proxy.open(self._current_order(), descriptor))
        except ProxyError as error:
            status = Status.NOT_ALLOWED if error.kind == "refused" else Status.FAILED
            raise RunEnded(status, str(error)) from error
        finally:
            os.close(descriptor)

    def _current_order(self) -> dict[str, object]:
        return {**self.order.raw, "token": self._course.token()}

    def _make_folder(self) -> int:
        """The run's area with its three files; the descriptor of the input."""
        user, data = self._course.entry.user, self._parts.journal.data(self.key)
        size = self._parts.config.limits.output + self._input_size() + _MARGIN
        areas.remove(data)
        data.parent.mkdir(mode=0o711, exist_ok=True)
        on_disk = size > self._parts.config.limits.in_memory
        areas.make(data, size, mode=0o755, user=None, group=None, on_disk=on_disk)
        folder = self._course.folder
        folder.mkdir(mode=0o700)
        files = [
            os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600) for name in ("output", "token", "input")
        ]
        if user is not None:
            os.chown(folder, user, user)
            for descriptor in files:
                os.chown(descriptor, user, user)
        for descriptor in files[:2]:
            os.close(descriptor)
        return files[2]

    def _input_size(self) -> int:
        size = self.order.raw.get("input_size", 0)
        return size if isinstance(size, int) and size >= 0 else 0

    def _admit(self, opened: OpenedRun) -> None:
        """Raises RunEnded when the owner's policy does not allow it."""
        sender = opened.sender
        self._apply_rules(opened)
        self._story.record_admission(opened)
        log.info(
            "Run %s is admitted: %s of %s for organization %s, user %s of organization %s%s",
            self.key,
            opened.method,
            opened.image,
            sender.organization,
            sender.user,
            sender.origin,
            "" if sender.signed else " (the server's claim: the task is not signed)",
        )

    def _apply_rules(self, opened: OpenedRun, image: Image | None = None) -> Rule:
        """The owner's rule that admits it. Raises RunEnded."""
        sender, config = opened.sender, self._parts.config
        request = admission.Request(
            opened.image,
            opened.method,
            opened.databases,
            sender.organization,
            sender.origin,
            sender.user,
            sender.signed,
            self.order.task.store_url,
        )
        with ending(Status.NOT_ALLOWED, admission.NotAdmitted):
            return admission.admit(config.policies, config.databases, request, image)

    def _prepare(self, opened: OpenedRun) -> tuple[Image, Rule]:
        """Image and databases, and the rule that admits it. Raises RunEnded."""
        parts = self._parts
        with ending(Status.NO_IMAGE, ImageNotFound), ending(Status.FAILED, LauncherError):
            image = self._course.outlast(lambda: parts.launcher.resolve(opened.image))
        parts.pulled.note_use(image.id, opened.image, parts.clock(), new=image.new)
        rule = self._apply_rules(opened, image)
        if rule.approve_first:
            wait_for_consent(self._course, self._story, opened, image)
        with ending(Status.FAILED, databases.DatabaseUnavailable):
            self._databases = databases.choose(parts.config.databases, opened.databases)
        return image, rule

    def _enter_and_start(self, image: Image, rule: Rule) -> None:
        """Once more where the namespace ended before anything was started in it. Raises RunEnded."""
        try:
            self._start(self._enter(image, rule))
        except Vanished as error:
            ids = logs.about(run=self.key.run, task=self.order.task.id)
            log.warning("Run %s is prepared once more: %s", self.key, error, extra=ids)
            with ending(Status.START_FAILED, Vanished):
                self._leave()
                self._start(self._enter(image, rule))

    def _leave(self) -> None:
        """Undoes what ``_enter`` did."""
        self._close_ways()
        with ending(Status.FAILED, LauncherError):
            self._course.outlast(lambda: self._parts.launcher.remove(self.key))

    def _enter(self, image: Image, rule: Rule) -> Spec:
        """The namespace and all ways out of it. Raises RunEnded, and Vanished when it has ended meanwhile."""
        parts, labels = self._parts, [database.label for database in self._databases]
        with ending(Status.FAILED, LauncherError):
            temporary = parts.jobs.make(self.order.task.job_id, image)
            self._ways.listen(self._course.outlast(lambda: parts.launcher.prepare(self.key)))
            self._ways.open_relays(relays.choose(parts.config, labels, image), image)
        self._peering.choose(image)
        self._peering.join()
        # Before the start only: once the algorithm runs, the file may be a link.
        (self._course.folder / "token").write_text(self._ways.open_gate())
        groups = (parts.jobs.group(self.order.task.job_id), parts.config.data_group)
        user = self._course.entry.user
        return Spec(
            self.key,
            self.order.task.job_id,
            image,
            parts.journal.data(self.key),
            temporary,
            tuple(database for database in self._databases if isinstance(database, Source)),
            user,
            tuple(group for group in groups if group is not None) if user is not None else (),
            -1 if rule.gpus == "all" else rule.gpus,
        )

    def _start(self, spec: Spec) -> None:
        """Starts at most once: from the journal's next line on, only the engine knows whether it was."""
        course, config = self._course, self._parts.config
        variables = self._build_environment(spec)
        names = {spec.image.id, *spec.image.digests}
        with self._starting:
            course.check_stopped()
            self._story.record(
                "run.start",
                durable=True,
                image=spec.image.reference,
                image_id=spec.image.id,
                digests=sorted(spec.image.digests),
                databases=[database.label for database in self._databases],
                as_user=spec.user,
                relaxed=[str(one) for one in relaxations_of(config.policies.relaxations, names)],
            )
            course.entry = replace(course.entry, stage=Stage.STARTING, started=self._parts.steady())
            self._parts.journal.write(course.entry)
            with ending(Status.START_FAILED, StartFailed), ending(Status.NO_IMAGE, ImageNotFound):
                self._start_at_most_once(spec, variables)
        self._story.tell("run.started")

    def _build_environment(self, spec: Spec) -> dict[str, str]:
        config, reached = self._parts.config, relays.Reached.of(self._course.entry.ports)
        requested = [database.model_dump() for database in self.order.task.databases]
        layout = self._parts.launcher.layout(spec)
        return environment.build(
            layout, self._databases, config.labels, requested, config.algorithm_env, reached=reached
        )

    def _start_at_most_once(self, spec: Spec, variables: dict[str, str]) -> None:
        """When the engine breaks off, it is asked what came of it; only where it has made nothing it is asked again."""
        while True:
            try:
                self._parts.launcher.start(spec, variables)
            except LauncherError as error:
                log.warning("Run %s: %s", self.key, error)
                phase = self._phase()
                if phase not in {None, Phase.CREATED}:
                    return
                if phase is Phase.CREATED or not isinstance(error, EngineAway):
                    raise RunEnded(Status.START_FAILED, str(error)) from error
                self._course.check_stopped()
            else:
                return

    def _phase(self) -> Phase | None:
        found = self._course.patiently(self._parts.launcher.list)
        return next((one.phase for one in found if one.attempt == self.key), None)

    # --- while it runs ----------------------------------------------------------------------------------

    def _attach(self) -> None:
        """Opens the gate of a run that went on while the node was away. Raises RunEnded when it never did.

        An engine may have been killed as well, or still be about to start it: so that one is not started again.
        """
        if self._phase() is Phase.CREATED:
            raise RunEnded(Status.START_FAILED, "The node was ended while it started the algorithm.")
        try:
            gate = self._course.patiently(lambda: self._parts.launcher.attach(self.key))
        except Vanished:
            return
        with ending(Status.FAILED, LauncherError):
            self._ways.listen(gate)
        self._ways.open_relays_again()
        self._ways.open_gate()
        self._peering.join()

    def _report_active(self) -> None:
        """Tries once; ``_watch`` tries again. Raises GivenUp when the run is no longer this attempt's."""
        try:
            self._parts.server.report(self.key, Status.ACTIVE)
        except Conflict as error:
            self._course.stop_container()
            raise GivenUp(str(error)) from error
        except (ServerUnreachable, ServerError) as error:
            log.info("Run %s is not reported as active yet: %s", self.key, error)
            return
        self._reported = True

    def _watch(self) -> Ended:
        """Waits for the end. Raises RunEnded when it has vanished, GivenUp when it was stopped."""
        course, deadline, expired = self._course, self._deadline(), False
        back_off = BackOff()
        live = LiveLog(lambda: read_log(course), self._delivery.show_log, self._parts.steady)
        while True:
            left = deadline - self._parts.steady()
            expired = expired or left <= 0
            if expired or course.stopped.is_set():
                course.stop_container()
            try:
                ended = self._parts.launcher.poll(self.key, min(self._patience(left), live.seconds_left()))
            except Vanished as error:
                course.check_stopped()
                raise RunEnded(Status.CRASHED, f"The algorithm vanished while the node was away: {error}") from error
            except LauncherError as error:
                log.warning("Run %s: %s", self.key, error)
                self._watched = False
                course.pause(back_off)
                continue
            if ended is not None:
                course.check_stopped()
                if expired:
                    return replace(ended, reason=self._time_limit(), late=True)
                return replace(ended, reason=self._peering.broken or ended.reason)
            if not self._reported:
                self._report_active()
            live.tell_if_due()

    def _deadline(self) -> float:
        started = self._course.entry.started
        return (self._parts.steady() if started is None else started) + self._parts.config.limits.seconds

    def _patience(self, left: float) -> float:
        """Short where something is to be tried again: a report, or a stop that the engine did not hear."""
        if not self._reported or left <= 0 or self._course.stopped.is_set():
            return _RETRY_SECONDS
        return min(left, _POLL_SECONDS)

    def _time_limit(self) -> str:
        return f"The run took longer than this node allows ({self._parts.config.limits.seconds:g} s)."

    # --- after the end ----------------------------------------------------------------------------------

    def _clean_container(self) -> None:
        """Nothing of the container and of the plaintext stays.

        An engine that is away is waited for. One that refuses is asked again: after a restart it may not know yet. What
        it still refuses then is for ``clean_again``.
        """
        if self._cleaned:
            return
        self._close_ways()
        back_off, refused, ids = BackOff(), 0, logs.about(run=self.key.run, task=self.order.task.id)
        while refused < _CLEAN_TRIES:
            try:
                self._remove()
            except EngineAway as error:
                log.warning("Run %s is not cleaned up yet: %s", self.key, error, extra=ids)
            except LauncherError as error:
                refused += 1
                log.warning("Run %s is not cleaned up yet; the node tries later: %s", self.key, error, extra=ids)
            if self._cleaned or self._parts.closing.wait(back_off.pause()):
                return

    def _close_ways(self) -> None:
        self._ways.close()
        self._peering.close()
        self._ways.close_listeners()

    def _remove(self) -> None:
        self._parts.launcher.remove(self.key)
        areas.remove(self._parts.journal.data(self.key))
        self._cleaned = True
        self._story.tell("run.clean")

    def _clean(self) -> None:
        self._clean_container()
        if self._lost and self.stage is not Stage.CLAIMED:
            self._parts.losses.add(self.key)
        elif self.stage is not Stage.CLAIMED:
            self._conclude()
        else:
            self._parts.journal.remove(self.key)
        self.uncleaned = not self._cleaned and self.stage is not Stage.CLAIMED
        if not self.uncleaned:
            self._give_user_back()

    def clean_again(self) -> bool:
        """Whether nothing is left now. Nobody else gets its user before."""
        try:
            self._remove()
        except LauncherError as error:
            log.warning("Run %s is not cleaned up yet; the node tries later: %s", self.key, error)
            return False
        self._give_user_back()
        return True

    def _give_user_back(self) -> None:
        user = self._course.entry.user
        if self._parts.users is not None and user is not None:
            self._parts.users.give_back(user)

    def _conclude(self) -> None:
        try:
            self._parts.journal.conclude(self.key, self.order.task.uuid)
        except NotRecorded as error:
            ids = logs.about(run=self.key.run, task=self.order.task.id)
            log.error("Run %s: %s", self.key, error, extra=ids)  # noqa: TRY400 - the sentence says it all
