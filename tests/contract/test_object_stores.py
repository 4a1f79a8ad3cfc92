"""What every store of large payloads promises: files, and a bucket of a real store that speaks S3."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from objectstores import ObjectStore

from skerry.errors import ConfigurationError
from skerry.wire import INLINE_LIMIT
from skerry_server.errors import Busy, Damaged, TooLarge
from skerry_server.payloads import Part, PayloadStore, Span
from skerry_server.server import open_server
from skerry_server.settings import Settings, parse

pytestmark = pytest.mark.integration
BIG = os.urandom(20 << 20)
"""More than one part of an upload to S3."""

OURS = Part("me", "key")


def in_bucket(folder: Path, s3: ObjectStore, **changes: str) -> Settings:
    store = {**s3.settings(folder), **changes}
    return parse(yaml.safe_dump({"blob_store": store}), folder / "server.yaml")


@dataclass(frozen=True)
class Kept:
    """A server's store, and the file or object names in it."""

    store: PayloadStore
    folder: Path
    s3: ObjectStore | None = None
    bucket: str = ""

    def names(self) -> list[str]:
        if self.s3 is not None:
            return self.s3.names(self.bucket)
        return sorted(path.name for path in self.folder.iterdir())

    def drafts(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("part-*"))


@pytest.fixture(params=["files", "s3"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    s3: ObjectStore | None = request.getfixturevalue("s3_store") if request.param == "s3" else None
    settings = in_bucket(tmp_path, s3) if s3 is not None else Settings(folder=tmp_path)
    server = open_server(settings)
    bucket = getattr(settings.blob_store, "bucket", "")
    yield Kept(server.payloads, settings.payload_folder, s3, bucket)
    server.database.close()


def read(kept: Kept, start: int = 0, end: int | None = None, *, size: int = len(BIG)) -> bytes:
    payload = kept.store.keep([BIG[:size]], 1 << 30)
    return b"".join(kept.store.read(payload, start, end))


def test_what_was_kept_is_read(kept: Kept) -> None:
    assert read(kept) == BIG
    assert kept.drafts() == []


@pytest.mark.parametrize(("start", "end"), [(0, 1), (9_000_000, None), (5, 17_000_000), (7, 7)])
def test_a_range(kept: Kept, start: int, end: int | None) -> None:
    assert read(kept, start, end) == BIG[start:end]


def test_what_is_offered_is_read_later(kept: Kept) -> None:
    payload = kept.store.keep([BIG], 1 << 30)
    offered = kept.store.offer(payload)
    assert b"".join(offered()) == BIG
    kept.store.forget(payload)
    with pytest.raises(Damaged):
        list(offered())


def test_the_beginning(kept: Kept) -> None:
    payload = kept.store.keep([BIG], 1 << 30)
    assert kept.store.start(payload, 512) == BIG[:512]
    assert kept.store.start(payload, 1 << 30) == BIG


def test_what_is_small_lies_in_its_row(kept: Kept) -> None:
    assert read(kept, size=INLINE_LIMIT) == BIG[:INLINE_LIMIT]
    assert kept.names() == []


def test_an_upload_goes_on_where_it_broke_off(kept: Kept) -> None:
    assert kept.store.receive(OURS, [BIG[:9_000_000]], Span(0, len(BIG)), 1 << 30) is None
    assert kept.store.received(OURS) == 9_000_000
    payload = kept.store.receive(OURS, [BIG[9_000_000:]], Span(9_000_000, len(BIG)), 1 << 30)
    assert payload is not None
    assert b"".join(kept.store.read(payload)) == BIG
    assert kept.store.received(OURS) == 0


def test_too_much_leaves_nothing(kept: Kept) -> None:
    with pytest.raises(TooLarge):
        kept.store.keep([BIG, BIG], len(BIG))
    assert kept.names() == []
    assert kept.drafts() == []


def test_what_is_removed_is_gone(kept: Kept) -> None:
    payload = kept.store.keep([BIG], 1 << 30)
    for _ in range(2):
        kept.store.forget(payload)
    assert kept.names() == []
    with pytest.raises(Damaged):
        kept.store.read(payload)
    with pytest.raises(Damaged):
        kept.store.offer(payload)


@pytest.mark.parametrize("size", [0, 9_000_000, len(BIG) + 1])
def test_what_has_another_size_is_damaged(kept: Kept, size: int, tmp_path: Path) -> None:
    """Which is told before the first byte, wherever the reader begins."""
    payload = kept.store.keep([BIG], 1 << 30)
    draft = tmp_path / "draft"
    draft.write_bytes((BIG + b"?")[:size])
    assert payload.file is not None
    kept.store.objects.adopt(draft, payload.file)
    for start in (0, 5, 9_000_000, 10_000_000):
        with pytest.raises(Damaged):
            kept.store.read(payload, start)
    with pytest.raises(Damaged):
        kept.store.offer(payload)
    with pytest.raises(Damaged):
        kept.store.load(payload)


def test_what_is_old_is_found(kept: Kept) -> None:
    payload = kept.store.keep([BIG], 1 << 30)
    objects = kept.store.objects
    assert list(objects.unchanged_since(time.time() + 3600)) == [payload.file]
    assert list(objects.unchanged_since(time.time() - 3600)) == []


def test_it_is_usable(kept: Kept) -> None:
    assert kept.store.is_usable()


# --- only of a bucket ------------------------------------------------------------------------------------


def test_several_servers_share_a_bucket(s3_store: ObjectStore, tmp_path: Path) -> None:
    settings = in_bucket(tmp_path, s3_store, prefix="north/one")
    store = open_server(settings).payloads
    payload = store.keep([BIG], 1 << 30)
    assert s3_store.names(settings.blob_store.bucket) == [f"north/one/{payload.file}"]  # type: ignore[union-attr]
    assert list(store.objects.unchanged_since(time.time() + 3600)) == [payload.file]


def test_another_servers_objects_are_not_swept_away(s3_store: ObjectStore, tmp_path: Path) -> None:
    """Though they lie in the same bucket, and under the same prefix."""
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    first = in_bucket(tmp_path / "one", s3_store)
    bucket = first.blob_store.bucket  # type: ignore[union-attr]
    one = open_server(first).payloads
    other = open_server(in_bucket(tmp_path / "other", s3_store, bucket=bucket)).payloads
    kept = one.keep([BIG], 1 << 30)
    assert s3_store.names(bucket) == [kept.file]
    assert list(other.objects.unchanged_since(time.time() + 3600)) == []


def test_wrong_keys(s3_store: ObjectStore, tmp_path: Path) -> None:
    settings = in_bucket(tmp_path, s3_store)
    [keys] = tmp_path.glob("*.keys")
    keys.write_text(yaml.safe_dump({**s3_store.keys, "secret_access_key": uuid.uuid4().hex}))
    store = open_server(settings).payloads
    assert not store.is_usable()
    with pytest.raises(Busy) as raised:
        store.keep([BIG], 1 << 30)
    assert s3_store.endpoint not in str(raised.value)
    store.remove(uuid.uuid4().hex)
    assert list(settings.payload_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "content", "told"),
    [
        (0o644, "{access_key_id: a, secret_access_key: b}", "chmod 600"),
        (0o600, "{access_key_id: a, secret_access_key: hush, other: c}", "nothing else"),
        (0o600, "hush: [", "nothing else"),
        (0o600, "", "nothing else"),
    ],
)
def test_keys_that_are_not_taken(tmp_path: Path, mode: int, content: str, told: str) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text(content)
    keys.chmod(mode)
    store = {"kind": "s3", "endpoint": "https://s3.example.org", "bucket": "payloads", "keys": keys.name}
    settings = parse(yaml.safe_dump({"blob_store": store}), tmp_path / "server.yaml")
    with pytest.raises(ConfigurationError, match=told) as raised:
        open_server(settings)
    assert "hush" not in str(raised.value)


def test_another_machine_is_spoken_to_with_tls_only(tmp_path: Path) -> None:
    store = {"kind": "s3", "endpoint": "http://s3.example.org", "bucket": "payloads", "keys": "keys.yaml"}
    with pytest.raises(ConfigurationError, match="use https"):
        open_server(parse(yaml.safe_dump({"blob_store": store}), tmp_path / "server.yaml"))


@pytest.mark.parametrize(
    ("store", "told"),
    [
        ({"kind": "ftp"}, "files or s3"),
        ({"kind": "files", "bucket": "payloads"}, "bucket"),
        ({"kind": "s3", "bucket": "payloads", "keys": "keys.yaml"}, "endpoint"),
        ({"kind": "s3", "endpoint": "https://s3.example.org", "bucket": "payloads", "keys": "k", "key": "x"}, "key"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, store: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        parse(yaml.safe_dump({"blob_store": store}), tmp_path / "server.yaml")
