"""What an administrator hands to a hospital so that its node can join: one block of text, good once."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from skerry.errors import ConfigurationError
from skerry.wire import b64, canonical, unb64

_TEXT = re.compile(r"-----BEGIN SKERRY INVITATION-----\s(.*?)-----END SKERRY INVITATION-----", re.DOTALL)
_NONE = "This is not an invitation: it begins with -----BEGIN SKERRY INVITATION-----."


@dataclass(frozen=True, slots=True)
class Invitation:
    """``ca``: certificates (PEM) of the private authority that the server's own is of; "" for a public one."""

    url: str
    api_path: str
    server_id: str
    secret: str
    expires: str
    ca: str = ""

    @classmethod
    def parse(cls, text: str) -> Invitation:
        """Raises ConfigurationError for anything that is no invitation."""
        found = _TEXT.search(text)
        try:
            value = json.loads(unb64("".join(found[1].split()))) if found else None
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(_NONE) from error
        if not isinstance(value, dict) or not _is_complete(value):
            raise ConfigurationError(_NONE)
        return cls(**value)

    def dump(self) -> str:
        body = b64(canonical(asdict(self)))
        lines = "\n".join(body[i : i + 64] for i in range(0, len(body), 64))
        return f"-----BEGIN SKERRY INVITATION-----\n{lines}\n-----END SKERRY INVITATION-----\n"

    def check_age(self, now: datetime) -> None:
        """Raises ConfigurationError when it has expired."""
        try:
            expires = datetime.fromisoformat(self.expires).astimezone(UTC)
        except ValueError as error:
            raise ConfigurationError(_NONE) from error
        if expires <= now:
            raise ConfigurationError(f"This invitation expired at {self.expires}: ask for a new one.")


def _is_complete(value: dict[str, Any]) -> bool:
    return set(value) == set(Invitation.__slots__) and all(isinstance(part, str) for part in value.values())
