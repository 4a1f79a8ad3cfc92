"""What the sections of a node's configuration are made of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)i?b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def parse_size(value: object) -> object:
    """Bytes, from a number or a text such as 512m or 2g (powers of 1024); raises ValueError for another text."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError("write a number of bytes, or one with a unit, such as 512m or 2g")
    return int(float(match[1]) * _UNITS[match[2].lower()])


Size = Annotated[int, BeforeValidator(parse_size), Field(ge=4096)]
File = Annotated[Path, Field(strict=False)]
Words = Annotated[tuple[str, ...], Field(strict=False)]
Ids = Annotated[tuple[int, ...], Field(strict=False)]


class Section(BaseModel):
    """Unknown keys are errors: a misspelt limit must not silently be no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
