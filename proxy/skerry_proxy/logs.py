"""Logs of containers, cut to a size that a server can keep."""

from __future__ import annotations

LARGEST_LOG = 1024 * 1024


def shorten(log: str, limit: int = LARGEST_LOG) -> str:
    """The log, or the first quarter and the end of one that has more bytes as UTF-8: errors stand at the end.

    Without NUL characters: the server takes no text with one, and the run's end would be refused with its log.
    """
    raw = log.replace("\0", "\ufffd").encode("utf-8", "replace")
    if len(raw) <= limit:
        return raw.decode()
    head = limit // 4
    left_out = f"\n[… {len(raw) - limit} bytes are left out …]\n"
    return raw[:head].decode("utf-8", "ignore") + left_out + raw[head - limit :].decode("utf-8", "ignore")
