"""Values as standard JSON, which is what inputs and results are. Says where the first thing sits that can't be."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

_DEPTH = 20
_KEYS = (str, int, float, bool, type(None))
MASKED = "is a masked array, whose hidden cells would go out, too; fill them (filled) or drop them (compressed) first"


def dump(value: Any, name: str) -> bytes:
    """The value as JSON. Raises ValueError with where in it, ``name``, the first misfit sits, and what to do.

    NaN and the infinities are misfits: JSON has no word for them (RFC 8259, section 6), and other languages' readers
    refuse what Python would write.
    """
    try:
        return json.dumps(value, allow_nan=False).encode()
    except TypeError as error:
        raise ValueError(_misfit(value, name, _DEPTH) or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(_misfit(value, name, _DEPTH) or "it holds itself, or is nested too deeply") from error


def is_masked(value: object) -> bool:
    """Whether it is an array of NumPy's that hides some of its cells; what else NumPy makes of it shows them."""
    masking = sys.modules.get("numpy.ma")
    return masking is not None and isinstance(value, masking.MaskedArray)


def _misfit(value: object, path: str, depth: int) -> str:
    """Where in a value, down to some depth, the first thing sits that JSON has no word for."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path} is {value}, for which JSON has no word; give None, or leave it out"
    if isinstance(value, _KEYS) or depth == 0:
        return ""
    if isinstance(value, dict):
        wrong = next((key for key in value if not isinstance(key, _KEYS)), None)
        if wrong is not None:
            return f"{path} has a key of type {type(wrong).__name__}"
        parts = [(f"{path}[{key!r}]", part) for key, part in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"{path}[{index}]", part) for index, part in enumerate(value)]
    elif is_masked(value):
        return f"{path} {MASKED}"
    else:
        return f"{path} is of type {type(value).__name__}; make it a number, a text, a list or a dict first"
    return next(filter(None, (_misfit(part, where, depth - 1) for where, part in parts)), "")
