"""The forms of a result: JSON; ``.npz`` where there are arrays in it; Arrow for a table; a file as it is.

What a result is, its first bytes say. Nothing here is ever unpickled. NumPy, pandas and Arrow are imported only for a
result that needs them.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from skerry import values
from skerry.errors import MissingExtra

if TYPE_CHECKING:
    from zipfile import ZipFile

    import pandas as pd

_ZIP = b"PK\x03\x04"
_ARROW = b"ARROW1"
_FIRST_MESSAGE = 8
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
"""Where an Arrow file begins to say something, and kinds of what it says."""

_REST = "value.json"
"""The member with all that is no array: the value with null in the arrays' places, and which goes where."""

_BROKEN = (ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError)
"""What the readers of these forms raise for a file that somebody has tampered with, beside ValueError."""

_PIECE = 1024 * 1024
_MOST_EXPANDED = 16
_ALWAYS_EXPANDED = 64 << 20
Place = tuple[str | int, ...]


def dump(value: Any, file: IO[bytes], name: str) -> None:
    """Writes the value; a ``Path`` stands for what is in that file, and bytes for themselves.

    Raises ValueError with where in it, ``name``, the first thing sits that has no form, or hides something that would
    be shown, OSError, or MissingExtra for a table without Arrow.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        file.write(value)
    elif isinstance(value, Path):
        _copy(value, file)
    elif _is_table(value):
        _write_table(value, file, name)
    elif arrays := _find_arrays(value):
        _write_arrays(value, arrays, file, name)
    else:
        file.write(values.dump(value, name))


def load(file: IO[bytes]) -> Any:
    """The value in a file that can be sought in: arrays as NumPy's, a table as a data frame.

    Raises ValueError for anything else, MissingExtra without the packages that it needs.
    """
    start = file.read(len(_ARROW))
    file.seek(0)
    if start.startswith(_ZIP):
        return _read_arrays(file)
    if start == _ARROW:
        return _read_table(file)
    try:
        return json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise ValueError("it is not JSON, nor are there arrays or a table in it") from error


def _copy(path: Path, file: IO[bytes]) -> None:
    with path.open("rb") as source:
        while piece := source.read(_PIECE):
            file.write(piece)


# --- arrays ----------------------------------------------------------------------------------------------


def _find_arrays(value: Any) -> dict[Place, Any]:
    """None in what is nested too deeply for JSON, too: that is then said of it."""
    try:
        return dict(_arrays(value, ()))
    except RecursionError:
        return {}


def _arrays(value: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    """The arrays in a value, each with its place."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return
    if isinstance(value, numpy.ndarray):
        yield place, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _arrays(part, (*place, _key(key)))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _arrays(part, (*place, index))


def _write_arrays(value: Any, arrays: dict[Place, Any], file: IO[bytes], name: str) -> None:
    from zipfile import ZipFile  # noqa: PLC0415 - a container that returns no arrays starts faster without

    from numpy.lib import format as npy  # noqa: PLC0415

    members = {str(number): place for number, place in enumerate(arrays)}
    rest = {"value": _without(value), "arrays": {member: list(place) for member, place in members.items()}}
    with ZipFile(file, "w") as archive:
        archive.writestr(_REST, values.dump(rest, name))
        for member, place in members.items():
            array = arrays[place]
            _check_array(array, _spell(name, place))
            with archive.open(f"{member}.npy", "w", force_zip64=True) as out:
                npy.write_array(out, array, allow_pickle=False)


def _check_array(array: Any, name: str) -> None:
    if values.is_masked(array):
        raise ValueError(f"{name} {values.MASKED}")
    if array.dtype.hasobject:
        raise ValueError(f"{name} is an array of objects; make it one of numbers or texts")


def _without(value: Any) -> Any:
    """The value with None for each of its arrays."""
    if isinstance(value, sys.modules["numpy"].ndarray):
        return None
    if isinstance(value, dict):
        return {key: _without(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without(part) for part in value]
    return value


def _spell(name: str, place: Place) -> str:
    return name + "".join(f"[{key!r}]" for key in place)


def _read_arrays(file: IO[bytes]) -> Any:
    """What ``_write_arrays`` wrote, or the arrays of any ``.npz`` by their names."""
    from tokenize import TokenError  # noqa: PLC0415
    from zipfile import BadZipFile, ZipFile  # noqa: PLC0415

    try:
        from numpy.lib import format as npy  # noqa: PLC0415 - who gets no arrays needs none
    except ImportError as error:
        raise MissingExtra("data", "Results with arrays") from error
    try:
        with ZipFile(file) as archive:
            _check_size(archive)
            found = {}
            for member in archive.namelist():
                if member.endswith(".npy"):
                    with archive.open(member) as stream:
                        found[member.removesuffix(".npy")] = npy.read_array(stream, allow_pickle=False)
            if _REST not in archive.namelist():
                return found
            rest = json.loads(archive.read(_REST))
        return _put_back(rest["value"], {tuple(rest["arrays"][name]): array for name, array in found.items()})
    except (BadZipFile, TokenError, zlib.error, *_BROKEN) as error:
        raise ValueError("it is a broken .npz file") from error
    except MemoryError as error:
        raise ValueError("its arrays need more memory than there is") from error


def _check_size(archive: ZipFile) -> None:
    """A small file must not fill the reader's memory."""
    packed = sum(member.compress_size for member in archive.infolist())
    if _is_much_more(sum(member.file_size for member in archive.infolist()), packed):
        raise ValueError("it is a .npz file that would become much larger than it is")


def _is_much_more(expanded: int, packed: int) -> bool:
    return expanded > packed * _MOST_EXPANDED + _ALWAYS_EXPANDED


def _put_back(value: Any, arrays: dict[Place, Any]) -> Any:
    for place, array in arrays.items():
        if not place:
            return array
        holder = value
        for key in place[:-1]:
            holder = holder[_index(holder, key)]
        holder[_index(holder, place[-1])] = array
    return value


def _index(holder: Any, key: str | int) -> str | int:
    """Earlier archives have keys that were no texts as they were."""
    return key if isinstance(holder, list) else _key(key)


def _key(key: Any) -> str:
    """A dict's key as JSON spells it; that it has no spelling, ``values.dump`` says."""
    return key if isinstance(key, str) else json.dumps(key, default=str)


# --- tables ----------------------------------------------------------------------------------------------


def _is_table(value: Any) -> bool:
    pandas, arrow = sys.modules.get("pandas"), sys.modules.get("pyarrow")
    is_frame = pandas is not None and isinstance(value, pandas.DataFrame)
    return is_frame or (arrow is not None and isinstance(value, arrow.Table))


def _write_table(value: Any, file: IO[bytes], name: str) -> None:
    arrow = _arrow()
    table = value if isinstance(value, arrow.Table) else _as_arrow(value, arrow, name)
    with arrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _as_arrow(frame: pd.DataFrame, arrow: Any, name: str) -> Any:
    for column, cells in frame.items():
        if cells.dtype == object:
            _refuse_masked(cells.tolist(), (cast("str", column),), name)
    return arrow.Table.from_pandas(frame)


def _refuse_masked(value: Any, place: Place, name: str) -> None:
    """For the cells of a table, in which Arrow takes arrays of objects for lists."""
    for where, array in _arrays(value, place):
        if values.is_masked(array):
            raise ValueError(f"{_spell(name, where)} {values.MASKED}")
        if array.dtype.hasobject:
            _refuse_masked(array.tolist(), where, name)


def _read_table(file: IO[bytes]) -> pd.DataFrame:
    """Message by message from the start on, as they were looked at; the file's index could lead elsewhere."""
    arrow = _arrow()
    try:
        size = file.seek(0, os.SEEK_END)
        file.seek(_FIRST_MESSAGE)
        for message in arrow.ipc.MessageReader.open_stream(file):
            if _is_compressed(message.metadata.to_pybytes()):
                raise ValueError("it is a compressed Arrow file, which could become much larger than it is")
        file.seek(_FIRST_MESSAGE)
        with arrow.ipc.open_stream(file) as reader:
            table = reader.read_all()
        if _is_much_more(table.num_rows * table.num_columns, size):
            raise ValueError("it is an Arrow file that would become much larger than it is")
        table.validate(full=True)
        return cast("pd.DataFrame", table.to_pandas())
    except (arrow.ArrowException, *_BROKEN) as error:
        raise ValueError(f"it is a broken Arrow file: {error}") from error
    except MemoryError as error:
        raise ValueError("its table needs more memory than there is") from error


def _is_compressed(message: bytes) -> bool:
    """Whether an Arrow message has buffers that unfold (Message.fbs of the Arrow format; FlatBuffers' tables)."""
    root = _follow(message, 0)
    kind_at, header_at = _slot(message, root, 1), _slot(message, root, 2)
    if not kind_at or not header_at:
        return False
    header, kind = _follow(message, header_at), message[kind_at]
    if kind == _DICTIONARY_BATCH and (data_at := _slot(message, header, 1)):
        header, kind = _follow(message, data_at), _RECORD_BATCH
    return kind == _RECORD_BATCH and _slot(message, header, 3) != 0


def _follow(message: bytes, at: int) -> int:
    return at + _read("<I", message, at)


def _slot(message: bytes, table: int, number: int) -> int:
    """Where a table has its field of that number; 0 where it has none."""
    names = table - _read("<i", message, table)
    place = 4 + 2 * number
    offset = _read("<H", message, names + place) if place < _read("<H", message, names) else 0
    return table + offset if offset else 0


def _read(form: str, message: bytes, at: int) -> int:
    """Raises ValueError outside of the message."""
    if not 0 <= at <= len(message) - struct.calcsize(form):
        raise ValueError("it is a broken Arrow file: a message points out of itself")
    return int(struct.unpack_from(form, message, at)[0])


def _arrow() -> Any:
    try:
        import pandas  # noqa: F401, ICN001, PLC0415 - who gets no tables needs none
        import pyarrow  # noqa: ICN001, PLC0415
        import pyarrow.ipc  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("data", "Results that are tables") from error
    return pyarrow
