"""What the owner does beside the running node, by its command line, and what of it the audit journal does not have yet.

The journal has one writer, the daemon; so it looks now and then. What was told already lies in a file, so that what
was decided while the node was down is told when it starts, and nothing twice.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from skerry.audit import What, Who
from skerry.errors import ConfigurationError, NotRecorded
from skerry_node.approvals import Approvals, Decision
from skerry_node.files import replace_file
from skerry_node.trail import Trail
from skerry_proxy.client import ProxyClient, ProxyError

log = logging.getLogger(__name__)


class _Told(BaseModel):
    """``api_key`` is a hash: all of the key is random, so that nobody guesses it from there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decisions: tuple[Decision, ...] = ()
    api_key: str | None = None


class Owner:
    """``api_key`` gives the present one."""

    def __init__(self, state: Path, approvals: Approvals, api_key: Callable[[], str], trail: Trail) -> None:
        self._file = state / "told.json"
        self._approvals = approvals
        self._api_key = api_key
        self._trail = trail
        self._told = _read(self._file)

    def tell(self, proxy: ProxyClient) -> None:
        """Records decisions, another API key, and pinned keys that were confirmed; what fails is tried again."""
        try:
            present = _Told(decisions=self._approvals.decisions(), api_key=_digest(self._api_key()))
            self._tell_changes(present)
            self._trail.note_pins(proxy.pins())
        except (ConfigurationError, NotRecorded, ProxyError, OSError) as error:
            log.warning("What the owner did is not on record yet: %s", error)

    def _tell_changes(self, present: _Told) -> None:
        if present == self._told:
            return
        for decision in present.decisions:
            if decision not in self._told.decisions:
                self._tell_decision(decision)
        if self._told.api_key not in {None, present.api_key}:
            self._trail.write("node.change_key", What("node"), actor=Who("owner"), durable=True)
        replace_file(self._file, present.model_dump_json())
        self._told = present

    def _tell_decision(self, decision: Decision) -> None:
        self._trail.write(
            "approval.decide",
            What("image"),
            actor=Who("owner", decision.by),
            durable=True,
            image_id=decision.image,
            function=decision.function,
            verdict=str(decision.verdict),
            at=int(decision.at),
        )


def _read(path: Path) -> _Told:
    """Where it can't be read, all that stands is told once more."""
    try:
        return _Told.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return _Told()
    except (OSError, ValidationError) as error:
        log.warning("%s can't be read: decisions are recorded again (%s)", path, type(error).__name__)
        return _Told()


def _digest(api_key: str) -> str:
    return hashlib.sha256(api_key.encode()).hexdigest()
