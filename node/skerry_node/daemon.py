"""The node's daemon: says what it holds, hears what to do, and lets a bounded number of runs go on at once."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from skerry import logs
from skerry.audit import WITNESS, What
from skerry.errors import (
    ConfigurationError,
    NotRecorded,
    ServerError,
    ServerUnreachable,
    SkerryError,
)
from skerry.wire import Refusal, canonical
from skerry_node import areas, preflight, reconcile, sharing
from skerry_node.approvals import Approvals
from skerry_node.checks import relaxations
from skerry_node.config import Config
from skerry_node.jobs import JobFolders
from skerry_node.journal import Entry, Journal, Stage
from skerry_node.launchers.launcher import Attempt, Found, Launcher, LauncherError
from skerry_node.losses import Losses
from skerry_node.orders import Order, OthersOf, Self, ServerHead, Work
from skerry_node.owner import Owner
from skerry_node.pipeline import Parts, Pipeline, about
from skerry_node.places import Places
from skerry_node.preflight import Preflight, Report, inspect_sandbox, remove_leftovers
from skerry_node.pulled import PulledImages
from skerry_node.server import BackOff, Interrupted, KeyRefused, Server
from skerry_node.state import State
from skerry_node.users import Users, default_base, preflight_user
from skerry_node.vpn import Tunnels
from skerry_proxy.client import ProxyClient, ProxyError, ProxyProcess, spawn

log = logging.getLogger(__name__)

_TIDY_SECONDS, _PAUSE_SECONDS = 3600.0, 1.0
_STEADY_SECONDS = 60.0
"""A proxy that served for so long ended for a reason of its own: the next one need not wait for what ended others."""
_WITNESSED_EVERY = 600.0
_LONGEST_PAUSE = 10.0
"""A server that is back is found within so many seconds, by all its nodes at different moments of them."""


class Daemon:
    """One node. ``run`` returns after ``stop``; runs then go on, and the next daemon takes them up."""

    def __init__(self, config: Config, state: State, launcher: Launcher) -> None:
        self._config = config
        self._state = state
        self._launcher = launcher
        self._server = Server(config.server, config.api_key)
        self._closing = threading.Event()
        self._changed = threading.Event()
        self._lock = threading.Lock()
        self._pipelines: dict[Attempt, Pipeline] = {}
        self._uncleaned: list[Pipeline] = []
        self._places = Places(config.limits.parallel_runs, self._ask_again)
        self._online = False
        self._preflight = self._make_preflight() if launcher.sandboxed else None
        self._witnessed = float("-inf")
        self._witness: ServerHead | None = None

    def run(self) -> None:
        """Raises ConfigurationError when the node can't work as it is configured."""
        if self._preflight is not None:
            remove_leftovers(self._launcher, self._state.folder / "preflight")
            self._preflight.start()
        try:
            self._serve()
        finally:
            self._closing.set()
            if self._preflight is not None:
                self._preflight.join()

    def _serve(self) -> None:
        me = self._meet_server()
        if me is None:
            return
        self._say_start(me)
        self._proxy = self._spawn_proxy(me)
        self._parts = self._make_parts(self._proxy.client)
        owner = Owner(self._state.folder, self._parts.approvals, self._config.api_key, self._state.trail)
        threading.Thread(target=self._keep_proxy, args=(me,), name="proxy", daemon=True).start()
        threading.Thread(target=self._tidy, name="tidy", daemon=True).start()
        try:
            self._take_up()
            self._work(owner)
        finally:
            self._close()

    def stop(self) -> None:
        """May be called by a signal's handler or another thread."""
        self._closing.set()
        self._changed.set()
        threading.Thread(target=self._server.interrupt, name="interrupt", daemon=True).start()

    # --- looked at from other threads --------------------------------------------------------------------

    @property
    def places(self) -> int:
        """How many runs may go on at once."""
        return self._config.limits.parallel_runs

    def is_ready(self) -> Mapping[str, bool]:
        """What has to be true for the node to take runs, and whether it is."""
        sandbox = self._preflight is None or bool(self._preflight.passed)
        return {"server": self._online, "sandbox": sandbox, "records": self._state.trail.writable}

    def count_runs(self) -> Counter[Stage]:
        """How many runs are here in each stage."""
        return Counter(pipeline.stage for pipeline in self._list_pipelines())

    def count_deeds(self) -> Mapping[tuple[str, str], int]:
        """How often each thing was done, by its action and status in the audit journal."""
        return self._state.trail.written()

    # --- starting ----------------------------------------------------------------------------------------

    def _meet_server(self) -> Self | None:
        """Waits for the server as long as it takes; None when the node is stopped meanwhile."""
        back_off = BackOff(_LONGEST_PAUSE)
        while not self._closing.is_set():
            try:
                self._server.log_in()
                return self._check_self(self._server.describe_self())
            except KeyRefused as error:
                raise ConfigurationError(
                    f"api_key_file: the server does not take the key in {self._config.api_key_file}; ask its "
                    f"administrator for this node's key. {error}"
                ) from error
            except (ServerUnreachable, ServerError) as error:
                log.warning("%s The node tries again.", error)
            self._closing.wait(back_off.pause())
        return None

    def _say_start(self, me: Self) -> None:
        """What the node was when it began to work: without this on record it does not. Raises NotRecorded."""
        config = self._config
        self._state.trail.write(
            "node.start",
            What("node", me.id),
            {"organization": me.organization.id, "collaboration": me.collaboration.id},
            durable=True,
            version=version("skerry"),
            server=config.server.url,
            configuration=hashlib.sha256(canonical(config.model_dump(mode="json"))).hexdigest(),
            policies=config.policies.model_dump(mode="json"),
            relaxed=list(relaxations(config)),
        )

    def _check_self(self, me: Self) -> Self:
        if me.collaboration.encrypted and self._config.encryption is None:
            raise ConfigurationError(
                f'encryption: the collaboration "{me.collaboration.name}" is encrypted; name the organization\'s key '
                "file as encryption.private_key_file."
            )
        if self._config.encryption is not None and not me.collaboration.encrypted:
            raise ConfigurationError(
                f'encryption: the server says that the collaboration "{me.collaboration.name}" is not encrypted, and '
                "this node is to encrypt. Ask its administrator; set encryption: null only if plain results are meant."
            )
        return me

    def _spawn_proxy(self, me: Self) -> ProxyProcess:
        """As a user of its own where the node is root. The node itself never reads the key file."""
        user = self._config.proxy_uid if os.geteuid() == 0 and areas.has_capability(areas.CAP_SETUID) else None
        folder = self._config.control_socket.parent
        folder.mkdir(mode=0o700, exist_ok=True)
        if user is not None:
            for path in (folder, *folder.iterdir()):
                os.chown(path, user, user, follow_symlinks=False)
        encryption = self._config.encryption
        key = os.open(encryption.private_key_file, os.O_RDONLY | os.O_CLOEXEC) if encryption else None
        try:
            return spawn(self._proxy_settings(me), key, user, user)
        finally:
            if key is not None:
                os.close(key)

    def _proxy_settings(self, me: Self) -> dict[str, Any]:
        config = self._config
        return {
            "server_url": config.server.url.rstrip("/"),
            "api_path": config.server.api_path,
            "ca_file": str(config.server.ca_file) if config.server.ca_file else None,
            "https_proxy": config.server.https_proxy,
            "control_socket": str(config.control_socket),
            "state_folder": str(config.control_socket.parent),
            "node_id": me.id,
            "organization_id": me.organization.id,
            "collaboration": me.collaboration.model_dump(include={"id", "encrypted", "accept"}),
            "unsigned_tasks": config.policies.unsigned_tasks,
            "require_confirmed_keys": config.policies.require_confirmed_keys,
        }

    def _make_parts(self, proxy: ProxyClient) -> Parts:
        config, folder = self._config, self._state.folder
        journal = Journal(folder / "runs")
        self._records = journal.read()
        users = self._make_users(self._records.entries)
        jobs = JobFolders(folder / "jobs", config.limits.temporary, users)
        approvals = Approvals(folder)
        approvals.start()
        return Parts(
            config,
            self._launcher,
            proxy,
            self._server,
            journal,
            jobs,
            users,
            self._closing,
            self._places,
            approvals,
            PulledImages(folder),
            self._state.trail,
            Losses(journal, self._server, self._state.trail, self._closing),
            tunnels=Tunnels(config.vpn, self._state.installation) if self._launcher.sandboxed else None,
            ask_again=self._ask_again,
        )

    def _make_preflight(self) -> Preflight:
        user = preflight_user(self._base_user())
        return Preflight(
            lambda: self._try_sandbox(user),
            self._config.docker.preflight_seconds,
            self._ask_again,
            self._closing,
            self._state.say_sandbox,
        )

    def _try_sandbox(self, user: int) -> Report:
        """An engine that went away under the last try has kept its container. Does not raise."""
        folder = self._state.folder / "preflight"
        with contextlib.suppress(LauncherError):
            remove_leftovers(self._launcher, folder)
        return inspect_sandbox(self._config, self._launcher, folder, user)

    def _base_user(self) -> int:
        return self._config.uid_base or default_base(self._state.installation)

    def _make_users(self, entries: Sequence[Entry]) -> Users | None:
        if not self._launcher.own_users:
            return None
        return Users(self._base_user(), [entry.user for entry in entries if entry.user is not None])

    def _take_up(self) -> None:
        """Goes on with what an earlier daemon left."""
        found = self._find_containers()
        if found is None:
            return
        plan = reconcile.plan(self._records, found)
        for attempt in plan.lost:
            self._lose(attempt)
        for attempt in plan.orphans:
            self._remove_container(attempt)
        for entry in plan.forget:
            log.info("Run %s was never started", entry.key)
            self._remove_container(entry.key)
            self._parts.journal.remove(entry.key)
        for entry in plan.resume:
            log.info("Run %s is taken up again (%s)", entry.key, entry.stage)
            self._tell("run.resume", What("run", entry.key.run), about(entry), stage=str(entry.stage))
            self._places.enter(entry.key)
            self._begin(entry)

    def _find_containers(self) -> list[Found] | None:
        """Waits for the engine as long as it takes; None when the node is stopped meanwhile."""
        back_off = BackOff()
        while not self._closing.is_set():
            try:
                return [one for one in self._launcher.list() if one.attempt.run != preflight.RUN]
            except LauncherError as error:
                log.warning("%s The node tries again.", error)
            self._closing.wait(back_off.pause())
        return None

    def _remove_container(self, attempt: Attempt) -> None:
        """One that can't be removed yet keeps its name, so that no other can be started in its place."""
        try:
            self._launcher.remove(attempt)
        except LauncherError as error:
            log.warning("The container of run %s is left for the next start: %s", attempt, error)

    def _lose(self, attempt: Attempt) -> None:
        self._parts.losses.add(attempt)
        self._remove_container(attempt)

    def _keep_proxy(self, me: Self) -> None:
        """Replaces a proxy that has ended, and gives the new one its gates back."""
        back_off = BackOff()
        while True:
            since = time.monotonic()
            code = self._proxy.wait()
            if self._closing.is_set():
                return
            if time.monotonic() - since > _STEADY_SECONDS:
                back_off.reset()
            log.error("The proxy has ended (exit code %s); another one is started", code)
            self._tell("proxy.restart", What("proxy"), code=code)
            self._closing.wait(back_off.pause())
            try:
                self._proxy.stop()
                self._proxy = self._spawn_proxy(me)
                self._serve_again()
            except (SkerryError, OSError) as error:
                log.error("The proxy can't be replaced yet: %s", error)  # noqa: TRY400 - the sentence says it all

    def _tidy(self) -> None:
        while True:
            self._clean_again()
            try:
                self._launcher.tidy(self._parts.pulled, self._parts.approvals.waiting_images())
            except (LauncherError, ConfigurationError) as error:
                log.warning("%s", error)
            if self._closing.wait(_TIDY_SECONDS):
                return

    def _clean_again(self) -> None:
        with self._lock:
            uncleaned, self._uncleaned = self._uncleaned, []
        still = [pipeline for pipeline in uncleaned if not pipeline.clean_again()]
        with self._lock:
            self._uncleaned += still

    def _serve_again(self) -> None:
        for pipeline in self._list_pipelines():
            try:
                pipeline.serve_again()
            except (ProxyError, ServerError, ServerUnreachable) as error:
                log.warning("The gate of run %s can't be opened again: %s", pipeline.key, error)

    # --- working -----------------------------------------------------------------------------------------

    def _work(self, owner: Owner) -> None:
        back_off = BackOff(_LONGEST_PAUSE)
        while not self._closing.is_set():
            owner.tell(self._proxy.client)
            self._changed.clear()
            if self._closing.is_set():
                return
            try:
                work = self._ask()
            except Interrupted:
                continue
            except (ServerUnreachable, ServerError) as error:
                log.warning("%s The node tries again.", error)
                if isinstance(error, KeyRefused):
                    self._stop_all("the server no longer takes this node's key")
                self._online = False
                self._closing.wait(back_off.pause())
                continue
            if not self._online:
                self._online = True
                self._say_online()
                # While the server was away the upstream tokens may have expired, and no proxy can renew those.
                self._serve_again()
            self._state.say_ready()
            back_off.reset()
            self._keep_witness(work.head)
            self._do(work)

    def _ask(self) -> Work:
        """The first call, and the first after an absence, does not wait: its answer says that the node is online."""
        with self._lock:
            holding = sorted(self._pipelines)
        refuses = self._refuses()
        capacity = self._places.offer() if refuses is None else 0
        jobs, head = self._parts.jobs.held(), self._state.trail.head
        peers = self._parts.tunnels.versions() if self._parts.tunnels is not None else {}
        return self._server.work(
            capacity, holding, jobs, head, self._changed, wait=self._online, peers=peers, refuses=refuses
        )

    def _refuses(self) -> Refusal | None:
        """Why no run is taken now, whatever the server says."""
        if self._preflight is not None and not self._preflight.passed:
            return Refusal.STARTING if self._preflight.passed is None else Refusal.SANDBOX
        return None if self._state.trail.ready() else Refusal.RECORDS

    def _keep_witness(self, head: ServerHead | None) -> None:
        """Notes how far the server's audit chain has come, now and then, where the server can't change it."""
        due = time.monotonic() - self._witnessed >= _WITNESSED_EVERY
        if head is None or head.sequence == 0 or not due or head == self._witness:
            return
        self._witnessed, self._witness = time.monotonic(), head
        self._tell(WITNESS, What("server"), **head.model_dump())

    def _tell(self, action: str, object_: What, belongs: Mapping[str, int] | None = None, **details: Any) -> None:
        """Records what happened anyhow; while the journal can't be written, the log alone has it."""
        try:
            self._state.trail.write(action, object_, belongs, **details)
        except NotRecorded as error:
            log.error("%s is not on record: %s", action, error)  # noqa: TRY400 - the sentence says it all

    def _say_online(self) -> None:
        log.info("node %s is online", self._config.name)
        threading.Thread(target=self._share, name="share", daemon=True).start()

    def _share(self) -> None:
        """At each return, since the server forgets it when the node is away. No run depends on it."""
        try:
            self._server.share(sharing.describe(self._config))
        except (ServerUnreachable, ServerError) as error:
            log.warning("The server is not told of the configuration: %s", error)

    def _do(self, work: Work) -> None:
        for stop in work.stop:
            pipeline = self._pipelines.get(stop.key)
            if pipeline is not None:
                _stop(pipeline, stop.reason)
        self._parts.journal.catch_up()
        lost = self._parts.losses.tell()
        for order in work.runs:
            if order.key not in lost:
                self._take(order)
        for others in work.peers:
            self._meet(others)
        for job in work.finished_jobs:
            self._remove_job(job)

    def _meet(self, others: OthersOf) -> None:
        """Aside, since keys of organizations may have to be asked for."""
        pipeline = self._pipelines.get(others.key)
        if pipeline is not None:
            name = f"peers {others.key}"
            threading.Thread(target=pipeline.meet, args=(others,), name=name, daemon=True).start()

    def _stop_all(self, reason: str) -> None:
        """A node that was deleted, or shut out, must not go on working for those who did that.

        What is done already waits, sealed, for the day on which the node is let in again.
        """
        for pipeline in self._list_pipelines():
            if pipeline.stage is not Stage.SEALED:
                _stop(pipeline, reason, told=False)

    def _take(self, order: Order) -> None:
        """A run that is here already, in whatever attempt, is not begun beside itself; and none in a bad sandbox.

        The server gives one that is not taken again; one that gives it though it was told not to is kept waiting.
        """
        if (refuses := self._refuses()) is not None:
            log.warning("Run %s is not taken: %s", order.key, refuses)
            self._closing.wait(_PAUSE_SECONDS)
            return
        if any(attempt.run == order.run for attempt in self._pipelines):
            log.warning("Run %s is held already", order.key)
            return
        if order.key in self._parts.losses:
            return
        if self._is_over(order):
            self._closing.wait(_PAUSE_SECONDS)
            return
        ids = logs.about(run=order.run, task=order.task.id)
        if not self._places.accept(order.key, child=order.task.parent_id is not None):
            log.warning("Run %s is not taken: the node did not ask for so many", order.key, extra=ids)
            self._closing.wait(_PAUSE_SECONDS)
            return
        log.info("Run %s is claimed: %s", order.key, order.task.image, extra=ids)
        self._begin(Entry(order))

    def _is_over(self, order: Order) -> bool:
        """Then the server is told so; as long as that can't be known, nothing is begun."""
        try:
            over = self._parts.journal.is_over(order)
        except NotRecorded as error:
            log.error("Run %s is not taken: %s", order.key, error)  # noqa: TRY400 - the sentence says it all
            return True
        if over:
            self._parts.losses.add(order.key)
        return over

    def _begin(self, entry: Entry) -> None:
        pipeline = Pipeline(self._parts, entry)
        with self._lock:
            self._pipelines[entry.key] = pipeline
        threading.Thread(target=self._carry_out, args=(pipeline,), name=f"run {entry.key}", daemon=True).start()

    def _carry_out(self, pipeline: Pipeline) -> None:
        try:
            with _bound(pipeline):
                pipeline.carry_out()
        finally:
            with self._lock:
                del self._pipelines[pipeline.key]
                if pipeline.uncleaned:
                    self._uncleaned.append(pipeline)
            self._places.leave(pipeline.key)

    def _ask_again(self) -> None:
        """Breaks off the call that waits at the server, since there is room that it does not know of."""
        self._changed.set()
        self._server.interrupt()

    def _list_pipelines(self) -> list[Pipeline]:
        with self._lock:
            return list(self._pipelines.values())

    def _remove_job(self, job: int) -> None:
        """Unless a run of it is still here; the server says it again."""
        if any(pipeline.order.task.job_id == job for pipeline in self._list_pipelines()):
            return
        try:
            self._parts.jobs.remove(job)
        except LauncherError as error:
            log.warning("The folder of job %s can't be removed: %s", job, error)

    # --- ending ------------------------------------------------------------------------------------------

    def _close(self) -> None:
        self._closing.set()
        self._proxy.stop()
        try:
            self._server.leave()
        except (ServerUnreachable, ServerError) as error:
            log.info("The server is not told that the node leaves: %s", error)
        self._server.close()
        self._tell("node.stop", What("node"))
        self._parts.journal.close()


def _bound(pipeline: Pipeline) -> contextlib.AbstractContextManager[None]:
    """All that this thread logs is about this run."""
    return logs.bound(run=pipeline.key.run, task=pipeline.order.task.id)


def _stop(pipeline: Pipeline, reason: str, *, told: bool = True) -> None:
    def stop() -> None:
        with _bound(pipeline):
            pipeline.stop(reason, told=told)

    threading.Thread(target=stop, name=f"stop {pipeline.key}", daemon=True).start()
