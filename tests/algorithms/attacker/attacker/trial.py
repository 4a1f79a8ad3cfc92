"""Trying one thing in a process of its own, so that none disturbs another."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

Trick = Callable[[Mapping[str, Any]], tuple[object, str]]
"""Given the facts: whether it succeeded (None for done), and what it saw. An OSError is a refusal."""
PATIENCE = 100


def try_all(tricks: Mapping[str, Trick], facts: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {name: try_one(trick, facts) for name, trick in tricks.items()}


def try_one(trick: Trick, facts: Mapping[str, Any]) -> list[Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        os.write(writing, json.dumps(_answer(trick, facts)).encode())
        os._exit(0)
    os.close(writing)
    return _collect(reading, child)


def _answer(trick: Trick, facts: Mapping[str, Any]) -> list[Any]:
    try:
        done, seen = trick(facts)
    except OSError as error:
        return [False, f"refused: {error}"]
    except Exception as error:  # noqa: BLE001 - a broken trick is no refusal: its row expects another text
        return [False, f"broken: {error!r}"]
    succeeded = done is None or bool(done)
    return [succeeded, (seen or ("possible" if succeeded else "refused"))[:2000]]


def _collect(reading: int, child: int) -> list[Any]:
    with os.fdopen(reading, "rb") as file:
        text = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return list(json.loads(text)) if text else [False, f"refused: ended with {status}"]
