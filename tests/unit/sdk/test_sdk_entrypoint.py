"""One run in a container, by its environment, input and output files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from skerry import contract, databases, entrypoint
from skerry.databases import Database
from skerry.errors import DataError
from skerry.output import error, info, warn

pytestmark = pytest.mark.unit

ALGORITHM = """
import gc, os, sys
from skerry import central, data, metadata, partial
from skerry.errors import AlgorithmError, PrivacyViolation

@partial
def echo(value):
    return value

@partial
@data(2)
def columns(first, second, number):
    return [list(first.columns), list(second.columns), number]

@partial
def raises(message):
    deeper(message)

def deeper(message):
    raise ValueError(message)

@partial
def wordless():
    raise KeyError

@partial
def refuses():
    raise PrivacyViolation("too few")

@partial
def nothing():
    print("did nothing")

@partial
def leaves(code):
    sys.exit(code)

@partial
def environment():
    return {"tmp": os.environ["TEMPORARY_FOLDER"], "rows": os.environ["MINIMUM_ROWS"]}

@partial
def forgets(file):
    global forgotten
    forgotten = open(file, "w")
    forgotten.write("all of it")
    return gc.get_freeze_count()

@metadata
def who(me):
    return [me.task_id, me.organization_id, me.temporary_directory]

@central
def coordinate(client):
    return [client.base_path, client.claims.image]
"""


@pytest.fixture
def container(tmp_path, monkeypatch, make_token):
    """The variables of a run whose package is ``algo``; ``run`` gives the exit code and the result."""
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo" / "__init__.py").write_text(ALGORITHM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "algo", raising=False)
    files = {name: tmp_path / name for name in ("input", "output", "token", "a.csv", "b.parquet")}
    files["output"].touch()
    ids = {"task_id": 5, "node_id": 2, "organization_id": 3, "collaboration_id": 1}
    files["token"].write_text(make_token({**ids, "image": "x", "databases": []}) + "\n")
    files["a.csv"].write_text("age,height\n1,2\n")
    pd.DataFrame({"weight": [1.0]}).to_parquet(files["b.parquet"])
    return Container(
        files,
        {
            "INPUT_FILE": str(files["input"]),
            "OUTPUT_FILE": str(files["output"]),
            "TOKEN_FILE": str(files["token"]),
            "TEMPORARY_FOLDER": "/mnt/tmp",
            "HOST": "http://127.0.0.1",
            "PORT": "8642",
            "API_PATH": "",
            "PKG_NAME": "algo",
            "USER_REQUESTED_DATABASE_LABELS": "one,two",
            "ONE_DATABASE_URI": str(files["a.csv"]),
            "ONE_DATABASE_TYPE": "csv",
            "TWO_DATABASE_URI": str(files["b.parquet"]),
            "TWO_DATABASE_TYPE": "parquet",
        },
    )


class Container:
    def __init__(self, files: dict[str, Path], environment: dict[str, str]) -> None:
        self.files, self.environment = files, environment

    def run(self, method, *args, **kwargs):
        self.files["input"].write_text(json.dumps({"method": method, "args": args, "kwargs": kwargs}))
        code = entrypoint.run(self.environment)
        raw = self.files["output"].read_bytes()
        return code, json.loads(raw) if raw else None


def test_a_result_is_written(container) -> None:
    assert container.run("echo", {"a": [1, "é"]}) == (0, {"a": [1, "é"]})


def test_data_frames_come_in_the_tasks_order(container) -> None:
    assert container.run("columns", number=3) == (0, [["age", "height"], ["weight"], 3])


def test_what_a_run_knows_of_itself(container) -> None:
    assert container.run("who") == (0, [5, 3, "/mnt/tmp"])


def test_a_central_function_gets_its_gate(container) -> None:
    assert container.run("coordinate") == (0, ["http://127.0.0.1:8642", "x"])


@pytest.mark.parametrize(
    ("method", "args", "code", "last"),
    [
        ("nope", [], 2, 'The algorithm "algo" has no function "nope"; it has: columns, coordinate, echo'),
        ("deeper", ["x"], 2, 'has a function "deeper" that is not marked: put @partial or @central above it'),
        ("echo", [1, 2], 2, 'The function "echo" can\'t be called so: too many positional arguments'),
        ("raises", ["the column\nis empty"], 1, "ValueError: the column is empty"),
        ("wordless", [], 1, "KeyError"),
        ("refuses", [], 1, "too few"),
        ("nothing", [], 1, "returned nothing"),
        ("echo", [{"mean": float("nan")}], 1, "result['mean'] is nan, for which JSON has no word"),
        ("echo", [7], 0, None),
    ],
)
def test_how_a_run_ends(container, capsys, method, args, code, last) -> None:  # noqa: PLR0917
    ended, result = container.run(method, *args)
    printed = capsys.readouterr().out
    assert ended == code
    assert (result is None) == (code != 0)
    assert "Traceback" not in printed
    if last:
        line = printed.splitlines()[-1]
        assert line.startswith("error > ")
        assert last in line


def test_where_an_error_came_from_in_the_algorithms_own_code(container, capsys) -> None:
    container.run("raises", "x")
    frames = [line for line in capsys.readouterr().out.splitlines() if line.startswith("info > ")]
    assert [frame.partition(", in ")[2] for frame in frames] == [
        "raises: deeper(message)",
        "deeper: raise ValueError(message)",
    ]


def test_an_algorithm_may_leave_with_a_code(container) -> None:
    with pytest.raises(SystemExit) as caught:
        container.run("leaves", 3)
    assert caught.value.code == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"PKG_NAME": ""}, "PKG_NAME is not set"),
        ({"PKG_NAME": "there_is_none"}, '"there_is_none" can\'t be imported: No module named'),
        ({"INPUT_FILE": "/nowhere/input"}, "input can't be read: No such file"),
        ({"OUTPUT_FILE": ""}, "OUTPUT_FILE is not set"),
    ],
)
def test_an_environment_that_is_not_as_the_contract_says(container, capsys, change, words) -> None:
    container.environment |= change
    assert container.run("echo", 1)[0] == 2
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    "raw", [b"", b"\xff", b"[]", b'{"method": 1}', b'{"method": "echo", "args": 3}', b"[" * 10_000]
)
def test_an_input_that_is_none(container, capsys, raw) -> None:
    container.files["input"].write_bytes(raw)
    assert entrypoint.run(container.environment) == 2
    assert "input" in capsys.readouterr().out.lower()


def test_a_token_that_is_none(container, capsys) -> None:
    container.files["token"].write_text("x")
    assert container.run("coordinate")[0] == 2
    assert "token" in capsys.readouterr().out


def test_no_room_for_the_result(container, capsys) -> None:
    container.environment["OUTPUT_FILE"] = "/dev/full"
    assert container.run("echo", "x" * 100)[0] == 1
    assert "The result can't be written: No space left on device." in capsys.readouterr().out


def run_program(container, tmp_path, method: str, *args: object) -> object:
    """The result of a process of its own, as an image starts it."""
    plain = {**container.environment, "MINIMUM_ROWS": "10"}
    encoded = {name: contract.encode(value) for name, value in plain.items()} | {"PKG_NAME": "algo"}
    container.files["input"].write_text(json.dumps({"method": method, "args": args}))
    command = [sys.executable, "-m", "skerry.entrypoint"]
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), **encoded}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(container.files["output"].read_text())


def test_the_program_decodes_its_environment_for_the_algorithm_too(container, tmp_path) -> None:
    assert run_program(container, tmp_path, "environment") == {"tmp": "/mnt/tmp", "rows": "10"}


def test_its_end_writes_what_the_algorithm_left_open_and_does_not_look_through_libraries(container, tmp_path) -> None:
    left = tmp_path / "left"
    assert run_program(container, tmp_path, "forgets", str(left)) > 1000
    assert left.read_text() == "all of it"


def test_messages_go_to_the_log(capsys) -> None:
    info("a")
    warn(2)
    error(ValueError("c"))
    assert capsys.readouterr().out == "info > a\nwarn > 2\nerror > c\n"


@pytest.mark.parametrize(
    ("database", "words"),
    [
        (Database("d", "/nowhere/x.csv", "csv"), '"d" can\'t be read as csv: .*No such file'),
        (Database("d", "x", "oracle"), 'is of type "oracle"; these can be loaded: csv, excel'),
        (Database("d", "x.csv", "csv", query="select 1"), "takes no query"),
        (Database("d", "x.csv", "csv", preprocessing='[{"function": "f"}]'), "can't be read"),
    ],
)
def test_a_database_that_can_not_be_loaded(database, words) -> None:
    with pytest.raises(DataError, match=words):
        databases.load(database)


@pytest.mark.parametrize(
    ("kind", "raw"), [("csv", b""), ("csv", b'a,b\n"1'), ("parquet", b"not parquet"), ("csv", b"\xff\xfe")]
)
def test_a_damaged_database(tmp_path, kind, raw) -> None:
    (tmp_path / "file").write_bytes(raw)
    with pytest.raises(DataError, match=f"can't be read as {kind}"):
        databases.load(Database("d", str(tmp_path / "file"), kind))


def test_a_database_that_the_node_did_not_give() -> None:
    with pytest.raises(DataError, match='no database "patients"'):
        databases.requested({"USER_REQUESTED_DATABASE_LABELS": "patients"})


def test_no_databases() -> None:
    assert databases.requested({}) == databases.requested({"USER_REQUESTED_DATABASE_LABELS": ""}) == []
