"""Brings a federation up on this machine, and down again."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skerry.dev import founding, leftovers, machine, nodes, processes
from skerry.dev.connection import API_PATH, Connection
from skerry.dev.folder import Folder, State
from skerry.dev.plan import Plan, check
from skerry.dev.processes import Process
from skerry.errors import ConfigurationError, ServerError, ServerUnreachable, SkerryError
from skerry.keys import Identity

if TYPE_CHECKING:
    from skerry.client import UserClient

Report = Callable[[str], None]
"""Hears one line for each step."""

SERVER = "server"
_PROGRAM = (sys.executable, "-P", "-c", "import sys; from skerry.cli.main import main; sys.exit(main())")
_PATIENCE_SECONDS = 90.0
_GLANCE_SECONDS = 0.05
_NOT_SEPARATED = "NOT SEPARATED"


@dataclass(frozen=True, slots=True)
class Places:
    """Where federations keep their state, and where the process launcher finds its images."""

    home: Path
    registry: Path

    @classmethod
    def of_user(cls) -> Places:
        """As the XDG base directories say; root's state is the machine's: unprivileged proxies must get at theirs."""
        state = os.environ.get("XDG_STATE_HOME") or ("/var/lib" if os.geteuid() == 0 else Path.home() / ".local/state")
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
        return cls(Path(state).absolute() / "skerry" / "dev", Path(data).absolute() / "skerry" / "process-images")


@dataclass(frozen=True, slots=True)
class Federation:
    """A running federation. ``facts`` is what ``skerry dev up --json`` prints."""

    plan: Plan
    folder: Path
    facts: dict[str, Any]

    def client(self, user: int = 0) -> UserClient:
        """A client of one of the users (the first is Root), logged in and with its organization's key."""
        from skerry.client import UserClient  # noqa: PLC0415 (bringing up and down does without)

        host, _, port = self.facts["server"]["url"].rpartition(":")
        who = self.facts["users"][user]
        keys = {one["id"]: one["private_key_file"] for one in self.facts["organizations"]}
        client = UserClient(host, int(port), self.facts["server"]["api_path"])
        client.authenticate(who["username"], who["password"])
        client.setup_encryption(keys[who["organization_id"]] if self.plan.encrypted else None)
        return client


@contextmanager
def running(plan: Plan, places: Places | None = None, report: Report = lambda _: None) -> Iterator[Federation]:
    """A federation that is gone after the block. Raises SkerryError."""
    places = places or Places.of_user()
    federation = up(plan, places, report)
    try:
        yield federation
    finally:
        down(plan.name, places, report)


def up(plan: Plan, places: Places, report: Report) -> Federation:
    """Starts a federation, or those of its parts that have died; what fails from nothing leaves nothing behind.

    Raises ConfigurationError for what machine or plan do not allow, and SkerryError when a part does not start.
    """
    check(plan)
    folder = Folder(places.home / plan.name)
    with folder.locked():
        state = folder.load()
        if state is not None and state.facts:
            _require_same(plan, state)
            return _resume(folder, state, report)
        if folder.path.exists():
            report("removing what an interrupted start left behind")
            _clean(folder, state)
        return _start(_resolve(plan, report), folder, places, report)


def down(name: str, places: Places, report: Report) -> bool:
    """Stops a federation and removes all of it; False when there is none. Raises SkerryError when something stays."""
    folder = Folder(places.home / name)
    if not folder.path.exists():
        return False
    with folder.locked():
        report(f"stopping {name}")
        _clean(folder, folder.load())
    return True


def names(places: Places) -> list[str]:
    """The federations that there are."""
    return sorted(path.name for path in places.home.glob("*") if path.is_dir())


def _resolve(plan: Plan, report: Report) -> Plan:
    launcher, reason = machine.choose_launcher(plan.launcher)
    if launcher == "process":
        report(f"WARNING: algorithms run as plain processes, for development only: {reason or 'as asked.'}")
    else:
        machine.require_images()
    return plan.with_launcher(launcher)


def _require_same(plan: Plan, state: State) -> None:
    running_plan = state.plan
    launcher = running_plan.launcher if plan.launcher == "auto" else plan.launcher
    if replace(plan, launcher=launcher, port=running_plan.port) != running_plan or plan.port not in {None, state.port}:
        raise ConfigurationError(
            f"{plan.name} exists already with other settings; remove it first (skerry dev down --name {plan.name}) "
            "or choose another --name."
        )


# --- from nothing ----------------------------------------------------------------------------------------


def _start(plan: Plan, folder: Folder, places: Places, report: Report) -> Federation:
    state = State(plan, machine.choose_port(plan.port))
    try:
        folder.make()
        folder.store(state)
        _build(folder, state, places, report)
    except BaseException:
        report("cleaning up")
        with processes.undisturbed():
            _clean(folder, state)
        raise
    return Federation(plan, folder.path, state.facts)


def _build(folder: Folder, state: State, places: Places, report: Report) -> None:
    plan, url, password = state.plan, _url(state), founding.new_password()
    with ThreadPoolExecutor() as pool, closing(Connection(url)) as connection:
        identities = [pool.submit(Identity.generate) for _ in range(plan.nodes)]
        report("starting the server")
        _bootstrap(folder, state, password)
        _start_server(folder, state)
        _await_server(folder, state, connection)
        report(f"founding {plan.nodes} organizations and their collaboration")
        connection.log_in(founding.ROOT, password)
        keys = [identity.result() for identity in identities]
        for number, key in enumerate(keys, start=1):
            key.save(folder.key(number))
        founded = founding.found(connection, plan, keys)
        report(f"starting {plan.nodes} nodes")
        for number, member in enumerate(founded.members, start=1):
            nodes.write(
                folder, plan, number, nodes.Post(member.node["name"], member.node["api_key"], url), places.registry
            )
            _start_node(folder, state, number)
        _await_nodes(folder, state, connection, founded.collaboration["id"])
        _await_sandboxes(folder, state)
    for line in _missing_separations(folder):
        report(f"WARNING: {line}")
    state.facts = _facts(folder, state, founded, password)
    folder.store(state)


def _facts(folder: Folder, state: State, founded: founding.Founded, password: str) -> dict[str, Any]:
    plan, members = state.plan, founded.members
    root = {"username": founding.ROOT, "password": password, "organization_id": members[0].organization["id"]}
    return {
        "server": {"url": _url(state), "api_path": API_PATH},
        "collaboration": {"id": founded.collaboration["id"], "encrypted": plan.encrypted, "accept": plan.accept},
        "organizations": [
            {
                "id": member.organization["id"],
                "name": member.organization["name"],
                "private_key_file": str(folder.key(number)),
            }
            for number, member in enumerate(members, start=1)
        ],
        "users": [root, *(member.researcher for member in members)],
        "nodes": [
            {
                "id": member.node["id"],
                "name": member.node["name"],
                "organization_id": member.organization["id"],
                "pid": state.processes[_part(number)].pid,
            }
            for number, member in enumerate(members, start=1)
        ],
        "server_pid": state.processes[SERVER].pid,
    }


# --- what has died ---------------------------------------------------------------------------------------


def _resume(folder: Folder, state: State, report: Report) -> Federation:
    dead = [part for part, process in state.processes.items() if not process.alive()]
    _end_unrecorded(folder, state)
    report(f"{state.plan.name} runs already" + (f"; starting again: {', '.join(dead)}" if dead else ""))
    if SERVER in dead:
        machine.choose_port(state.port)
        _start_server(folder, state)
    with closing(Connection(_url(state))) as connection:
        _await_server(folder, state, connection)
        for number in range(1, state.plan.nodes + 1):
            if _part(number) in dead:
                _start_node(folder, state, number)
        root = state.facts["users"][0]
        connection.log_in(root["username"], root["password"])
        _await_nodes(folder, state, connection, state.facts["collaboration"]["id"])
    _refresh_pids(state)
    folder.store(state)
    _await_sandboxes(folder, state)
    return Federation(state.plan, folder.path, state.facts)


def _refresh_pids(state: State) -> None:
    state.facts["server_pid"] = state.processes[SERVER].pid
    for number, node in enumerate(state.facts["nodes"], start=1):
        node["pid"] = state.processes[_part(number)].pid


# --- parts -----------------------------------------------------------------------------------------------


def _part(number: int) -> str:
    return f"node-{number}"


def _url(state: State) -> str:
    return f"http://127.0.0.1:{state.port}"


def _bootstrap(folder: Folder, state: State, password: str) -> None:
    _run(folder, state, ("server", "new", str(folder.server)))
    command = ("server", "bootstrap", "--config", str(_server_config(folder)))
    names = ("--organization", founding.organization_name(1), "--username", founding.ROOT)
    _run(folder, state, (*command, *names), words=f"{password}\n")


def _run(folder: Folder, state: State, arguments: Sequence[str], words: str = "") -> None:
    """One of the server's commands to its end. Raises SkerryError with its last line."""
    if processes.finish(_start_part(folder, state, SERVER, arguments, words)):
        raise SkerryError(f"skerry {' '.join(arguments[:2])} failed: {_last_line(folder, SERVER)}")


def _server_config(folder: Folder) -> Path:
    return next(folder.server.glob("*.yaml"))


def _start_server(folder: Folder, state: State) -> None:
    config = str(_server_config(folder))
    _start_part(folder, state, SERVER, ("server", "start", "--config", config, "--port", str(state.port)))


def _start_node(folder: Folder, state: State, number: int) -> None:
    config = str(folder.node(number) / "node.yaml")
    _start_part(folder, state, _part(number), ("node", "start", "--config", config))


def _start_part(folder: Folder, state: State, part: str, arguments: Sequence[str], words: str = "") -> Process:
    """Recorded as soon as it lives, so that ``down`` ends it as it should be ended."""
    with processes.undisturbed():
        process = processes.start((*_PROGRAM, *arguments), folder.log(part), nodes.environment(), words)
        state.processes[part] = process
        folder.store(state)
    return process


def _await_server(folder: Folder, state: State, connection: Connection) -> None:
    def answers() -> bool:
        try:
            connection.get("version")
        except ServerUnreachable:
            return False
        return True

    _await(folder, {SERVER: state.processes[SERVER]}, answers)


def _await_nodes(folder: Folder, state: State, connection: Connection, collaboration: int) -> None:
    def online() -> bool:
        found = connection.get("node", collaboration_id=collaboration, per_page=100)["data"]
        return len([node for node in found if node["status"] == "online"]) >= state.plan.nodes

    _await(folder, state.processes, online)


def _await_sandboxes(folder: Folder, state: State) -> None:
    """Until each node has tried its sandbox. Raises SkerryError where one does not hold: that node takes no runs."""
    if state.plan.launcher != "docker":
        return
    parts = {number: state.processes[_part(number)] for number in range(1, state.plan.nodes + 1)}

    def found() -> list[list[str] | None]:
        return [nodes.sandbox(folder, number, process.pid) for number, process in parts.items()]

    _await(folder, state.processes, lambda: None not in found())
    for number, problems in zip(parts, found(), strict=True):
        if problems:
            raise SkerryError(f"{_part(number)} takes no runs until its sandbox holds: {problems[0]}")


def _await(folder: Folder, parts: dict[str, Process], ready: Callable[[], bool]) -> None:
    """Until ``ready``; raises SkerryError at once when a part ends, or when patience does."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not ready():
        if processes.wait_for_end(parts.values(), _GLANCE_SECONDS):
            part = next(part for part, process in parts.items() if not process.alive())
            raise SkerryError(f"{part} ended while starting: {_last_line(folder, part)}")
        if time.monotonic() > deadline:
            part = list(parts)[-1]
            raise SkerryError(f"{part} is not ready after {_PATIENCE_SECONDS:.0f} s: {_last_line(folder, part)}")


def _missing_separations(folder: Folder) -> list[str]:
    """What the first node said of its launcher; all stand on the same machine."""
    lines = folder.log(_part(1)).read_text(errors="replace").splitlines()
    return [line[line.index(_NOT_SEPARATED) :] for line in lines if _NOT_SEPARATED in line]


def _last_line(folder: Folder, part: str) -> str:
    lines = [line for line in folder.log(part).read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip().removeprefix("skerry: ") if lines else "it said nothing."


# --- the end ---------------------------------------------------------------------------------------------


def _clean(folder: Folder, state: State | None) -> None:
    """Nodes before their server, so that they can say goodbye; before both, what nobody lived to record."""
    _end_unrecorded(folder, state)
    if state is not None:
        parts = dict(state.processes)
        server = [parts.pop(SERVER)] if SERVER in parts else []
        processes.stop(list(parts.values()))
        processes.stop(server)
        numbers = range(1, state.plan.nodes + 1)
        processes.stop([minder for number in numbers for minder in nodes.minders(folder, number)])
        if state.plan.launcher == "docker":
            found = [nodes.installation(folder, number) for number in numbers]
            leftovers.remove_containers(one for one in found if one is not None)
    leftovers.remove_folder(folder.path)


def _end_unrecorded(folder: Folder, state: State | None) -> None:
    """Parts that began to live in the moment in which their start was killed."""
    recorded = state.processes.values() if state is not None else ()
    processes.stop([one for one in processes.find(_PROGRAM, folder.path) if one not in recorded])


def alive(name: str, places: Places) -> dict[str, bool]:
    """Each part and whether its process lives. Raises ConfigurationError when there is no such federation."""
    state = Folder(places.home / name).load()
    if state is None:
        raise ConfigurationError(f"there is no federation called {name}; start one with: skerry dev up --name {name}")
    return {part: process.alive() for part, process in state.processes.items()}


def online(name: str, places: Places) -> dict[str, bool]:
    """Each node as the server sees it; empty when the server does not answer."""
    state = Folder(places.home / name).load()
    if state is None or not state.facts:
        return {}
    root = state.facts["users"][0]
    try:
        with closing(Connection(_url(state))) as connection:
            connection.log_in(root["username"], root["password"])
            seen = connection.get("node", collaboration_id=state.facts["collaboration"]["id"], per_page=100)["data"]
    except (ServerUnreachable, ServerError):
        return {}
    return {node["name"]: node["status"] == "online" for node in seen}
