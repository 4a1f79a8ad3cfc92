"""One run's way through the node: open, admit, pull, prepare, start, watch, collect, seal, deliver, clean."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from skerry import contract
from skerry.audit import What, Who
from skerry.errors import Conflict, InvalidInput, NotFound, NotRecorded, ServerError, ServerUnreachable, SkerryError
from skerry.output import ERROR_MARK
from skerry.wire import INLINE_LIMIT, Status
from skerry_node import admission, areas, databases, environment, relays, vpn
from skerry_node.approvals import Approvals, NotAskable, Question, Verdict
from skerry_node.config import Config
from skerry_node.jobs import JobFolders
from skerry_node.journal import Entry, Finish, Journal, Stage
from skerry_node.launchers.launcher import (
    Attempt,
    Ended,
    Image,
    ImageNotFound,
    Launcher,
    LauncherError,
    Phase,
    Source,
    Spec,
    StartFailed,
    Vanished,
    task_folder,
)
from skerry_node.live_log import LiveLog
from skerry_node.namespace import listen_at
from skerry_node.orders import Order, Others, Reserved
from skerry_node.output import BadOutput, Output, open_output
from skerry_node.places import Places
from skerry_node.policies import Rule, relaxations_of
from skerry_node.pulled import PulledImages
from skerry_node.server import BackOff, Server
from skerry_node.trail import Trail
from skerry_node.users import Users
from skerry_node.vpn import Tunnel, Tunnels
from skerry_proxy.client import OpenedRun, ProxyClient, ProxyError
from skerry_proxy.logs import shorten
from skerry_proxy.relays import Lead

log = logging.getLogger(__name__)
T = TypeVar("T")

_MARGIN = 4 << 20
_POLL_SECONDS = 600.0
_RETRY_SECONDS = 5.0
_VERDICT_SECONDS = 1.0
_SIGNALS = range(129, 193)
"""Exit codes of what a signal has ended; the engine says 255 where it does not know."""
_INTERNAL_TRIES = 8
_LISTEN_TRIES = 8


class GivenUp(Exception):
    """The run is no longer this node's: nothing more is reported of it."""


class NodeStops(Exception):
    """The daemon ends; the run goes on, and the next daemon takes it up where the journal says."""


class RunEnded(Exception):
    """The run ends before it was started, in this status and for this reason."""

    def __init__(self, status: Status, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: its whole log, and its result when it is completed."""

    status: Status
    log: str
    output: Output | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """What all runs of a node share. ``users`` is None where the node can't give runs users of their own, ``tunnels``
    where runs have no network namespaces of their own. ``ask_again`` renews the call that waits at the server.
    """

    config: Config
    launcher: Launcher
    proxy: ProxyClient
    server: Server
    journal: Journal
    jobs: JobFolders
    users: Users | None
    closing: threading.Event
    places: Places
    approvals: Approvals
    pulled: PulledImages
    trail: Trail
    clock: Callable[[], float] = time.time
    tunnels: Tunnels | None = None
    ask_again: Callable[[], None] = lambda: None


class Pipeline:
    """One attempt. ``carry_out`` runs in a thread of its own; ``stop`` and ``serve_again`` come from others."""

    def __init__(self, parts: Parts, entry: Entry) -> None:
        self._parts = parts
        self._entry = entry
        self._stopped = threading.Event()
        self._starting = threading.Lock()
        self._gates: list[socket.socket] = []
        self._relays: list[tuple[Lead, socket.socket]] = []
        self._listening = False
        self._databases: tuple[Source | databases.Service, ...] = ()
        self._cleaned = False
        self._broken: str | None = None
        self._meeting = threading.Lock()
        self._reported = entry.stage is not Stage.CLAIMED
        self._upstream_token = entry.order.token
        life = entry.order.token_expires_in if entry.stage is Stage.CLAIMED else 0
        self._token_until = parts.clock() + life / 2

    @property
    def key(self) -> Attempt:
        return self._entry.key

    @property
    def order(self) -> Order:
        return self._entry.order

    def stop(self, reason: str) -> None:
        """Ends the run without a report: the server has ended it, or given it to another."""
        log.info("Run %s is stopped: %s", self.key, reason)
        self._tell("run.stop", Who("server"), why=reason)
        self._stopped.set()
        with self._starting:
            self._stop_container()

    def serve_again(self) -> None:
        """Opens the gate anew after the proxy was replaced, or gives it a fresh upstream token."""
        if self._listening and self._entry.resume is not None and self._entry.finish is None:
            self._serve(self._entry.resume, self._parts.server.run_token(self.key))

    def carry_out(self) -> None:
        """All steps that are left. Does not raise: what can't be told to the server is in the node's log."""
        try:
            self._carry_out()
        except NodeStops:
            log.info("Run %s goes on without the node", self.key)
        except GivenUp as reason:
            log.info("Run %s is given up: %s", self.key, reason)
            self._tell("run.give_up", why=str(reason))
            self._leave_log()
            self._clean()
        except Exception:
            log.exception("Run %s broke off in the node", self.key)
            self._tell("run.break_off")
            if not self._parts.closing.is_set():
                self._report_breakdown()
                self._clean()

    def _carry_out(self) -> None:
        if self._entry.stage is not Stage.SEALED:
            outcome = self._live()
            if self._entry.resume is None:
                self._finish_unopened(outcome)
                self._clean()
                return
            if self._hand_over(outcome):
                self._clean()
                return
            self._seal(outcome)
        cleaning = threading.Thread(target=self._clean_container, name=f"clean {self.key}")
        cleaning.start()
        try:
            self._deliver()
        finally:
            cleaning.join()
        self._clean()

    def _live(self) -> Outcome:
        """From wherever the attempt is to its end."""
        try:
            if self._entry.stage is Stage.CLAIMED:
                with _ending(Status.FAILED, NotRecorded):
                    self._begin()
            else:
                self._attach()
            ended = self._watch()
            self._drain_tunnel()
            outcome = self._collect(ended)
        except RunEnded as ending:
            log.info("Run %s ends %s: %s", self.key, ending.status, ending.sentence)
            action = "run.refuse" if self._entry.stage is Stage.CLAIMED else "run.end"
            self._tell(action, status=str(ending.status), why=ending.sentence)
            return Outcome(ending.status, self._add_sentence("", ending.sentence))
        self._record_end(ended, outcome)
        return outcome

    # --- the audit journal -------------------------------------------------------------------------------

    def _record(self, action: str, actor: Who | None = None, *, durable: bool = False, **details: Any) -> None:
        """Raises NotRecorded: what was to be recorded must not be done."""
        what = What("run", self.key.run)
        self._parts.trail.write(action, what, about(self._entry), actor, durable=durable, **details)

    def _tell(self, action: str, actor: Who | None = None, **details: Any) -> None:
        """Records what happened anyhow; while the journal can't be written, the log alone has it."""
        try:
            self._record(action, actor, **details)
        except NotRecorded as error:
            log.error("Run %s: %s is not on record: %s", self.key, action, error)  # noqa: TRY400 - it says it all

    def _record_order(self) -> None:
        """Whom the server names is only its claim; who signed is known after the opening."""
        task = self.order.task
        raw = self.order.raw.get("task", {})
        self._record(
            "run.order",
            Who("server"),
            image=task.image,
            databases=[database.label for database in task.databases],
            claimed_organization=_as_id(raw.get("init_org_id")),
            claimed_user=_as_id(raw.get("init_user_id")),
            parent=_as_id(raw.get("parent_id")),
            input_bytes=self._input_size(),
        )

    def _record_end(self, ended: Ended, outcome: Outcome) -> None:
        size = os.fstat(outcome.output.descriptor).st_size if outcome.output is not None else None
        self._patiently(
            lambda: self._record(
                "run.end",
                status=str(outcome.status),
                code=ended.code,
                why=ended.reason,
                log_bytes=len(outcome.log.encode()),
                output_bytes=size,
            )
        )

    def _record_pins(self) -> None:
        """Keys that the proxy has come to trust since somebody last looked. Raises NotRecorded."""
        with contextlib.suppress(ProxyError):
            self._parts.trail.note_pins(self._parts.proxy.pins())

    def _tell_pins(self) -> None:
        """Those that this run's child tasks brought in."""
        try:
            self._record_pins()
        except NotRecorded as error:
            log.error("Run %s: pinned keys are not on record: %s", self.key, error)  # noqa: TRY400 - it says it all

    # --- before the start ------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._record_order()
        if self._parts.users is not None:
            self._entry = replace(self._entry, user=self._parts.users.take())
        opened = self._open()
        self._entry = replace(self._entry, resume=opened.resume)
        self._record_pins()
        self._admit(opened)
        spec = self._prepare(opened)
        self._check_stopped()
        self._start(spec)
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
            return self._ask_proxy(lambda: self._parts.proxy.open(self._current_order(), descriptor))
        except ProxyError as error:
            status = Status.NOT_ALLOWED if error.kind == "refused" else Status.FAILED
            raise RunEnded(status, str(error)) from error
        finally:
            os.close(descriptor)

    def _current_order(self) -> dict[str, object]:
        return {**self.order.raw, "token": self._token()}

    def _make_folder(self) -> int:
        """The run's area with its three files; the descriptor of the input."""
        user, data = self._entry.user, self._parts.journal.data(self.key)
        size = self._parts.config.limits.output + self._input_size() + _MARGIN
        areas.remove(data)
        data.parent.mkdir(mode=0o711, exist_ok=True)
        on_disk = size > self._parts.config.limits.in_memory
        areas.make(data, size, mode=0o755, user=None, group=None, on_disk=on_disk)
        folder = data / task_folder(self.key.run)
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
        self._record(
            "run.admit",
            Who("user", sender.user, sender.origin),
            function=opened.method,
            image=opened.image,
            databases=list(opened.databases),
            for_organization=sender.organization,
            signed=sender.signed,
        )
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
        with _ending(Status.NOT_ALLOWED, admission.NotAdmitted):
            return admission.admit(config.policies, config.databases, request, image)

    def _wait_for_approval(self, opened: OpenedRun, image: Image) -> None:
        """Until the owner has approved this function of this image. Raises RunEnded when that does not come."""
        verdict = self._parts.approvals.find_verdict(image.id, opened.method)
        if verdict is None:
            self._record("run.ask_owner", function=opened.method, image=opened.image, image_id=image.id)
            verdict = self._ask_owner(opened, image)
        owner, word = Who("owner"), str(verdict)
        self._record("run.approval", owner, verdict=word, function=opened.method, image=opened.image, image_id=image.id)
        if verdict is not Verdict.APPROVED:
            sentence = f'The owner of this node has refused the function "{opened.method}" of the image {opened.image}.'
            raise RunEnded(Status.NOT_ALLOWED, sentence)

    def _ask_owner(self, opened: OpenedRun, image: Image) -> Verdict:
        """The run gives up its place meanwhile, so that others are not kept waiting."""
        parts, sender = self._parts, opened.sender
        question = Question(
            image=image.id,
            function=opened.method,
            reference=opened.image,
            digests=image.digests,
            databases=tuple(opened.databases),
            user=sender.user,
            organization=sender.origin,
            signed=sender.signed,
            since=parts.clock(),
            runs=(self.key.run,),
        )
        with _ending(Status.NOT_ALLOWED, NotAskable):
            parts.approvals.ask(question)
        log.info("Run %s waits for approval: %s of %s (%s)", self.key, opened.method, opened.image, image.id)
        parts.places.leave(self.key)
        try:
            verdict = self._await_verdict(question)
        finally:
            parts.approvals.withdraw(self.key.run)
        log.info("Run %s: the owner has %s %s of %s", self.key, verdict, opened.method, opened.image)
        while verdict is Verdict.APPROVED and not parts.places.try_enter(self.key):
            self._wait_a_moment()
        return verdict

    def _await_verdict(self, question: Question) -> Verdict:
        hours = self._parts.config.policies.approval_hours
        while (verdict := self._parts.approvals.find_verdict(question.image, question.function)) is None:
            if self._parts.clock() > question.since + hours * 3600:
                raise RunEnded(
                    Status.NOT_ALLOWED, f"The owner of this node did not approve the algorithm within {hours:g} hours."
                )
            self._wait_a_moment()
        return verdict

    def _wait_a_moment(self) -> None:
        """Raises GivenUp when the run is stopped, NodeStops when the node is."""
        self._stopped.wait(_VERDICT_SECONDS)
        self._check_stopped()
        if self._parts.closing.is_set():
            raise NodeStops

    def _prepare(self, opened: OpenedRun) -> Spec:
        """Image, databases and the gate. Raises RunEnded."""
        parts = self._parts
        with _ending(Status.NO_IMAGE, ImageNotFound), _ending(Status.FAILED, LauncherError):
            image = parts.launcher.resolve(opened.image)
        parts.pulled.note_use(image.id, opened.image, parts.clock(), new=image.new)
        rule = self._apply_rules(opened, image)
        if rule.approve_first:
            self._wait_for_approval(opened, image)
        with _ending(Status.FAILED, databases.DatabaseUnavailable, LauncherError):
            self._databases = databases.choose(parts.config.databases, opened.databases)
            temporary = parts.jobs.make(self.order.task.job_id, image)
            self._listen(parts.launcher.prepare(self.key))
            self._open_relays(relays.choose(parts.config, opened.databases, image), image)
        self._choose_vpn(image)
        self._join_vpn()
        self._write_token(self._open_gate())
        groups = (parts.jobs.group(self.order.task.job_id), parts.config.data_group)
        return Spec(
            self.key,
            self.order.task.job_id,
            image,
            parts.journal.data(self.key),
            temporary,
            tuple(database for database in self._databases if isinstance(database, Source)),
            self._entry.user,
            tuple(group for group in groups if group is not None) if self._entry.user is not None else (),
            -1 if rule.gpus == "all" else rule.gpus,
        )

    def _listen(self, gate: socket.socket) -> None:
        """Takes over the gate's listener, and adds that on a unix socket where it is wanted. Raises LauncherError."""
        self._gates.append(gate)
        if self._parts.launcher.unix_gate:
            path = self._parts.journal.data(self.key) / contract.GATE_SOCKET_NAME
            self._gates.append(listen_at(path, self._entry.user))

    def _open_relays(self, leads: Sequence[Lead], image: Image) -> None:
        """Raises LauncherError. On a loopback that others use, too, as the gate then shows, any port is taken."""
        own = self._gates[0].getsockname()[1] == contract.GATE_PORT
        for lead, port in zip(leads, relays.ports(len(leads), image), strict=True):
            self._relays.append((lead, self._parts.launcher.listen(self.key, port if own else 0)))
        ports = {lead.name: int(listener.getsockname()[1]) for lead, listener in self._relays}
        self._entry = replace(self._entry, ports=ports)

    def _open_gate(self) -> str:
        """From now on the gate answers; the token that it takes, the same at each opening.

        Only now are all listeners there: a proxy that was given some of them would end those when it gets them all.
        """
        self._listening = True
        resume = self._entry.resume
        assert resume is not None  # noqa: S101 - for the reader and mypy
        with _ending(Status.FAILED, ProxyError):
            return self._ask_proxy(lambda: self._serve(resume, self._token()))

    def _serve(self, resume: dict[str, Any], token: str) -> str:
        others = [(lead, listener.fileno()) for lead, listener in self._relays]
        return self._parts.proxy.serve(resume, token, [listener.fileno() for listener in self._gates], others)

    def _write_token(self, token: str) -> None:
        """Before the start only: once the algorithm runs, its folder is its own, and the file may be a link."""
        (self._parts.journal.data(self.key) / task_folder(self.key.run) / "token").write_text(token)

    def _start(self, spec: Spec) -> None:
        """Starts at most once: from the journal's next line on, only the engine knows whether it was."""
        layout = self._parts.launcher.layout(spec)
        requested = [database.model_dump() for database in self.order.task.databases]
        config, reached = self._parts.config, relays.Reached.of(self._entry.ports)
        names = {spec.image.id, *spec.image.digests}
        variables = environment.build(
            layout, self._databases, config.labels, requested, config.algorithm_env, reached=reached
        )
        with self._starting:
            self._check_stopped()
            self._record(
                "run.start",
                durable=True,
                image=spec.image.reference,
                image_id=spec.image.id,
                digests=sorted(spec.image.digests),
                databases=[database.label for database in self._databases],
                as_user=spec.user,
                relaxed=[str(one) for one in relaxations_of(config.policies.relaxations, names)],
            )
            self._entry = replace(self._entry, stage=Stage.STARTING, started=self._parts.clock())
            self._parts.journal.write(self._entry)
            with (
                _ending(Status.START_FAILED, StartFailed),
                _ending(Status.NO_IMAGE, ImageNotFound),
                self._uncertain_start(),
            ):
                self._parts.launcher.start(spec, variables)
        self._tell("run.started")

    @contextlib.contextmanager
    def _uncertain_start(self) -> Iterator[None]:
        """When the engine breaks off in a start, it is asked what came of it."""
        try:
            yield
        except LauncherError as error:
            log.warning("Run %s: %s", self.key, error)
            if self._phase() in {None, Phase.CREATED}:
                raise RunEnded(Status.START_FAILED, str(error)) from error

    def _phase(self) -> Phase | None:
        found = self._patiently(self._parts.launcher.list)
        return next((one.phase for one in found if one.attempt == self.key), None)

    # --- the VPN ----------------------------------------------------------------------------------------

    def _choose_vpn(self, image: Image) -> None:
        """An image that declares ports wants to be reached; the owner says whether it is."""
        ports = vpn.declared_ports(image)
        if ports and self._parts.config.policies.vpn == "allow":
            self._entry = replace(self._entry, vpn=ports)
        elif ports:
            log.info("Run %s: %s declares ports, and this node allows no VPN (policies.vpn)", self.key, image.reference)

    def _join_vpn(self) -> None:
        """Known to its peers, and they to it, before the algorithm's first instruction. Raises RunEnded."""
        tunnels, ports = self._parts.tunnels, self._entry.vpn
        if tunnels is None or ports is None:
            return
        if self._parts.config.policies.vpn != "allow":
            tunnels.close(self.key)
            return
        reserved = self._patiently(self._reserve_address)
        with _ending(Status.FAILED, LauncherError, ProxyError):
            place = vpn.place(self._parts.launcher.open_namespace(self.key), reserved.address, reserved.subnet, ports)
            tunnel = tunnels.open(self.key, place)
            self._introduce(tunnel)
        threading.Thread(target=self._keep_tunnel, args=(tunnel,), name=f"vpn {self.key}", daemon=True).start()

    def _reserve_address(self) -> Reserved:
        try:
            return self._parts.server.reserve_address(self.key)
        except InvalidInput as error:
            raise RunEnded(Status.FAILED, str(error)) from error

    def _introduce(self, tunnel: Tunnel) -> None:
        """Raises LauncherError, ProxyError, GivenUp."""
        resume, job, said = self._entry.resume, self.order.task.job_id, tunnel.describe()
        assert resume is not None  # noqa: S101 - for the reader and mypy
        statement = self._ask_proxy(lambda: self._parts.proxy.introduce(resume, job, said))
        others = self._patiently(lambda: self._parts.server.introduce(self.key, statement))
        self._tell("run.vpn", address=said["address"], endpoint=said["endpoint"], ports=said["ports"])
        self._let_in(tunnel, others)
        # The call that waits at the server says nothing of this run's peers yet, so it would hear nothing of them.
        self._parts.ask_again()

    def meet(self, others: Others) -> None:
        """Lets in the peers that the server now names, and shuts out all others. Does not raise."""
        tunnel = self._parts.tunnels.find(self.key) if self._parts.tunnels is not None else None
        with self._meeting:
            if tunnel is None or tunnel.version == others.version:
                return
            try:
                self._let_in(tunnel, others)
            except (LauncherError, ProxyError, GivenUp, NodeStops) as error:
                log.warning("Run %s: its peers can't be changed yet: %s", self.key, error)

    def _let_in(self, tunnel: Tunnel, others: Others) -> None:
        """Only whom its organization has signed for this very job. Raises LauncherError, ProxyError, GivenUp."""
        resume, job = self._entry.resume, self.order.task.job_id
        assert resume is not None  # noqa: S101 - for the reader and mypy
        judged = self._ask_proxy(lambda: self._parts.proxy.judge(resume, self._token(), job, others.statements))
        for sentence in judged.refused:
            log.warning("Run %s: a peer is not let in: %s", self.key, sentence)
        tunnel.admit(judged.peers, others.version)
        runs = [peer.run for peer in judged.peers]
        self._tell("run.peers", peers=runs, refused=list(judged.refused))

    def _drain_tunnel(self) -> None:
        tunnel = self._parts.tunnels.find(self.key) if self._parts.tunnels is not None else None
        if tunnel is not None:
            tunnel.drain()

    def _keep_tunnel(self, tunnel: Tunnel) -> None:
        """An interface that has gone is made anew, with a new key; where that can't be done, the run ends."""
        while tunnel.wait() and not self._parts.closing.is_set():
            log.warning("Run %s: its WireGuard interface has gone; another one is made", self.key)
            try:
                tunnel.renew()
                with self._meeting:
                    self._introduce(tunnel)
            except (GivenUp, NodeStops):
                return
            except (LauncherError, ProxyError) as error:
                log.warning("Run %s: its VPN broke off: %s", self.key, error)
                self._broken = "The run's way to its peers broke off, and the node could not make it again."
                self._stop_container()
                return

    # --- while it runs ----------------------------------------------------------------------------------

    def _attach(self) -> None:
        """Opens the gate of a run that went on while the node was away."""
        try:
            gate = self._patiently(lambda: self._parts.launcher.attach(self.key))
        except Vanished:
            return
        with _ending(Status.FAILED, LauncherError):
            self._listen(gate)
        self._listen_again()
        self._open_gate()
        self._join_vpn()

    def _listen_again(self) -> None:
        """The relays that the run had, where it had them. One that can't be had is left out: it leads nowhere."""
        for lead in relays.again(self._parts.config, list(self._entry.ports)):
            listener = self._listen_when_free(self._entry.ports[lead.name])
            if listener is None:
                log.warning("Run %s: %s can't be opened again", self.key, lead.name)
            else:
                self._relays.append((lead, listener))

    def _listen_when_free(self, port: int) -> socket.socket | None:
        """An earlier node's proxy may still hold the port for a moment; None when it stays taken."""
        back_off = BackOff(longest=2.0)
        for _ in range(_LISTEN_TRIES):
            try:
                return self._parts.launcher.listen(self.key, port)
            except Vanished:
                return None
            except LauncherError as error:
                log.info("Run %s: %s", self.key, error)
            self._pause(back_off)
            self._check_stopped()
        return None

    def _report_active(self) -> None:
        """Tries once; ``_watch`` tries again. Raises GivenUp when the run is no longer this attempt's."""
        try:
            self._parts.server.report(self.key, Status.ACTIVE)
        except Conflict as error:
            self._stop_container()
            raise GivenUp(str(error)) from error
        except (ServerUnreachable, ServerError) as error:
            log.info("Run %s is not reported as active yet: %s", self.key, error)
            return
        self._reported = True

    def _watch(self) -> Ended:
        """Waits for the end. Raises RunEnded when it has vanished, GivenUp when it was stopped."""
        deadline, expired = self._deadline(), False
        back_off, live = BackOff(), LiveLog(self._read_log, self._show_log, self._parts.clock)
        while True:
            left = deadline - self._parts.clock()
            expired = expired or left <= 0
            if expired or self._stopped.is_set():
                self._stop_container()
            try:
                ended = self._parts.launcher.poll(self.key, min(self._patience(left), live.seconds_left()))
            except Vanished as error:
                self._check_stopped()
                raise RunEnded(Status.CRASHED, f"The algorithm vanished while the node was away: {error}") from error
            except LauncherError as error:
                log.warning("Run %s: %s", self.key, error)
                self._pause(back_off)
                continue
            if ended is not None:
                self._check_stopped()
                return replace(ended, reason=self._time_limit() if expired else self._broken or ended.reason)
            if not self._reported:
                self._report_active()
            live.tell_if_due()

    def _show_log(self, text: str) -> None:
        """Sealed for the asker, as the whole log at the end is."""
        if self._entry.resume is not None:
            sealed = self._parts.proxy.seal(self._entry.resume, text, None, None)
            self._parts.server.show_log(self.key, sealed.log)

    def _deadline(self) -> float:
        started = self._entry.started
        return (self._parts.clock() if started is None else started) + self._parts.config.limits.seconds

    def _patience(self, left: float) -> float:
        """Short where something is to be tried again: a report, or a stop that the engine did not hear."""
        if not self._reported or left <= 0 or self._stopped.is_set():
            return _RETRY_SECONDS
        return min(left, _POLL_SECONDS)

    def _time_limit(self) -> str:
        return f"The run took longer than this node allows ({self._parts.config.limits.seconds:g} s)."

    def _stop_container(self) -> None:
        try:
            self._parts.launcher.stop(self.key)
        except LauncherError as error:
            log.warning("Run %s can't be stopped yet: %s", self.key, error)

    # --- after the end ----------------------------------------------------------------------------------

    def _collect(self, ended: Ended) -> Outcome:
        """Reads the log and, after a good end, opens the result."""
        text = self._patiently(self._read_log)
        if ended.reason is not None:
            status = Status.FAILED if ended.started else Status.START_FAILED
            return Outcome(status, self._add_sentence(text, ended.reason))
        if ended.code != 0:
            return Outcome(Status.CRASHED, self._add_exit(text, ended.code))
        try:
            return Outcome(Status.COMPLETED, text, self._open_output())
        except BadOutput as error:
            return Outcome(Status.CRASHED, self._add_sentence(text, str(error)))

    def _read_log(self) -> str:
        """What the algorithm wrote, where the owner gives that out: it can hold whatever the algorithm saw."""
        if not self._parts.config.share.logs:
            return "The owner of this node does not give out what algorithms write to their logs.\n"
        return shorten(self._parts.launcher.logs(self.key), self._parts.config.limits.log)

    def _open_output(self) -> Output:
        folder = self._parts.journal.data(self.key) / task_folder(self.key.run)
        owner = os.geteuid() if self._entry.user is None else self._entry.user
        return open_output(folder, owner=owner, limit=self._parts.config.limits.output)

    @staticmethod
    def _add_sentence(text: str, sentence: str) -> str:
        return f"{text}\n{ERROR_MARK}{sentence}\n".lstrip("\n")

    def _add_exit(self, text: str, code: int) -> str:
        if code in _SIGNALS:
            return self._add_sentence(text, f"The algorithm was ended by signal {code - 128}.")
        said = self._parts.config.share.logs and text.strip()
        return text if said else self._add_sentence(text, f"The algorithm ended with exit code {code}.")

    def _hand_over(self, outcome: Outcome) -> bool:
        """Tries once to have a large result sealed straight into its upload, with nothing written down.

        False where it is small, or this fails: then it is sealed to the disk, and delivered however long that takes.
        Raises GivenUp when the server does not want it (any more).
        """
        resume, output = self._entry.resume, outcome.output
        if output is None or resume is None or output.size <= INLINE_LIMIT:
            return False
        try:
            self._record("run.deliver", durable=True, status=str(outcome.status))
            log_ = self._parts.proxy.seal(resume, outcome.log, None, None).log
            status = self._parts.proxy.hand_over(resume, self._token(), outcome.status, log_, output.descriptor)
        except (ProxyError, NotRecorded) as error:
            self._token_until = 0.0
            if isinstance(error, ProxyError) and error.kind == "fenced":
                os.close(output.descriptor)
                raise GivenUp(str(error)) from error
            log.info("Run %s: the result is kept to be delivered later: %s", self.key, error)
            return False
        os.close(output.descriptor)
        self._tell_delivered(status)
        return True

    def _tell_delivered(self, status: str) -> None:
        log.info("Run %s ended: %s", self.key, status)
        self._tell("run.delivered", status=status)

    def _seal(self, outcome: Outcome) -> None:
        """From here on the result is on the disk, for the asker's eyes only."""
        sealed = self._seal_outcome(outcome)
        self._tell("run.seal", status=str(sealed.status), result=sealed.result)
        self._entry = replace(self._entry, stage=Stage.SEALED, finish=sealed)
        self._parts.journal.write(self._entry)

    def _seal_outcome(self, outcome: Outcome) -> Finish:
        try:
            return self._ask_proxy(partial(self._seal_once, outcome))
        except ProxyError as error:
            log.warning("Run %s: the result can't be sealed: %s", self.key, error)
            failed = Outcome(Status.FAILED, self._add_sentence(outcome.log, f"The result can't be sealed: {error}"))
            return self._ask_proxy(partial(self._seal_once, failed))
        finally:
            if outcome.output is not None:
                os.close(outcome.output.descriptor)

    def _seal_once(self, outcome: Outcome) -> Finish:
        resume, output = self._entry.resume, outcome.output
        assert resume is not None  # noqa: S101 - for the reader and mypy
        if output is None:
            return Finish(outcome.status, self._parts.proxy.seal(resume, outcome.log, None, None).log, result=False)
        target = os.open(self._parts.journal.sealed(self.key), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            sealed = self._parts.proxy.seal(resume, outcome.log, output.descriptor, target)
            os.fsync(target)
        finally:
            os.close(target)
        return Finish(outcome.status, sealed.log, result=True)

    def _deliver(self) -> None:
        """Until the server has it. Raises GivenUp when it does not want it (any more)."""
        finish = self._entry.finish
        assert finish is not None  # noqa: S101 - for the reader and mypy
        self._patiently(lambda: self._record("run.deliver", durable=True, status=str(finish.status)))
        try:
            status = self._ask_proxy(partial(self._deliver_once, finish))
        except ProxyError as error:
            log.warning("Run %s: the server does not take the result: %s", self.key, error)
            status = self._ask_proxy(partial(self._deliver_once, replace(finish, status=Status.FAILED, result=False)))
        self._tell_delivered(status)

    def _deliver_once(self, finish: Finish) -> str:
        resume, proxy = self._entry.resume, self._parts.proxy
        assert resume is not None  # noqa: S101 - for the reader and mypy
        if not finish.result:
            return proxy.deliver(resume, self._token(), finish.status, finish.log, None)
        sealed = os.open(self._parts.journal.sealed(self.key), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return proxy.deliver(resume, self._token(), finish.status, finish.log, sealed)
        finally:
            os.close(sealed)

    def _finish_unopened(self, outcome: Outcome) -> None:
        """Without an opened input there is nobody to seal for; the proxy's sentence holds nothing of the data."""
        self._patiently(lambda: self._parts.server.finish(self.key, outcome.status, outcome.log))

    def _report_breakdown(self) -> None:
        """The run must end in some state even if the node has a fault; the sentence is a constant."""
        sentence = self._add_sentence("", "The node failed while it carried out this run; its log says why.")
        try:
            self._parts.server.finish(self.key, Status.UNKNOWN_ERROR, sentence)
        except (ServerUnreachable, ServerError) as error:
            log.warning("Run %s can't be reported: %s", self.key, error)

    def _leave_log(self) -> None:
        """A killed run's user still gets to read what it had written; whoever else ended it does not ask for it."""
        resume = self._entry.resume
        if not self._stopped.is_set() or self._entry.stage is not Stage.STARTING or resume is None:
            return
        try:
            text = self._read_log()
            self._parts.server.finish(self.key, Status.KILLED, self._parts.proxy.seal(resume, text, None, None).log)
        except (LauncherError, ProxyError, ServerError, ServerUnreachable) as error:
            log.info("The log of run %s is not taken: %s", self.key, error)

    def _clean_container(self) -> None:
        """Nothing of the container and of the plaintext stays."""
        if self._cleaned:
            return
        try:
            self._close_gate()
            if self._parts.tunnels is not None:
                self._parts.tunnels.close(self.key)
            for listener in (*self._gates, *(listener for _, listener in self._relays)):
                listener.close()
            self._parts.launcher.remove(self.key)
            areas.remove(self._parts.journal.data(self.key))
            self._cleaned = True
            self._tell("run.clean")
        except LauncherError as error:
            log.warning("Run %s is not cleaned up yet; the node's next start does: %s", self.key, error)

    def _close_gate(self) -> None:
        """Tells what the gate was asked, and what went out of and into the run by each of its relays."""
        with contextlib.suppress(ProxyError):
            used = self._parts.proxy.close(self.key.run, self.key.number)
            if self._gates:
                self._tell(
                    "run.gate",
                    calls=used.calls,
                    refused=used.refused,
                    children=list(used.children),
                    relays=list(used.relays),
                )
                self._tell_pins()
            for one in used.relays:
                log.info(
                    "Run %s: %s: %s connections, %s refused, %s bytes sent, %s bytes received",
                    *(self.key, one["name"], one["connections"], one["refused"], one["sent"], one["received"]),
                )

    def _clean(self) -> None:
        self._clean_container()
        self._parts.journal.remove(self.key)
        if self._parts.users is not None and self._entry.user is not None:
            self._parts.users.give_back(self._entry.user)

    # --- patience ---------------------------------------------------------------------------------------

    def _pause(self, back_off: BackOff) -> None:
        """A stop ends the pause. Raises NodeStops when there is nobody to wait for."""
        (self._parts.closing if self._stopped.is_set() else self._stopped).wait(back_off.pause())
        if self._parts.closing.is_set():
            raise NodeStops

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise GivenUp("it was stopped")

    def _token(self) -> str:
        """The upstream token of the run, fresh enough for one more call."""
        if self._parts.clock() >= self._token_until:
            self._upstream_token = self._patiently(lambda: self._parts.server.run_token(self.key))
        return self._upstream_token

    def _ask_proxy(self, call: Callable[[], T]) -> T:
        """Asks until there is an answer. Raises GivenUp when fenced or stopped, ProxyError for a refusal."""
        back_off, internal = BackOff(), 0
        while True:
            try:
                return call()
            except ProxyError as error:
                self._token_until = 0.0
                internal += error.kind == "internal" and self._proxy_answers()
                if error.kind == "fenced":
                    raise GivenUp(str(error)) from error
                if error.kind in {"refused", "invalid"} or internal >= _INTERNAL_TRIES:
                    raise
                log.info("Run %s: %s", self.key, error)
            self._pause(back_off)
            self._check_stopped()

    def _proxy_answers(self) -> bool:
        """False while the proxy is being replaced: then it isn't the call that is at fault."""
        try:
            self._parts.proxy.pins()
        except ProxyError:
            return False
        return True

    def _patiently(self, call: Callable[[], T]) -> T:
        """Asks server or engine until there is an answer. Raises GivenUp when fenced or stopped."""
        back_off = BackOff()
        while True:
            try:
                return call()
            except (Conflict, NotFound, InvalidInput) as error:
                raise GivenUp(str(error)) from error
            except (ServerUnreachable, ServerError, LauncherError, NotRecorded) as error:
                log.info("Run %s: %s", self.key, error)
            self._pause(back_off)
            self._check_stopped()


def about(entry: Entry) -> dict[str, int]:
    """To what a record of this attempt belongs."""
    order = entry.order
    return {"run": order.run, "attempt": order.attempt, "task": order.task.id, "job": order.task.job_id}


def _as_id(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None


@contextlib.contextmanager
def _ending(status: Status, *errors: type[SkerryError]) -> Iterator[None]:
    """These errors end the run in that status; their text is for the user."""
    try:
        yield
    except errors as error:
        raise RunEnded(status, str(error)) from error
