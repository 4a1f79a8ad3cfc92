"""One server process: uvicorn, the waiting room, the doors in a bounded pool of threads, and the sweeper."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import FrameType
from typing import Any

import uvicorn
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from skerry import keepalive
from skerry.errors import ConfigurationError, NotRecorded
from skerry_server import metrics
from skerry_server.app import create_app
from skerry_server.bridge import Bridge
from skerry_server.errors import Busy
from skerry_server.health import Health
from skerry_server.server import Server
from skerry_server.settings import Settings, check_exposure
from skerry_server.sweeping import Sweeper
from skerry_server.waiting import Receive, Scope, Send, WaitingRoom

_LOG = logging.getLogger(__name__)
_SWEEP_SECONDS = 10.0
_GRACE_SECONDS = 5
_BACKLOG = 2048


def serve(server: Server, announce: Callable[[str], None], *, shared: bool = False) -> None:
    """Serves until SIGTERM or SIGINT, then wakes all who wait, drains and returns.

    ``announce`` gets the address once requests are answered, which may be ``shared`` with other processes. Raises
    ConfigurationError when it can't listen.
    """
    check_exposure(server.settings)
    raise_file_limit()
    place = server.settings.host, server.settings.port
    listener = bind(*place, shared=True) if shared else listen(*place)
    server.begin()
    gc.collect()
    gc.freeze()  # what was imported stays: to look through it for garbage again and again would hold requests up

    def ready() -> None:
        listener.listen(_BACKLOG)  # not before, where others who share the address answer meanwhile
        announce(_address(server.settings, listener))

    shell = _Shell(server, ready)
    config = uvicorn.Config(
        shell,
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        timeout_keep_alive=75,
        **_tls_options(server.settings),
    )
    _load_certificate(config)
    with contextlib.closing(listener):
        _Uvicorn(config, server).run(sockets=[listener])
    shell.stop()
    server.mailer.close()
    server.end()
    server.database.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigurationError, in one sentence, when the address can't be had."""
    listener = bind(host, port)
    with _named(host, port):
        listener.listen(_BACKLOG)
    return listener


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """One that does not listen yet; ``shared``: other processes of this user may have the address, too."""
    with _named(host, port), contextlib.ExitStack() as failing:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = failing.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for option in keepalive.OPTIONS:
            listener.setsockopt(*option)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        failing.pop_all()
    return listener


@contextlib.contextmanager
def _named(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"The server can't listen on {host}:{port} ({error.strerror}); choose another with `--port` or `port:`."
        ) from error


def raise_file_limit() -> None:
    """Each waiter is an open connection; the usual soft limit of 1024 is too low for them."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Uvicorn(uvicorn.Server):
    """Wakes all who wait as soon as it is asked to stop, so that draining takes no time."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
        super().__init__(config)
        self._server = server
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - what a signal handler gets
        """The library's own raises the signal once more at the end; but a stop that was asked for is no failure.

        Until load balancers have heard of it the server goes on; a second signal cuts that short.
        """
        self.force_exit = self.should_exit and sig == signal.SIGINT
        again = self._server.stopping.is_set()
        self._server.stopping.set()
        if self._loop is None:
            self.should_exit = True
        else:
            seconds = 0 if again else self._server.settings.drain_seconds
            self._loop.call_soon_threadsafe(self._loop.call_later, seconds, self._leave)

    def _leave(self) -> None:
        self.should_exit = True
        self._server.hub.close()


class _Shell:
    """The ASGI application, with the sweeper running as long as it does."""

    def __init__(self, server: Server, ready: Callable[[], None]) -> None:
        self._server = server
        self._ready = ready
        limits = server.settings.limits
        app = create_app(server)
        doors = Bridge(app, limits.threads, limits.uploads, server.database.at_once)
        room = WaitingRoom(doors, server.hub, limits.waiters)
        self._desk = Health(room, server)
        found = server.settings.metrics
        self.stop = metrics.serve(found, server, app, lambda: room.waiting) if found is not None else _nothing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._desk(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with _running(sweep_regularly(self._server)):
            await send({"type": "lifespan.startup.complete"})
            self._ready()
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def _nothing() -> None:
    """There is nothing to stop."""


async def sweep_regularly(server: Server) -> None:
    """Looks after silent nodes and lost runs, for ever."""
    sweeper = Sweeper(server)
    while True:
        try:
            await asyncio.to_thread(sweeper.sweep)
        except (OperationalError, PoolTimeout, NotRecorded, Busy) as error:
            cause = error.__cause__ if isinstance(error, NotRecorded) else error
            _LOG.error("sweeping is put off: %s", str(getattr(cause, "orig", None) or cause).partition("\n")[0])
        except Exception:  # noqa: BLE001 - a loop top
            _LOG.exception("sweeping failed; it is tried again")
        await asyncio.sleep(_SWEEP_SECONDS)


@contextlib.asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _tls_options(settings: Settings) -> dict[str, Any]:
    if settings.tls is None:
        return {}
    files = {"ssl_certfile": settings.tls.certificate, "ssl_keyfile": settings.tls.private_key}
    return {option: str(settings.folder / file) for option, file in files.items()}


def _load_certificate(config: uvicorn.Config) -> None:
    """Raises ConfigurationError before anything is served, where the files are no certificate and its key."""
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f'"tls": the certificate or its private key can\'t be used ({error.strerror or error}).'
        ) from error


def _address(settings: Settings, listener: socket.socket) -> str:
    scheme = "http" if settings.tls is None else "https"
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
