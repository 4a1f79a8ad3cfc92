"""Which ways out of its namespace a run gets: the databases that it names, and what the owner opened to its image."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from skerry import contract
from skerry_node.config import Config
from skerry_node.launchers.launcher import Image
from skerry_node.references import matches
from skerry_node.services import Address
from skerry_proxy.relays import Lead

EGRESS = "egress"


@dataclass(frozen=True, slots=True)
class Reached:
    """What a run finds on its loopback: ports by the names of gates and labels of databases, and of the egress."""

    databases: Mapping[str, int] = field(default_factory=dict)
    gates: Mapping[str, int] = field(default_factory=dict)
    egress: int | None = None

    @classmethod
    def of(cls, ports: Mapping[str, int]) -> Reached:
        """From the ports of leads, by their names."""
        return cls(_below("database ", ports), _below("gate ", ports), ports.get(EGRESS))


NOTHING = Reached()


def choose(config: Config, wanted: Sequence[str], image: Image) -> tuple[Lead, ...]:
    """The leads of a run of this image that names these databases. Their names are unique."""
    return tuple(lead for lead, algorithms in _all(config) if _is_for(lead, algorithms, wanted, image))


def ports(count: int, image: Image) -> list[int]:
    """A port for each of so many relays, none of which the image wants for itself."""
    free = (port for port in itertools.count(contract.RELAY_PORT) if port not in image.ports)
    return list(itertools.islice(free, count))


def again(config: Config, names: Sequence[str]) -> tuple[Lead, ...]:
    """Those leads of these names that the owner still has: what was taken out in the meantime leads nowhere."""
    return tuple(lead for lead, _ in _all(config) if lead.name in names)


def _all(config: Config) -> Iterator[tuple[Lead, tuple[str, ...] | None]]:
    """All leads, and the algorithms for which they are; None: for all that are admitted."""
    for database in config.databases:
        if isinstance(database.uri, Address):
            yield Lead(f"database {database.label}", (database.uri.destination,)), None
    for gate in config.gates:
        yield Lead(f"gate {gate.name}", (gate.destination,)), gate.algorithms
    if config.egress is not None:
        yield Lead(EGRESS, config.egress.allowed, egress=True), config.egress.algorithms


def _is_for(lead: Lead, algorithms: tuple[str, ...] | None, wanted: Sequence[str], image: Image) -> bool:
    kind, _, label = lead.name.partition(" ")
    if kind == "database":
        return label in wanted
    return algorithms is None or any(matches(entry, image.reference, image.digests) for entry in algorithms)


def _below(prefix: str, ports: Mapping[str, int]) -> dict[str, int]:
    return {name.removeprefix(prefix): port for name, port in ports.items() if name.startswith(prefix)}
