"""Databases that are services: the address that their owner wrote, and the one that a run is told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlsplit

from skerry_proxy.destinations import Destination, parse_host

_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433, "oracle": 1521, "http": 80}
_SCHEME = re.compile(r"([a-z]+)(\+[a-z0-9_]+)?")
_REDIRECTING = frozenset({"host", "hostaddr", "port", "service", "unix_socket", "user", "password", "passfile"})
"""Parameters by which a driver would go elsewhere than the address says, or as someone else."""


@dataclass(frozen=True, slots=True)
class Address:
    """``scheme://[user@]host[:port]/rest``, taken apart. ``rest`` is handed on as it is."""

    scheme: str
    user: str | None
    destination: Destination
    rest: str

    @property
    def is_web(self) -> bool:
        return self.scheme == "http"

    def at(self, port: int, password: str | None) -> str:
        """As a run finds it: on its own loopback, with the password."""
        secret = "" if password is None else f":{quote(password, safe='')}"
        person = "" if self.user is None else f"{self.user}{secret}@"
        return f"{self.scheme}://{person}127.0.0.1:{port}{self.rest}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises ValueError with a sentence that holds nothing of the text, which may hold a password."""
        scheme, _, _ = text.partition("://")
        kind = _SCHEME.fullmatch(scheme)
        if kind is None or kind[1] not in _PORTS:
            known = ", ".join(_PORTS)
            raise ValueError(f"begin it with one of {known} and ://, or write the path of a file")
        if not text.isascii() or not text.isprintable() or " " in text or "#" in text:
            raise ValueError("write special characters of an address as %XX")
        try:
            parts = urlsplit(text)
            given = parts.port
        except ValueError as error:
            # Its own words may hold what stands behind a colon, such as a password with a slash in it.
            raise ValueError("write it as scheme://user@host:port/name, with a port of 1 to 65535") from error
        if parts.password is not None:
            raise ValueError("write no password here: put it into a file of mode 0600, and name that as password_file")
        # An address in brackets has lost them.
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        port = _PORTS[kind[1]] if given is None else given
        _check_query(parts.query)
        rest = parts.path + (f"?{parts.query}" if parts.query else "")
        return cls(scheme, parts.username, Destination(parse_host(host), port), rest)


def _check_query(query: str) -> None:
    for name, _ in parse_qsl(query, keep_blank_values=True):
        if name.lower() in _REDIRECTING:
            raise ValueError(f'the parameter "{name}" would lead elsewhere; leave it out')
