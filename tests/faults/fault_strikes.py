"""What can be done to a world: a fault is a name and a deed, and ends by itself."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable
from functools import partial

from fault_host import NOTICED_SECONDS
from fault_proxy import Harm
from fault_world import Engine, World

_MINUTE, _DAY = 60, 24 * 3600
_JUMPS = (5 * _MINUTE, -5 * _MINUTE, _DAY, -_DAY)
_SHORTEST, _LONGEST = 0.2, 0.8
_NODE = ("kill node", "stop node", "pause node", "no room at node", "clock of node")
_PROXY = ("kill proxy", "stop proxy", "pause proxy")
_ENGINE = ("kill engine", "stop engine", "pause engine", "cut engine", "kill machine")
_POSTGRESQL = ("kill postgresql", "stop postgresql", "pause postgresql", "cut postgresql")
_SERVER = ("kill server", "stop server", "pause server", "no room at server", "clock of server")
_CUTS = ("cut towards server", "cut towards client")
AT_ONE_NODE = frozenset((*_NODE, *_PROXY))
WITHOUT_ENGINE = (*_SERVER, *_NODE, *_PROXY, *_CUTS, *Harm)
"""What can be done where the engine is not the suite's own, and the database a file."""
EVERYTHING = (*WITHOUT_ENGINE, *_ENGINE, *_POSTGRESQL)


def possible(which: str) -> tuple[str, ...]:
    """SQLite is a file of the server's: it can't be killed, stopped, paused or cut off by itself."""
    return EVERYTHING if which == "postgresql" else (*WITHOUT_ENGINE, *_ENGINE)


def seconds_until_noticed(fault: str) -> float:
    """So long it takes until a fault is what its part sees."""
    return NOTICED_SECONDS if fault.startswith("clock") else 0


class Strikes:
    """Does it, and mends it after a moment."""

    def __init__(self, world: World, engine: Engine | None, chance: random.Random) -> None:
        self._world = world
        self._engine = engine
        self._chance = chance
        self._mending: list[threading.Timer] = []
        self.harm: Harm | None = None
        for way in (world.to_nodes, world.to_clients):
            way.pick = lambda _: self.harm

    def strike(self, fault: str, node: str) -> bool:
        """``node``: at which one, where the fault is one node's. False when there was nothing to strike."""
        server = self._chance.choice(self._world.server_names)
        part, database = self._world.parts, self._world.database
        deeds: dict[str, Callable[[], Callable[[], object] | bool | None]] = {
            "kill server": lambda: part[server].send(signal.SIGKILL),
            "stop server": lambda: part[server].send(signal.SIGTERM),
            "pause server": lambda: self._pause(server),
            "no room at server": part[server].disk.fill,
            "clock of server": lambda: self._jump(server),
            "kill node": lambda: part[node].send(signal.SIGKILL),
            "stop node": lambda: part[node].send(signal.SIGTERM),
            "pause node": lambda: self._pause(node),
            "no room at node": part[node].disk.fill,
            "clock of node": lambda: self._jump(node),
            "kill proxy": lambda: part[node].send_proxy(signal.SIGKILL),
            "stop proxy": lambda: part[node].send_proxy(signal.SIGTERM),
            "pause proxy": lambda: self._pause_proxy(node),
            "kill engine": lambda: self._end_engine(signal.SIGKILL),
            "stop engine": lambda: self._end_engine(signal.SIGTERM),
            "pause engine": self._pause_engine,
            "cut engine": self._cut_engine,
            "kill machine": self._kill_machine,
            "kill postgresql": lambda: self._end_database("immediate"),
            "stop postgresql": lambda: self._end_database("fast"),
            "pause postgresql": database.pause,
            "cut postgresql": database.cut,
            "cut towards server": lambda: self._cut("server"),
            "cut towards client": lambda: self._cut("client"),
            **{str(harm): partial(self._harm, harm) for harm in Harm},
        }
        mend = deeds[fault]()
        if callable(mend):
            self._mend_later(mend, seconds_until_noticed(fault))
        return mend is not False

    @property
    def mended(self) -> bool:
        return not any(timer.is_alive() for timer in self._mending)

    def mend(self) -> None:
        """Returns when all is."""
        for timer in self._mending:
            timer.join()

    @property
    def _own_engine(self) -> Engine:
        assert self._engine is not None
        return self._engine

    def _mend_later(self, mend: Callable[[], object], later: float) -> None:
        timer = threading.Timer(later + self._chance.uniform(_SHORTEST, _LONGEST), mend)
        timer.daemon = True
        timer.start()
        self._mending = [one for one in self._mending if one.is_alive()] + [timer]

    def _pause(self, name: str) -> Callable[[], None]:
        part = self._world.parts[name]
        part.paused = True
        part.send(signal.SIGSTOP)

        def go_on() -> None:
            part.paused = False
            part.send(signal.SIGCONT)

        return go_on

    def _pause_proxy(self, node: str) -> Callable[[], None] | bool:
        part = self._world.parts[node]
        part.proxy_paused = part.send_proxy(signal.SIGSTOP)

        def go_on() -> None:
            part.proxy_paused = False
            part.send_proxy(signal.SIGCONT)

        return go_on if part.proxy_paused else False

    def _pause_engine(self) -> Callable[[], None]:
        return self._own_engine.pause()

    def _jump(self, name: str) -> Callable[[], None]:
        clock = self._world.parts[name].clock
        clock.jump(self._chance.choice(_JUMPS))
        return clock.set_right

    def _end_engine(self, signal_: int) -> Callable[[], None]:
        self._own_engine.end(signal_)
        return self._own_engine.start

    def _cut_engine(self) -> Callable[[], None]:
        self._own_engine.wire.cut()
        return self._own_engine.wire.join

    def _kill_machine(self) -> Callable[[], None]:
        """All nodes, their algorithms and the engine, as far as one machine can play several at once."""
        for name in self._world.node_names:
            self._world.parts[name].send(signal.SIGKILL)
        self._own_engine.kill_containers()
        return self._end_engine(signal.SIGKILL)

    def _end_database(self, how: str) -> Callable[[], None]:
        self._world.database.end(how)
        return self._world.database.start

    def _cut(self, towards: str) -> Callable[[], None]:
        self._world.to_nodes.cut_towards = towards
        return lambda: setattr(self._world.to_nodes, "cut_towards", None)

    def _harm(self, harm: Harm) -> Callable[[], None]:
        """Every request from now on."""
        self.harm = harm
        return lambda: setattr(self, "harm", None)
