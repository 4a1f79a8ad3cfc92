"""What an attack is, and the ground on which it is tried: a server in a process of its own, or a weakened one."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import requests
import uvicorn
import yaml

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "server"))
from server_federation import PASSWORD, SECRET, Api, Federation

from skerry_server.app import create_app
from skerry_server.bridge import Bridge
from skerry_server.models import utcnow
from skerry_server.serve import listen
from skerry_server.server import Server, open_server
from skerry_server.services import login
from skerry_server.services.users import found_root
from skerry_server.settings import Settings

SKERRY = Path(sys.executable).with_name("skerry")
PATIENCE = 30
Weaken = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True)
class Struck:
    """How it went: ``answer`` is what the attacker got to see, for the expected refusal to be compared with."""

    succeeded: bool
    answer: str


@dataclass(frozen=True, slots=True)
class Attack:
    """One row of the catalogue.

    ``refusal`` is a regular expression for what a defended part answers. ``weaken`` takes away just the one defence
    that is tried; where that can't be, ``excuse`` says why. ``settings`` is what the server is configured with.
    """

    id: str
    tries: str
    refusal: str
    strike: Callable[[Ground], Struck]
    weaken: Weaken | None = None
    excuse: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Ground:
    """A federation at a running server. Attackers have their own accounts; ``server`` opens the same state."""

    address: str
    federation: Federation
    server: Server

    def raw(self, method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(method, f"{self.address}/api/{path}", timeout=PATIENCE, **options)


class HttpAnswer:
    """A response as the tests' federation reads it."""

    def __init__(self, response: requests.Response) -> None:
        self.status_code = response.status_code
        self.headers = response.headers
        self._text = response.text

    def get_data(self, *, as_text: bool) -> str:
        return self._text

    def get_json(self, *, silent: bool = False) -> Any:
        try:
            return json.loads(self._text)
        except ValueError:
            if silent:
                return None
            raise


class HttpClient:
    """Speaks HTTP where the tests' federation expects Flask's test client."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._session = requests.Session()
        self._session.trust_env = False

    def open(self, path: str, *, query_string: Any = None, **options: Any) -> HttpAnswer:
        method = options.pop("method")
        return HttpAnswer(
            self._session.request(method, self._address + path, params=query_string, timeout=PATIENCE, **options)
        )


@contextmanager
def defended(folder: Path, settings: Mapping[str, Any]) -> Iterator[Ground]:
    """A server in a process of its own, as an administrator starts it."""
    config = folder / "server.yaml"
    config.write_text(yaml.safe_dump({"port": 0, "tokens": {"secret": SECRET}, **settings}))
    _found(_settings(folder, settings))
    command = [str(SKERRY), "server", "start", "--config", str(config)]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("skerry server is ready at "), (folder / "log").read_text()
            address = line.split()[-1].removesuffix("/api")
            server = open_server(_settings(folder, settings))
            yield _ground(address, server)
            server.database.close()
        finally:
            process.terminate()
            process.wait(PATIENCE)


@dataclass(frozen=True, slots=True)
class Founded:
    """A state folder with the federation in it, for the controls to go on with a copy, and its tokens."""

    folder: Path
    facts: Mapping[str, Any]


@contextmanager
def founded() -> Iterator[Founded]:
    """With all defences, in a folder that costs no disk where there is one: every commit is synced."""
    with _quick_folder() as folder:
        settings = _settings(folder, {})
        _found(settings)
        server = open_server(settings)
        federation = Federation(server, create_app(server).test_client(), clock=utcnow)  # type: ignore[arg-type]
        federation.found()
        server.database.close()
        yield Founded(folder, federation.facts)


@contextmanager
def _quick_folder() -> Iterator[Path]:
    quick = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=quick if Path(quick).is_dir() else None) as folder:
        yield Path(folder)


@contextmanager
def weakened(settings: Mapping[str, Any], start: Founded) -> Iterator[Ground]:
    """The same server in this process, where something in it may be replaced."""
    with _quick_folder() as folder:
        chosen = _settings(folder, settings)
        if chosen.two_factor_auth:
            _found(chosen)
        else:
            shutil.copytree(start.folder, folder, dirs_exist_ok=True)
        server = open_server(chosen)
        with _serving(server) as address:
            yield _ground(address, server, start.facts)


@contextmanager
def _serving(server: Server) -> Iterator[str]:
    doors = Bridge(create_app(server), threads=10, uploads=10, at_once=1)
    web = uvicorn.Server(uvicorn.Config(cast("Any", doors), log_config=None, lifespan="off"))
    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(target=web.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        web.should_exit = True
        thread.join()
        listener.close()
        server.mailer.close()
        server.database.close()


def _settings(folder: Path, settings: Mapping[str, Any]) -> Settings:
    return Settings(folder=folder, tokens={"secret": SECRET}, **settings)  # type: ignore[arg-type]


def _found(settings: Settings) -> None:
    server = open_server(settings)
    with server.database.writing() as session:
        found_root(session, "root", PASSWORD, "organization 1")
    server.database.close()


def _ground(address: str, server: Server, facts: Mapping[str, Any] | None = None) -> Ground:
    """``facts`` None: nothing but the first user is there yet."""
    client: Any = HttpClient(address)
    if server.settings.two_factor_auth or facts is None:
        federation = Federation(server, client, clock=utcnow)  # type: ignore[arg-type]
        if not server.settings.two_factor_auth:
            federation.found()
    else:
        federation = Federation(server, client, clock=utcnow, **copy.deepcopy(facts))  # type: ignore[arg-type]
    return Ground(address, federation, server)


def judge(answer: Any, *, wins: Collection[int] = (200, 201)) -> Struck:
    """An attack on the API has succeeded when it is answered like that."""
    return Struck(answer.status_code in wins, f"{answer.status_code} {answer.get_data(as_text=True)}")


def claimed_run(ground: Ground) -> tuple[dict[str, Any], Api]:
    """A run at organization 2 that its node has claimed: the order, and a caller with the run's token."""
    federation = ground.federation
    asked = federation.make_task(federation.make_user(), 2, name=fresh())
    [order] = [one for one in federation.work(2, capacity=1000)["runs"] if one["task"]["id"] == asked["id"]]
    return order, federation.as_run(order)


def lift_the_lock(patch: pytest.MonkeyPatch) -> None:
    """Failures are counted, but nobody is ever shut out."""
    patch.setattr(login, "_shut_out", lambda *_: None)


def fresh() -> str:
    """A name that nobody has."""
    return f"x{uuid.uuid4().hex[:12]}"
