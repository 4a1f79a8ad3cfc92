"""What a node that starts makes of what an earlier one left: rules without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skerry_node.journal import Entry, Records, Stage
from skerry_node.launchers.launcher import Attempt, Found, Phase


@dataclass(frozen=True, slots=True)
class Plan:
    """``resume``: attempts that go on from their entry; one that vanished ends as crashed there.

    ``forget``: attempts that were certainly never started, so that the server may send them again as they are.
    ``orphans``: containers of this installation that no entry speaks of: most of their runs have ended.
    ``lost``: attempts that may have been started and of which nothing else is known; they must not be started again.
    """

    resume: tuple[Entry, ...]
    forget: tuple[Entry, ...]
    orphans: tuple[Attempt, ...]
    lost: tuple[Attempt, ...]


def plan(records: Records, found: Sequence[Found]) -> Plan:
    """Nothing is started twice: only what the engine was certainly never asked to start counts as not started."""
    phases = {one.attempt: one.phase for one in found}
    entries = records.entries
    forget = tuple(entry for entry in entries if _never_started(entry, phases.get(entry.key)))
    resume = tuple(entry for entry in entries if entry not in forget)
    known = {entry.key for entry in entries}
    orphans = tuple(one for one in found if one.attempt not in known)
    started = {one.attempt for one in orphans if one.phase is not Phase.CREATED}
    return Plan(resume, forget, tuple(one.attempt for one in orphans), tuple(sorted({*records.lost} | started)))


def _never_started(entry: Entry, phase: Phase | None) -> bool:
    """Of a container that is made and not started only the node's own record says that nobody asked for its start."""
    return entry.stage is Stage.CLAIMED and phase in {None, Phase.CREATED}
