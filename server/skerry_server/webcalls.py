"""Asking a web server that a user named: never one of this machine or its networks, unless the owner allows its host.

The name is resolved once, every address is looked at, and the connection goes to the address that was looked at. No
redirect is followed. Of the caller nothing is sent along but, to a store, a token that is good for nothing but to ask
this server who they are.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Collection
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode, urlsplit

from skerry.addresses import is_public
from skerry_server.errors import InvalidRequest

_SECONDS = 10
_MOST = 1 << 20
_LONGEST = 300
_REGISTERED = {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ALREADY_REPORTED, HTTPStatus.NOT_FOUND}
_UNREACHABLE = "The store can't be reached, or does not answer with JSON."
_CLOSED = "The algorithm store does not show this user its algorithms."
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Introduction:
    """Who asks: the address at which the store finds this server, and the user's token for it."""

    server_url: str
    token: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The address under both names that stores read it by."""
        here = dict.fromkeys(("server_url", "Server-Url"), self.server_url)
        return {**here, "Authorization": f"Bearer {self.token}"}


@dataclass(frozen=True, slots=True)
class Address:
    """A web address that may be asked: checked, and resolved to ``ip``."""

    scheme: str
    host: str
    port: int
    path: str
    ip: str

    @property
    def inside(self) -> bool:
        """Whether it is one of this machine or its networks, which the owner allowed."""
        return not is_public(self.ip)


def check(url: str, allowed: Collection[str]) -> Address:
    """Raises InvalidRequest for what is no plain web address, and for one that leads inside."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise InvalidRequest("The store's URL is no web address.") from error
    plain = (
        not (parts.username or parts.password or parts.query or parts.fragment) and url.isascii() and url.isprintable()
    )
    if parts.scheme not in _PORTS or not host or not plain or " " in url:
        raise InvalidRequest("The store's URL must be like https://store.example.org/api.")
    if parts.scheme != "https" and host not in allowed:
        raise InvalidRequest("The store's URL must begin with https://, or the server's owner allows its host.")
    return Address(parts.scheme, host, port, parts.path.rstrip("/"), _resolve(host, port, trusted=host in allowed))


def ask(address: Address, path: str, introduction: Introduction | None = None) -> Any:
    """The JSON behind a GET below the address. Raises InvalidRequest when there is none."""
    status, body = _exchange(address, "GET", path, introduction)
    if status in {http.client.UNAUTHORIZED, http.client.FORBIDDEN}:
        raise InvalidRequest(_CLOSED if introduction else f'{_CLOSED} Say "server_url", so that it can ask us.')
    if status != http.client.OK or len(body) > _MOST:
        raise InvalidRequest(f"The store did not answer as a store does (status {status}).")
    return _json(body)


def register(address: Address, introduction: Introduction, *, force: bool) -> None:
    """Has the store note this server as one whose users it serves; a store that keeps no such list has none to note.

    ``force`` says that an address of this machine is meant. Raises InvalidRequest with the store's own words.
    """
    body = json.dumps({"url": introduction.server_url, **({"force": True} if force else {})}).encode()
    status, answer = _exchange(address, "POST", "vantage6-server", introduction, body)
    if status not in _REGISTERED:
        raise InvalidRequest(f"The store does not take this server (status {status}): {_words(answer)}")


def _words(answer: bytes) -> str:
    """What a store says to people, as far as it can be shown."""
    said = _json(answer) if answer[:1] == b"{" else None
    text = said.get("msg") if isinstance(said, dict) else None
    return "".join(filter(str.isprintable, text))[:_LONGEST] if isinstance(text, str) else "it does not say why."


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(_UNREACHABLE) from error


def _exchange(
    address: Address, method: str, path: str, introduction: Introduction | None, body: bytes | None = None
) -> tuple[int, bytes]:
    """The status and the beginning of the answer. Raises InvalidRequest when none comes."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=_SECONDS)
    headers = {"Accept": "application/json", **(introduction.headers if introduction else {})}
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        connection.sock = _connect(address)
        connection.request(method, f"{address.path}/{path}", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(_MOST + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InvalidRequest(_UNREACHABLE) from error
    finally:
        connection.close()


def image_in_store(address: Address, image: str, introduction: Introduction | None = None) -> str:
    """The image with the digest that the store has for it. Raises InvalidRequest when it does not list it."""
    found = ask(address, f"algorithm?{urlencode({'image': image})}", introduction)
    rows = found.get("data") if isinstance(found, dict) else None
    name = image.partition("@")[0]
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and row.get("image") in {image, name}:
            digest = row.get("digest")
            return f"{image}@{digest}" if "@" not in image and isinstance(digest, str) and digest else image
    raise InvalidRequest(f'The algorithm store does not list "{name}".')


def _resolve(host: str, port: int, *, trusted: bool) -> str:
    try:
        found = [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise InvalidRequest("The store's host is not known.") from error
    if not trusted and not all(is_public(address) for address in found):
        raise InvalidRequest("The store's URL leads to a private network: the server's owner must allow its host.")
    return found[0]


def _connect(address: Address) -> socket.socket:
    plain = socket.create_connection((address.ip, address.port), timeout=_SECONDS)
    if address.scheme != "https":
        return plain
    return ssl.create_default_context().wrap_socket(plain, server_hostname=address.host)
