"""The least that an algorithm can do."""

from __future__ import annotations

import time
from typing import Any

from skerry import partial


@partial
def noop() -> dict[str, Any]:
    return {}


@partial
def sleep(seconds: float) -> dict[str, Any]:
    time.sleep(seconds)
    return {}
