"""Sealing a result and a log, and telling the server; small ones inline, large ones as streams."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import tracemalloc
from typing import Self

import pytest
from federation import DATABASES, IMAGE, TOKEN, jwt

from skerry import crypto
from skerry.errors import AuthenticationError, Conflict, ServerUnreachable
from skerry.keys import OrganizationKeys
from skerry.trust import Expected, verify
from skerry.wire import Format, detect_format, from_stored, unb64
from skerry_proxy.access import Access
from skerry_proxy.control import find_kind
from skerry_proxy.logs import LARGEST_LOG, shorten

pytestmark = pytest.mark.unit
FORMATS = ["native", "vantage6", "plain"]


class Outbox:
    """An output file, and where its sealed form goes."""

    def __init__(self, folder, output: bytes) -> None:
        (folder / "output").write_bytes(output)
        self.output = os.open(folder / "output", os.O_RDONLY)
        self.path = folder / "sealed"
        self.sealed = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        os.close(self.output)
        os.close(self.sealed)


def read_native(stored: bytes, reader, author, uuid: str, direction: str) -> bytes:
    opened = crypto.unseal([stored], reader)
    plaintext = b"".join(opened.chunks)
    expected = Expected(direction, uuid, 1, recipient=1, image=IMAGE, databases=DATABASES, attempt=1, sender=2)
    keys = OrganizationKeys.from_wire(author.organization_keys(2))
    assert verify(opened.header, opened.proof, expected, {2: keys}.__getitem__, time.time()).organization == 2
    return plaintext


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("size", [20, 300_000])
def test_a_result_is_sealed_for_who_asked_and_delivered(  # noqa: PLR0917 - fixtures
    make_bench, fake, tmp_path, alice, bob, fmt, size
) -> None:
    bench, output = make_bench(fmt), b"r" * size
    resume = bench.open()["resume"]
    with Outbox(tmp_path, output) as outbox:
        length, log = bench.office.seal(resume, "said\n", outbox.output, outbox.sealed)
        status = bench.office.deliver(resume, TOKEN, "completed", log, outbox.sealed)
    stored = outbox.path.read_bytes()
    assert status == "completed"
    assert length == len(stored)
    (finish,) = fake.finished
    inline = size < 1000
    assert finish == {
        "run": 7,
        "attempt": 1,
        "status": "completed",
        "log": log,
        "result": from_stored(stored, Format(fmt)) if inline else None,
        "staged": not inline,
    }
    assert fake.staged == ({} if inline else {7: len(stored)})
    if fmt == "native":
        assert read_native(stored, alice, bob, resume["uuid"], "result") == output
        assert read_native(unb64(log), alice, bob, resume["uuid"], "log") == b"said\n"
        assert detect_format(log) == "native"
    else:
        assert (crypto.vantage6_decrypt(stored.decode(), alice) if fmt == "vantage6" else stored) == output
        assert log == "said\n"


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_run_without_a_result_is_finished_too(make_bench, fake, fmt) -> None:
    bench = make_bench(fmt)
    resume = bench.open()["resume"]
    size, log = bench.office.seal(resume, "boom", None, None)
    assert size == 0
    assert bench.office.deliver(resume, TOKEN, "crashed", log, None) == "crashed"
    assert (fake.finished[0]["result"], fake.finished[0]["staged"]) == (None, False)


def test_a_run_is_sealed_and_delivered_by_another_process_and_again(make_bench, fake, tmp_path) -> None:
    resume = make_bench().open()["resume"]
    bench = make_bench()
    with Outbox(tmp_path, b"[1]") as outbox:
        for _ in range(2):
            _, log = bench.office.seal(resume, "", outbox.output, outbox.sealed)
            assert bench.office.deliver(resume, TOKEN, "completed", log, outbox.sealed) == "completed"
    assert len(fake.finished) == 2


@pytest.mark.parametrize(
    ("fault", "error", "kind"),
    [
        ("409", Conflict, "fenced"),
        ("drop", ServerUnreachable, "unreachable"),
        ("lose", ServerUnreachable, "unreachable"),
        ("503", ServerUnreachable, "unreachable"),
        ("401", AuthenticationError, "unreachable"),
    ],
)
@pytest.mark.parametrize("path", ["/finish", "/result"])
def test_a_delivery_that_fails_says_how(  # noqa: PLR0917 - fixtures
    make_bench, fake, tmp_path, path, fault, error, kind
) -> None:
    bench = make_bench()
    resume = bench.open()["resume"]
    with Outbox(tmp_path, b"x" * 200_000) as outbox:
        _, log = bench.office.seal(resume, "", outbox.output, outbox.sealed)
        fake.faults.append((path, fault))
        with pytest.raises(error) as raised:
            bench.office.deliver(resume, TOKEN, "completed", log, outbox.sealed)
        assert find_kind(raised.value) == kind
        assert bench.office.deliver(resume, TOKEN, "completed", log, outbox.sealed) == "completed"


@pytest.mark.parametrize(("received", "complete", "sent"), [(100_000, False, 1), (0, True, 0)])
def test_a_delivery_goes_on_where_it_broke_off(  # noqa: PLR0917 - fixtures
    make_bench, fake, tmp_path, received, complete, sent
) -> None:
    bench = make_bench()
    resume = bench.open()["resume"]
    with Outbox(tmp_path, b"x" * 200_000) as outbox:
        size, log = bench.office.seal(resume, "", outbox.output, outbox.sealed)
        fake.received, fake.whole = received, complete
        assert bench.office.deliver(resume, TOKEN, "completed", log, outbox.sealed) == "completed"
    puts = [
        headers["query"] for method, path, headers in fake.seen if (method, path) == ("PUT", "/skerry/run/7/result")
    ]
    digest = hashlib.sha256(outbox.path.read_bytes()[:512]).hexdigest()
    assert puts == [f"attempt=1&of={digest}&start={received}&size={size}"] * sent
    assert fake.staged == ({7: size - received} if sent else {})


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("size", [20, 3_000_000])
def test_a_result_is_handed_over(make_bench, fake, tmp_path, alice, bob, fmt, size) -> None:  # noqa: PLR0917
    bench, output = make_bench(fmt), b"r" * size
    resume = bench.open()["resume"]
    with Outbox(tmp_path, output) as outbox:
        assert bench.office.hand_over(resume, TOKEN, "completed", "log", outbox.output) == "completed"
    stored = fake.staged[7]
    if fmt == "native":
        assert read_native(stored, alice, bob, resume["uuid"], "result") == output
    else:
        assert (crypto.vantage6_decrypt(stored.decode(), alice) if fmt == "vantage6" else stored) == output
    [finish] = fake.finished
    assert (finish["status"], finish["staged"], finish["result"], finish["log"]) == ("completed", True, None, "log")
    [query] = [headers["query"] for method, _, headers in fake.seen if method == "PUT"]
    assert query == f"attempt=1&of={hashlib.sha256(stored[:512]).hexdigest()}"


def test_an_upload_that_outlasts_its_token_is_needed_once(make_bench, fake, tmp_path, monkeypatch) -> None:
    """The end is then told with a fresh one, which nobody renews any more after that."""
    bench, first = make_bench(), jwt(iat=0, exp=1)
    resume = bench.open()["resume"]
    arrived, renewed, renew = threading.Event(), threading.Event(), Access.renew

    def renew_meanwhile(access: Access) -> float | None:
        arrived.wait(60)
        seconds = renew(access)
        renewed.set()
        return seconds

    monkeypatch.setattr(Access, "renew", renew_meanwhile)

    def outlast() -> None:
        arrived.set()
        assert renewed.wait(60)

    fake.token, fake.while_uploading = first, outlast
    with Outbox(tmp_path, b"r" * 100_000) as outbox:
        assert bench.office.hand_over(resume, first, "completed", None, outbox.output) == "completed"
    told = [(path, headers["Authorization"]) for _, path, headers in fake.seen if path.endswith(("result", "finish"))]
    assert told == [("/skerry/run/7/result", f"Bearer {first}"), ("/skerry/run/7/finish", f"Bearer {fake.token}")]
    assert not bench.office._renewer._due


@pytest.mark.parametrize(
    ("fault", "error"), [("409", Conflict), ("503", ServerUnreachable), ("drop", ServerUnreachable)]
)
@pytest.mark.parametrize("path", ["/result", "/finish"])
def test_what_can_not_be_handed_over(make_bench, fake, tmp_path, path, fault, error) -> None:  # noqa: PLR0917
    bench = make_bench()
    resume = bench.open()["resume"]
    fake.faults.append((path, fault))
    with Outbox(tmp_path, b"r" * 100_000) as outbox, pytest.raises(error):
        bench.office.hand_over(resume, TOKEN, "completed", None, outbox.output)


def test_memory_stays_bounded_for_a_large_result(make_bench, fake, tmp_path) -> None:
    bench = make_bench()
    resume = bench.open()["resume"]
    with Outbox(tmp_path, b"") as outbox:
        os.truncate(tmp_path / "output", 200 * 1024 * 1024)
        tracemalloc.start()
        size, log = bench.office.seal(resume, "", outbox.output, outbox.sealed)
        bench.office.deliver(resume, TOKEN, "completed", log, outbox.sealed)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert fake.staged == {7: size}
    assert size > 200 * 1024 * 1024
    assert peak < 16 * 1024 * 1024


def test_a_log_keeps_its_start_and_its_end() -> None:
    log = "first\n" + "é" * LARGEST_LOG + "\nlast"
    short = shorten(log)
    assert short.startswith("first\n")
    assert short.endswith("\nlast")
    assert len(short.encode()) < LARGEST_LOG + 200
    assert "left out" in short
    assert shorten("as it is\n") == "as it is\n"
    assert shorten("\udcff") == "?"
    assert shorten("a\0b") == "a\ufffdb"


def test_a_log_is_cut_at_a_limit_of_the_nodes_own() -> None:
    short = shorten("begin " + "é" * 10_000 + " end", 1000)
    assert short.startswith("begin ")
    assert short.endswith(" end")
    assert len(short.encode()) < 1100
