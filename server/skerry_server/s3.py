"""Whole payloads as objects of a bucket, in any store that speaks S3."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

from skerry.errors import ConfigurationError
from skerry_server.errors import Busy, Damaged
from skerry_server.objects import PIECE
from skerry_server.settings import S3Keys, S3Store, Settings, check_store, s3_keys

try:
    import obstore
    from obstore import exceptions
    from obstore import store as stores
except ModuleNotFoundError as error:
    raise ConfigurationError('For "blob_store.kind: s3", install its library: pip install "skerry[s3]".') from error

_LOG = logging.getLogger(__name__)
_PART = 8 << 20
_MOST_PARTS = 10_000
"""Of one upload, as S3 has it."""

_AT_ONCE = 2
"""Parts of one upload that are under way; all of them are in memory."""

_LOOKED_EVERY = 15.0
_MARK = 12
_RETRIES: stores.RetryConfig = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}


def open_bucket(settings: Settings, store: S3Store, server_id: str) -> S3Objects:
    """Raises ConfigurationError, or OSError for the file of the authority; nothing is asked of the store yet."""
    check_store(store)
    authority = (settings.folder / store.ca_file).read_text("ascii") if store.ca_file is not None else None
    return S3Objects(store, s3_keys(settings, store), authority, server_id[:_MARK])


class S3Objects:
    """A bucket. It is asked for nothing but what is named here: put, multipart upload, get, head, list and delete."""

    def __init__(self, settings: S3Store, keys: S3Keys, authority: str | None, mark: str) -> None:
        """``authority``: the PEM text of a private certificate authority.

        ``mark``: how the names of this server's objects begin. Whatever else is in the bucket is never swept away.
        """
        options: stores.ClientConfig = {
            "allow_http": settings.endpoint.startswith("http://"),
            "connect_timeout": "5s",
            "read_timeout": "60s",
            "timeout": "1h",
        }
        if authority is not None:
            options["root_certificate"] = authority
        try:
            self._store = stores.S3Store(
                settings.bucket,
                endpoint=settings.endpoint,
                region=settings.region,
                virtual_hosted_style_request=settings.virtual_hosts,
                credential_provider=partial(_credential, keys),
                prefix=settings.prefix or None,
                client_options=options,
                retry_config=_RETRIES,
            )
        except exceptions.BaseError as error:
            raise ConfigurationError(f'"blob_store": {_first_line(error)}.') from error
        self._mark = f"{mark}-"
        self._looked = 0.0
        self._usable = False

    def new_name(self) -> str:
        return f"{self._mark}{uuid.uuid4().hex}"

    def adopt(self, draft: Path, name: str) -> None:
        part = max(_PART, -(-draft.stat().st_size // _MOST_PARTS))
        with _telling():
            obstore.put(self._store, name, draft, chunk_size=part, max_concurrency=_AT_ONCE)
        draft.unlink()

    def read(self, name: str, size: int, start: int, end: int) -> Iterator[bytes]:
        if start >= end:
            return iter(())
        try:
            with _telling():
                found = self._get(name, size, start, end)
        except FileNotFoundError as error:
            raise Damaged from error
        if found.meta["size"] != size:
            raise Damaged
        return _pieces(found)

    def _get(self, name: str, size: int, start: int, end: int) -> obstore.GetResult:
        """A range behind the end of a shorter object is an error like any other, so that is looked at."""
        try:
            return obstore.get(self._store, name, options={"range": (start, end)})
        except exceptions.GenericError:
            if obstore.head(self._store, name)["size"] != size:
                raise Damaged from None
            raise

    def check(self, name: str, size: int) -> None:
        try:
            with _telling():
                found = obstore.head(self._store, name)
        except FileNotFoundError as error:
            raise Damaged from error
        if found["size"] != size:
            raise Damaged

    def remove(self, name: str) -> None:
        with _telling(), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, name)

    def unchanged_since(self, moment: float) -> Iterator[str]:
        with _telling():
            for some in obstore.list(self._store):
                yield from (found["path"] for found in some if self._is_ours(found, moment))

    def _is_ours(self, found: obstore.ObjectMeta, before: float) -> bool:
        return found["path"].startswith(self._mark) and found["last_modified"].timestamp() < before

    def is_usable(self) -> bool:
        """As it was found a moment ago: health is asked for often, and each look is a call."""
        if time.monotonic() - self._looked > _LOOKED_EVERY:
            try:
                next(iter(obstore.list(self._store, chunk_size=1)), None)
                self._usable = True
            except exceptions.BaseError:
                self._usable = False
            self._looked = time.monotonic()
        return self._usable


def _credential(keys: S3Keys) -> stores.S3Credential:
    """Asked for in this way, so that none is taken from the environment."""
    secret = keys.secret_access_key
    return {"access_key_id": keys.access_key_id, "secret_access_key": secret, "expires_at": None}


def _pieces(found: obstore.GetResult) -> Iterator[bytes]:
    with _telling():
        for piece in found.stream(min_chunk_size=PIECE):
            yield bytes(piece)


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    """In this server's words what the library raises; for an object that is not there that is FileNotFoundError."""
    try:
        yield
    except exceptions.BaseError as error:
        _LOG.warning("the store of large payloads: %s", _first_line(error))
        raise Busy("The store of large payloads does not do its part: try again in a moment.") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")
