"""Words made once and kept in the state folder: processes that start together all come to know the same one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from skerry.errors import ConfigurationError


def kept(path: Path, make: Callable[[], str]) -> str:
    """The word in this file (mode 0600); whoever comes first makes it. Raises ConfigurationError."""
    try:
        if not path.exists():
            _offer(path, make())
        word = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read or made: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} isn't text: remove it, and a new one is made.") from error
    if not word:
        raise ConfigurationError(f"{path} is empty: remove it, and a new one is made.")
    return word


def _offer(path: Path, word: str) -> None:
    """Puts the whole file there at once, unless another one has come first."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(f"{word}\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)
