"""How the end of a run is told to the one who asked, in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from skerry.output import ERROR_MARK
from skerry.wire import Status

_LONGEST = 500


def last_words(log: str | None) -> str:
    """What a log ends with: its last error, else its last line; one line of bounded length, or nothing."""
    lines = [line.strip() for line in (log or "").splitlines() if line.strip()]
    errors = [line.removeprefix(ERROR_MARK) for line in lines if line.startswith(ERROR_MARK)]
    words = (errors or lines or [""])[-1]
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"


def ended(status: str) -> bool:
    """Whether a run of this status does nothing more; a word that is not known yet counts as ended."""
    return status not in set(Status) or Status(status).finished


def failed(status: str) -> bool:
    """Whether a run of this status ended without a result; a word that is not known yet counts as failed."""
    return status not in set(Status) or Status(status).failed


def describe(runs: Iterable[Mapping[str, Any]], names: Mapping[int, str] | None = None) -> str:
    """One sentence for each failed run: its organization, its status and its log's last words, or the reason."""
    return " ".join(_describe(run, names or {}) for run in runs if failed(str(run["status"])))


def _describe(run: Mapping[str, Any], names: Mapping[int, str]) -> str:
    organization = int(run["organization_id"])
    who = f"Organization {organization}" + (f" ({names[organization]})" if organization in names else "")
    words = last_words(run.get("log")) or str(run.get("reason") or "")
    return f"{who}: {run['status']}." if words in {"", run["status"]} else f"{who}: {run['status']}: {words}"
