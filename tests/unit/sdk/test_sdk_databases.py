from __future__ import annotations

import json
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

import pandas as pd
import pytest

from skerry.databases import Database, load
from skerry.errors import DataError

pytestmark = pytest.mark.unit


@pytest.fixture
def table(tmp_path) -> str:
    path = tmp_path / "table.csv"
    path.write_text("age,name\n20,a\n30,b\n,c\n40,d\n")
    return str(path)


@pytest.fixture
def book(tmp_path) -> str:
    path = tmp_path / "book.xlsx"
    with pd.ExcelWriter(path) as book:
        pd.DataFrame({"height": [150]}).to_excel(book, sheet_name="first", index=False)
        pd.DataFrame({"weight": [50, 60]}).to_excel(book, sheet_name="second", index=False)
    return str(path)


@pytest.fixture
def records(tmp_path) -> str:
    path = tmp_path / "re cords?.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE patients (age INTEGER)")
    connection.executemany("INSERT INTO patients VALUES (?)", [(40,), (60,)])
    connection.commit()
    connection.close()
    path.chmod(0o444)
    return str(path)


def steps(**parameters) -> str:
    return json.dumps([{"function": "filter_range", "parameters": parameters}])


def test_the_first_sheet_unless_the_task_names_one(book) -> None:
    assert list(load(Database("d", book, "excel"))["height"]) == [150]
    assert list(load(Database("d", book, "excel", sheet_name="second"))["weight"]) == [50, 60]
    with pytest.raises(DataError, match="third"):
        load(Database("d", book, "excel", sheet_name="third"))


@pytest.mark.parametrize("kind", ["sql", "sqlite"])
def test_a_query_of_a_file(records, kind) -> None:
    assert list(load(Database("d", records, kind, query="SELECT age FROM patients WHERE age > 50"))["age"]) == [60]


def test_a_file_is_not_written_to(records) -> None:
    with pytest.raises(DataError, match='query of the database "d"'):
        load(Database("d", records, "sql", query="DELETE FROM patients"))
    assert len(load(Database("d", records, "sql", query="SELECT * FROM patients"))) == 2


@pytest.mark.parametrize(
    ("details", "sentence"),
    [
        ({"query": ""}, "must give a query"),
        ({"query": "SELECT nothing FROM nowhere"}, "nowhere"),
        ({"query": "SELECT 1", "sheet_name": "x"}, "takes no sheet name"),
    ],
)
def test_a_query_that_can_not_be_carried_out(records, details, sentence) -> None:
    with pytest.raises(DataError, match=sentence):
        load(Database("d", records, "sqlite", **details))


def test_a_server_is_asked_by_its_address(records, tmp_path) -> None:
    address = f"sqlite:///{tmp_path}/other.sqlite"
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE t AS SELECT 'a%' AS text")
    other.commit()
    other.close()
    assert list(load(Database("d", address, "sql", query="SELECT * FROM t WHERE text LIKE 'a%'"))["text"]) == ["a%"]
    with pytest.raises(DataError, match="query of the database"):
        load(Database("d", address, "sql", query="SELECT * FROM nowhere"))


@pytest.mark.parametrize("address", ["nosuchdialect://x/y", "not an address"])
def test_an_address_that_is_none(address) -> None:
    with pytest.raises(DataError, match="address that this image can't use"):
        load(Database("d", address, "sql", query="SELECT 1"))


def test_steps_come_after_loading(table, records) -> None:
    both = steps(column="age", min_=20, max_=40, include_max=True)
    assert list(load(Database("d", table, "csv", preprocessing=both))["name"]) == ["b", "d"]
    low = steps(column="age", max_=50)
    assert list(load(Database("d", records, "sql", query="SELECT * FROM patients", preprocessing=low))["age"]) == [40]
    assert len(load(Database("d", table, "csv", preprocessing='[{"function": "dummy_preprocess"}]'))) == 4


@pytest.mark.parametrize(
    ("preprocessing", "sentence"),
    [
        ("{", "not JSON"),
        ('{"function": "filter_range"}', "list of steps"),
        ("[{}]", "list of steps"),
        ('[{"function": "__import__"}]', "no preprocessing function"),
        ('[{"function": ["filter_range"]}]', "no preprocessing function"),
        ('[{"function": "filter_range"}]', "can't be used so: missing a required argument: 'column'"),
        ('[{"function": "dummy_preprocess", "parameters": [1]}]', "can't be used so"),
        ('[{"function": "filter_range", "parameters": {"column": "name", "min_": 3}}]', "can't be used so"),
        ('[{"function": "filter_range", "parameters": {"column": "x", "min_": 3}}]', 'no column "x"'),
    ],
)
def test_steps_that_can_not_be_taken(table, preprocessing, sentence) -> None:
    with pytest.raises(DataError, match=sentence):
        load(Database("d", table, "csv", preprocessing=preprocessing))


@pytest.mark.parametrize("kind", ["folder", "omop", "other"])
def test_what_algorithms_read_themselves(tmp_path, kind) -> None:
    with pytest.raises(DataError, match="these can be loaded: csv"):
        load(Database("d", str(tmp_path), kind))


class Triples(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        good = asked["query"] == ["SELECT ?age {}"] and self.headers["Accept"] == "text/csv"
        self.send_response(200 if good else 400)
        self.end_headers()
        self.wfile.write(b"age\r\n40\r\n60\r\n")

    def log_message(self, *_: object) -> None:
        pass


def test_a_sparql_service() -> None:
    with HTTPServer(("127.0.0.1", 0), Triples) as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{service.server_port}/query"
            assert list(load(Database("d", address, "sparql", query="SELECT ?age {}"))["age"]) == [40, 60]
            with pytest.raises(DataError, match="400"):
                load(Database("d", address, "sparql", query="else"))
        finally:
            service.shutdown()
            thread.join()
