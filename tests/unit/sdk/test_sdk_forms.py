"""What a result may be: JSON, arrays, a table or a file; and that nothing of it is ever unpickled."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry import forms, values

pytestmark = pytest.mark.unit


def dumped(value: Any) -> io.BytesIO:
    out = io.BytesIO()
    forms.dump(value, out, "result")
    out.seek(0)
    return out


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(part, other[key]) for key, part in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(12.0).reshape(3, 4),
        np.array(["é", "yy"]),
        {"weights": [np.ones((2, 2)), np.zeros(0, dtype="int8")], "loss": 0.5, "name": None},
        {"a.b": np.ones(1), "a": {"b": np.zeros(1)}, "": {"": np.ones(2)}},
        [[1, [np.array(7)]], "text"],
    ],
)
def test_arrays_come_as_they_went(value: Any) -> None:
    assert same(value, forms.load(dumped(value)))


def test_arrays_can_be_read_without_us() -> None:
    with np.load(dumped({"weights": np.arange(3), "n": 2}), allow_pickle=False) as read:
        places = json.loads(read["value.json"])["arrays"]
        assert {name: read[name].tolist() for name in places} == {"0": [0, 1, 2]}
        assert places == {"0": ["weights"]}


def test_arrays_by_other_hands() -> None:
    out = io.BytesIO()
    np.savez_compressed(out, first=np.zeros(5), second=np.ones(2))
    out.seek(0)
    assert {name: one.tolist() for name, one in forms.load(out).items()} == {"first": [0] * 5, "second": [1, 1]}


def test_keys_that_are_numbers_become_texts_as_in_json() -> None:
    assert forms.load(dumped({1: {2: np.ones(1)}}))["1"]["2"].tolist() == [1]


@pytest.mark.parametrize("key", [True, False, None, 1.5, "a\0b", "a\0c", "../x", "\ud800", "n" * 70_000])
def test_an_array_is_held_by_any_key_that_json_can_spell(key: Any) -> None:
    array, spelled = np.ones(2), next(iter(json.loads(json.dumps({key: 0}))))
    assert same({spelled: {spelled: array}, "a\0d": array}, forms.load(dumped({key: {key: array}, "a\0d": array})))


def test_archives_that_name_arrays_by_their_places_are_read() -> None:
    rest = {"value": {"1": [None, None], "w": 2}, "arrays": {"0-1.0": [1, 0], "1-1.1": [1, 1]}}
    raw = _zip(
        **{"value_json": json.dumps(rest).encode(), "0-1.0.npy": _npy(np.ones(1)), "1-1.1.npy": _npy(np.ones(2))}
    )
    assert same({"1": [np.ones(1), np.ones(2)], "w": 2}, forms.load(io.BytesIO(raw)))


@pytest.mark.parametrize("value", [pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), pa.table({"a": [1, 2]})])
def test_a_table(value: Any) -> None:
    found = forms.load(dumped(value))
    assert isinstance(found, pd.DataFrame)
    assert found["a"].tolist() == [1, 2]


def test_a_file_and_bytes_are_what_they_are(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "model").write_bytes(content)
    assert dumped(tmp_path / "model").read() == dumped(content).read() == content


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": [np.array([object()])]}, r"result\['a'\]\[0\] is an array of objects"),
        ({"a": np.ones(1), "b": {1, 2}}, "of type set"),
        ({"a": np.ones(1), "b": float("nan")}, "nan"),
    ],
)
def test_what_has_no_form_is_named(value: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        dumped(value)


HIDING: Any = np.ma.array([1, 2], mask=[0, 1])
HELD = np.empty(1, dtype=object)
HELD[0] = HIDING


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (HIDING, ""),
        (np.ma.array([1, 2]), ""),
        ({"a": [np.ones(1), {"b": (HIDING,)}]}, "['a'][1]['b'][0]"),
        ({"mean": HIDING[1:].mean()}, "['mean']"),
        (pd.DataFrame({"n": [1], "a": [HIDING]}), "['a'][0]"),
        (pd.DataFrame({"a": [{"b": [HIDING]}]}), "['a'][0]['b'][0]"),
        (pd.DataFrame({"a": [[HELD]]}), "['a'][0][0][0]"),
    ],
)
def test_what_an_array_masks_does_not_go_out(value: Any, where: str) -> None:
    out = io.BytesIO()
    with pytest.raises(ValueError, match=rf"^{re.escape(f'result{where}')} is a masked array.*filled.*compressed"):
        forms.dump(value, out, "result")


def test_what_an_array_of_an_input_masks_does_not_go_out() -> None:
    with pytest.raises(ValueError, match=r"^input_\['kwargs'\]\['a'\]\[0\] is a masked array.*filled.*compressed"):
        values.dump({"method": "m", "kwargs": {"a": [HIDING]}}, "input_")


def test_a_key_that_json_can_not_spell_is_named() -> None:
    with pytest.raises(ValueError, match="has a key of type tuple"):
        dumped({(1, 2): np.ones(1)})


def _zip(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return out.getvalue()


def _npy(array: np.ndarray[Any, Any], *, pickled: bool = False) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=pickled)
    return out.getvalue()


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"\xff\xfe", "not JSON"),
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"PK\x03\x04 and no more", "broken .npz"),
        (_zip(a_npy=b"no array"), "magic string"),
        (_zip(a_npy=_npy(np.ones(1)), value_json=b"[]"), "broken .npz"),
        (_zip(a_npy=_npy(np.ones(1)), value_json=b'{"value": {}, "arrays": {"a": ["x", "y"]}}'), "broken .npz"),
        (_zip(a_npy=bytes(200 << 20)), "much larger than it is"),
        (b"ARROW1\0\0 and no more", "broken Arrow"),
    ],
)
def test_broken_results_are_named(raw: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        forms.load(io.BytesIO(raw))


def _arrow(table: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_file(out, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return out.getvalue()


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (_arrow(pa.table({"a": np.zeros(1 << 20)}), compression="zstd"), "compressed Arrow"),
        (_arrow(pa.table({"a": np.zeros(1 << 20)}), compression="lz4"), "compressed Arrow"),
        (
            _arrow(pa.table({"a": pa.array(["x" * 9999] * 9).dictionary_encode()}), compression="zstd"),
            "compressed Arrow",
        ),
        (_arrow(pa.table({"a": pa.nulls(1 << 28)})), "much larger than it is"),
    ],
)
def test_a_small_table_does_not_become_a_large_one(raw: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        forms.load(io.BytesIO(raw))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(["arrays", "table"]), st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4)), max_size=6))
def test_whatever_was_tampered_with_is_a_value_error(form: str, changes: list[tuple[float, bytes]]) -> None:
    value = [np.arange(9.0), {"x": np.eye(2)}] if form == "arrays" else pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    out = io.BytesIO()
    forms.dump(value, out, "result")
    raw = bytearray(out.getvalue())
    for place, new in changes:
        at = int(place * (len(raw) - 1))
        raw[at : at + max(1, len(new))] = new
    with contextlib.suppress(ValueError):
        forms.load(io.BytesIO(bytes(raw)))


class _Trap:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch /tmp/unpickled",)


def test_a_pickle_is_not_read() -> None:
    planted = np.empty(1, dtype=object)
    planted[0] = _Trap()
    with pytest.raises(ValueError, match="allow_pickle"):
        forms.load(io.BytesIO(_zip(a_npy=_npy(planted, pickled=True))))
    assert not Path("/tmp/unpickled").exists()


def test_who_returns_no_numbers_imports_nothing_for_them() -> None:
    program = (
        "import io, sys; from skerry import entrypoint, forms; forms.dump({}, io.BytesIO(), 'x'); "
        "print({'numpy', 'pandas', 'pyarrow', 'zipfile', 'requests', 'cryptography'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
