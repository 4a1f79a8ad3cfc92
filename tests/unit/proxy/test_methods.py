"""The function that an input asks for is the one that a JSON parser reads."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.wire import Input
from skerry_proxy.inputs import CHECKED_AS_A_WHOLE, InputWriter, MethodScanner

pytestmark = pytest.mark.unit
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("method") | st.just('"}:{,\\'),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.just("method"), inner, max_size=3)
    ),
    max_leaves=8,
)


def scan(raw: bytes, piece: int) -> str:
    scanner = MethodScanner()
    for start in range(0, len(raw), piece):
        scanner.feed(raw[start : start + piece])
    return scanner.finish()


@given(
    method=st.text(max_size=20),
    rest=st.dictionaries(st.text(max_size=6).filter(lambda name: name != "method"), VALUES, max_size=4),
    first=st.booleans(),
    piece=st.integers(1, 40),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_the_scanner_reads_what_a_parser_reads(  # noqa: PLR0917 - hypothesis draws them
    method, rest, first, piece, ascii_only, indent
) -> None:
    value = {"method": method, **rest} if first else {**rest, "method": method}
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    assert scan(raw, piece) == json.loads(raw)["method"]


def test_an_escaped_name_is_read_too() -> None:
    assert scan(b'{"m\\u0065thod": "a\\"b"}', 3) == 'a"b'


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b"[]",
        b'"method"',
        b'[{"method": "a"}]',
        b'{"a": {"method": "a"}}',
        b'{"method": {"method": "a"}}',
        b'{"method": ["a"]}',
        b'{"method": 5}',
        b'{"method": "a"} {"method": "b"}',
        b'{"method": "a"}x',
        b'{"method": "a", "m\\u0065thod": "b"}',
        b'{"method": "' + b"a" * 5000 + b'"}',
        '{"method": "a"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"method": "a"}',
    ],
)
def test_what_does_not_name_one_function_is_refused(raw) -> None:
    with pytest.raises(ValueError, match="input"):
        scan(raw, 7)


@given(st.binary(max_size=200))
def test_garbage_is_a_sentence(raw) -> None:
    writer = InputWriter(io.BytesIO())
    try:
        writer.write(raw)
        assert writer.finish() == Input.parse(raw).method
    except ValueError as error:
        assert str(error)  # noqa: PT017 - either end is right


def test_a_large_input_is_not_kept() -> None:
    raw = b'{"args": [' + b"1," * CHECKED_AS_A_WHOLE + b'1], "method": "late"}'
    file = io.BytesIO()
    writer = InputWriter(file)
    for start in range(0, len(raw), 65536):
        writer.write(raw[start : start + 65536])
    assert writer.finish() == "late"
    assert file.getvalue() == raw
    assert len(writer._start) <= CHECKED_AS_A_WHOLE
