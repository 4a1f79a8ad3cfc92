"""What Prometheus is told of one process, on a listener of its own. Counts and times only: no names, no payloads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, g, request
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from skerry.errors import ConfigurationError
from skerry_server import health
from skerry_server.lifecycle import OPEN, State
from skerry_server.models import Node, Run
from skerry_server.server import Server
from skerry_server.settings import Metrics

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
"""Any word may be a request's method, so a stranger could make up as many labels as he likes."""

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


def serve(settings: Metrics, server: Server, app: Flask, waiting: Callable[[], int]) -> Callable[[], None]:
    """Watches the application and answers scrapes until the function that it gives is called.

    ``waiting`` says how many long calls are held. Raises ConfigurationError when it can't.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError as error:
        raise ConfigurationError('For "metrics", install their library: pip install "skerry[metrics]".') from error
    registry = CollectorRegistry()
    _watch(app, registry)
    registry.register(_Numbers(server, waiting))
    try:
        listener, thread = start_http_server(settings.port, settings.host, registry)
    except OSError as error:
        raise ConfigurationError(
            f'"metrics": the server can\'t listen on {settings.host}:{settings.port} ({error.strerror}).'
        ) from error

    def stop() -> None:
        listener.shutdown()
        listener.server_close()
        thread.join()

    return stop


def _watch(app: Flask, registry: Any) -> None:
    from prometheus_client import Histogram  # noqa: PLC0415 - as above

    labels = ("method", "endpoint", "status")
    requests = Histogram(
        "skerry_request_seconds",
        "Requests, without the time that they wait.",
        labels,
        registry=registry,
        buckets=_BUCKETS,
    )

    def begin() -> None:
        g.began = time.perf_counter()

    def end(response: Response) -> Response:
        method = request.method if request.method in _METHODS else "other"
        labelled = requests.labels(method, request.endpoint or "none", response.status_code)
        labelled.observe(time.perf_counter() - g.began)
        return response

    app.before_request_funcs.setdefault(None, []).insert(0, begin)  # also of a request that the others refuse
    app.after_request(end)


@dataclass(frozen=True, slots=True)
class _Found:
    """``runs``: open ones by their states, None where the database can't tell."""

    ready: Mapping[str, bool]
    runs: Mapping[State, int] | None = None
    online: int = 0


_NOT_IN_TIME = _Found({"in_time": False})


class _Numbers:
    """What is looked up when somebody asks."""

    def __init__(self, server: Server, waiting: Callable[[], int]) -> None:
        self._server = server
        self._waiting = waiting
        self._thread = ThreadPoolExecutor(1, "metrics")
        self._lock = threading.Lock()
        self._looking: Future[_Found] | None = None

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - as above

        found = self._look_in_time()
        checks = GaugeMetricFamily("skerry_ready", "What has to be true to serve; 1 where it is.", labels=["what"])
        for what, good in found.ready.items():
            checks.add_metric([what], float(good))
        yield checks
        yield GaugeMetricFamily("skerry_waiting_calls", "Long calls that are held.", self._waiting())
        if found.runs is None:
            return
        runs = GaugeMetricFamily("skerry_open_runs", "Runs that have not ended, in the whole server.", labels=["state"])
        for state in OPEN:
            runs.add_metric([state.value], found.runs.get(state, 0))
        yield runs
        yield GaugeMetricFamily("skerry_online_nodes", "Nodes that are there, in the whole server.", found.online)

    def _look_in_time(self) -> _Found:
        """Who asks while a look hangs waits for that one, and no longer than for a new one."""
        with self._lock:
            if self._looking is None or self._looking.done():
                self._looking = self._thread.submit(self._look)
            looking = self._looking
        wait([looking], timeout=health.LONGEST)
        return looking.result() if looking.done() else _NOT_IN_TIME

    def _look(self) -> _Found:
        ready = self._server.is_ready()
        try:
            return _Found(ready, *self._count())
        except SQLAlchemyError:
            return _Found(ready)

    def _count(self) -> tuple[dict[State, int], int]:
        with self._server.database.reading() as session:
            rows = session.execute(select(Run.state, func.count()).where(Run.state.in_(OPEN)).group_by(Run.state))
            online = session.scalar(select(func.count()).select_from(Node).where(Node.online))
            return dict(rows.all()), online or 0
