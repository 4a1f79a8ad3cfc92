"""What the node tells its proxy at its start (native protocol, section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from skerry.errors import ConfigurationError
from skerry.wire import Format
from skerry_proxy.fields import Fields, parse_object

_KNOWN = frozenset(
    {
        "server_url",
        "api_path",
        "ca_file",
        "https_proxy",
        "control_socket",
        "state_folder",
        "node_id",
        "organization_id",
        "collaboration",
        "unsigned_tasks",
        "require_confirmed_keys",
    }
)


@dataclass(frozen=True, slots=True)
class Settings:
    """One node's proxy. ``formats`` are those of the inputs that it opens; the others it refuses."""

    server_url: str
    api_path: str
    ca_file: str | None
    https_proxy: str | None
    control_socket: Path
    state_folder: Path
    node: int
    organization: int
    collaboration: int
    encrypted: bool
    formats: frozenset[Format]
    require_confirmed_keys: bool

    @classmethod
    def parse(cls, raw: bytes) -> Settings:
        """Raises ConfigurationError, naming the field, for anything that is not exactly the proxy's settings."""
        try:
            return _parse(parse_object(raw, "The proxy's settings"))
        except ValueError as error:
            raise ConfigurationError(str(error)) from error


def _parse(fields: Fields) -> Settings:
    fields.refuse_others(_KNOWN)
    collaboration = fields.nested("collaboration")
    encrypted = collaboration.boolean("encrypted")
    accept = collaboration.choice("accept", ("native", "vantage6", "both"))
    unsigned = fields.choice("unsigned_tasks", ("refuse", "allow")) == "allow"
    return Settings(
        server_url=_parse_url(fields.text("server_url")),
        api_path=_parse_api_path(fields.text("api_path")),
        ca_file=fields.optional_text("ca_file"),
        https_proxy=fields.optional_text("https_proxy"),
        control_socket=Path(fields.text("control_socket")),
        state_folder=Path(fields.text("state_folder")),
        node=fields.identifier("node_id"),
        organization=fields.identifier("organization_id"),
        collaboration=collaboration.identifier("id"),
        encrypted=encrypted,
        formats=admitted_formats(encrypted=encrypted, accept=accept, unsigned=unsigned),
        require_confirmed_keys=fields.boolean("require_confirmed_keys"),
    )


def admitted_formats(*, encrypted: bool, accept: str, unsigned: bool) -> frozenset[Format]:
    """The formats of inputs that may be opened: plaintext never where the collaboration is encrypted."""
    admitted = set()
    if encrypted and accept in {"native", "both"}:
        admitted.add(Format.NATIVE)
    if encrypted and accept in {"vantage6", "both"} and unsigned:
        admitted.add(Format.VANTAGE6)
    if not encrypted and unsigned:
        admitted.add(Format.PLAIN)
    return frozenset(admitted)


def _parse_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError('The proxy\'s settings: the field "server_url" must be an http or https address.')
    return text.rstrip("/")


def _parse_api_path(text: str) -> str:
    path = text.strip("/")
    return f"/{path}" if path else ""
