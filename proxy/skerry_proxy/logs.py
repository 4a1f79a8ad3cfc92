"""Logs of containers, cut to a size that a server can keep."""

from __future__ import annotations

LARGEST_LOG = 1024 * 1024
_HEAD = LARGEST_LOG // 4


def shorten(log: str) -> str:
    """The log, or the start and the end of one that has more than 1 MiB as UTF-8: errors stand at the end.

    Without NUL characters: the server takes no text with one, and the run's end would be refused with its log.
    """
    raw = log.replace("\0", "\ufffd").encode("utf-8", "replace")
    if len(raw) <= LARGEST_LOG:
        return raw.decode()
    tail = LARGEST_LOG - _HEAD
    left_out = f"\n[… {len(raw) - LARGEST_LOG} bytes are left out …]\n"
    return raw[:_HEAD].decode("utf-8", "ignore") + left_out + raw[-tail:].decode("utf-8", "ignore")
