"""What Prometheus is told of this node, on a listener on loopback. Counts only: no names, no payloads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from skerry.errors import ConfigurationError
from skerry_node.config import Metrics
from skerry_node.daemon import Daemon
from skerry_node.journal import Stage

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_LOOPBACK = "127.0.0.1"


@contextmanager
def served(settings: Metrics | None, daemon: Daemon) -> Iterator[None]:
    """Answers scrapes until the block ends, where the owner wants that. Raises ConfigurationError when it can't."""
    if settings is None:
        yield
        return
    try:
        from prometheus_client import (  # noqa: PLC0415 - an optional extra
            CollectorRegistry,
            ProcessCollector,
            start_http_server,
        )
    except ModuleNotFoundError as error:
        raise ConfigurationError('metrics: install their library: pip install "skerry[metrics]".') from error
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_State(daemon))
    try:
        listener, thread = start_http_server(settings.port, _LOOPBACK, registry)
    except OSError as error:
        raise ConfigurationError(
            f"metrics: the node can't listen on {_LOOPBACK}:{settings.port} ({error.strerror})."
        ) from error
    try:
        yield
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


class _State:
    """What is looked up when somebody asks."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 - as above

        ready = GaugeMetricFamily(
            "skerry_node_ready", "What has to be true to take runs; 1 where it is.", labels=["what"]
        )
        for what, good in self._daemon.is_ready().items():
            ready.add_metric([what], float(good))
        yield ready
        yield GaugeMetricFamily("skerry_node_places", "Runs that may go on at once.", self._daemon.places)
        runs = GaugeMetricFamily("skerry_node_runs", "Runs that the node holds.", labels=["stage"])
        stages = self._daemon.count_runs()
        for stage in Stage:
            runs.add_metric([stage.value], stages[stage])
        yield runs
        deeds = CounterMetricFamily(
            "skerry_node_deeds", "What this process wrote into the audit journal.", labels=["action", "status"]
        )
        for (action, status), count in self._daemon.count_deeds().items():
            deeds.add_metric([action, status], count)
        yield deeds
