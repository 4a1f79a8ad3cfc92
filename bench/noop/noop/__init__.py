"""The least that an algorithm can do."""

from __future__ import annotations

from typing import Any

from skerry import partial


@partial
def noop() -> dict[str, Any]:
    return {}
