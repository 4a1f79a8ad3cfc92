"""What algorithm authors find beside the decorators: variables, OMOP connections, vantage6's client for tests."""

from __future__ import annotations

import sys
import types

import pandas as pd
import pytest

from skerry import check_envvar_value_positive, data, database_connection, functions, get_env_var, partial
from skerry.databases import Database
from skerry.entrypoint import Container
from skerry.errors import AlgorithmError, ConfigurationError, DataError
from skerry.exceptions import EnvironmentVariableError, EnvironmentVariableNotFoundError
from skerry.mock_client import MockAlgorithmClient
from skerry.testing import Federation
from skerry.wire import Input

pytestmark = pytest.mark.unit


# --- variables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "as_type", "expected"),
    [
        ("5", "str", "5"),
        ("5", "int", 5),
        (" -3 ", "int", -3),
        *((word, "bool", True) for word in ("true", "1", "yes", "t", "True")),
        *((word, "bool", False) for word in ("false", "0", "no", "f")),
    ],
)
def test_a_variable_of_a_type(monkeypatch, value, as_type, expected) -> None:
    monkeypatch.setenv("MINIMUM_ROWS", value)
    assert get_env_var("MINIMUM_ROWS", as_type=as_type) == expected


def test_defaults() -> None:
    assert get_env_var("NOT_SET") is None
    assert get_env_var("NOT_SET", "x") == "x"
    assert get_env_var("NOT_SET", 10, as_type="int") == 10
    assert get_env_var("NOT_SET", "5", "int") == 5
    assert get_env_var("NOT_SET", default=False, as_type="bool") is False
    for as_type in ("int", "bool"):
        with pytest.raises(EnvironmentVariableNotFoundError, match="NOT_SET is not set"):
            get_env_var("NOT_SET", as_type=as_type)


@pytest.mark.parametrize(
    ("as_type", "words"),
    [("int", "must be a whole number"), ("bool", "must be true or false"), ("float", '"str", "int" or "bool"')],
)
def test_a_value_that_is_none_of_the_type(monkeypatch, as_type, words) -> None:
    monkeypatch.setenv("MINIMUM_ROWS", "many")
    with pytest.raises(EnvironmentVariableError, match=words) as caught:
        get_env_var("MINIMUM_ROWS", as_type=as_type)
    assert "MINIMUM_ROWS" in str(caught.value)


def test_a_number_below_zero() -> None:
    check_envvar_value_positive("ROWS", 0)
    with pytest.raises(EnvironmentVariableError, match="ROWS is -1"):
        check_envvar_value_positive("ROWS", -1)


# --- connections -----------------------------------------------------------------------------------------

PARAMETERS = {
    "DBMS": "postgresql",
    "USER": "reader",
    "PASSWORD": "secret",
    "CDM_DATABASE": "omop",
    "CDM_SCHEMA": "cdm",
    "RESULTS_SCHEMA": "results",
}


@pytest.fixture
def place() -> Container:
    parameters = {f"OMOP_DB_PARAM_{name}": value for name, value in PARAMETERS.items()}
    uri = {"OMOP_DATABASE_URI": "jdbc:postgresql://127.0.0.1/omop", "OMOP_DATABASE_TYPE": "omop"}
    return Container({**parameters, **uri, "USER_REQUESTED_DATABASE_LABELS": "omop", "TEMPORARY_FOLDER": "/mnt/tmp"})


@pytest.fixture
def connector(monkeypatch) -> None:
    """Stands for the OHDSI package, which needs R."""
    package = types.ModuleType("ohdsi.database_connector")
    package.connect = lambda **given: given
    monkeypatch.setitem(sys.modules, "ohdsi", types.ModuleType("ohdsi"))
    monkeypatch.setitem(sys.modules, "ohdsi.database_connector", package)


def call(function, place, *args):
    return functions.call(function, Input("f", list(args)), place)


def test_a_connection_with_its_metadata(place, connector) -> None:
    @partial
    @database_connection(types=["OMOP"])
    def f(connection, described, word):
        return connection, described, word

    connection, described, word = call(f, place, "x")
    uri = "jdbc:postgresql://127.0.0.1/omop"
    assert connection == {"dbms": "postgresql", "user": "reader", "password": "secret", "connection_string": uri}
    assert (described.database, described.cdm_schema, described.results_schema) == ("omop", "cdm", "results")
    assert str(described.incremental_folder) == "/mnt/tmp/incremental"
    assert word == "x"


def test_a_connection_alone(place, connector) -> None:
    @database_connection(["omop"], include_metadata=False)
    def f(connection):
        return connection["dbms"]

    assert call(f, place) == "postgresql"


def test_an_image_without_the_package(place) -> None:
    @database_connection(["OMOP"])
    def f(connection, described):
        raise AssertionError

    with pytest.raises(ConfigurationError, match=r"lacks the package ohdsi\.database_connector"):
        call(f, place)


def test_a_parameter_that_is_not_set(place, connector) -> None:
    @database_connection(["OMOP"])
    def f(connection, described):
        raise AssertionError

    del place._environment["OMOP_DB_PARAM_CDM_SCHEMA"]
    with pytest.raises(DataError, match='"omop" lacks its parameter CDM_SCHEMA'):
        call(f, place)


@pytest.mark.parametrize("types_", [[], "OMOP", ["FHIR"]])
def test_only_omop(types_) -> None:
    with pytest.raises(TypeError, match='each "OMOP"'):
        database_connection(types_)


def test_no_connection_in_memory() -> None:
    algorithm = types.ModuleType("algorithm")
    algorithm.f = database_connection(["OMOP"])(lambda connection, described: 1)
    with pytest.raises(AlgorithmError, match="no 1 database connection"):
        Federation(algorithm, [pd.DataFrame()]).run("f")


# --- vantage6's client for tests --------------------------------------------------------------------------


@pytest.fixture
def algorithm(monkeypatch) -> str:
    @data(1)
    def size(frame):
        return len(frame)

    @data(2)
    def sizes(first, second):
        return [len(first), len(second)]

    module = types.ModuleType("some_algorithm")
    module.size, module.sizes = size, sizes
    monkeypatch.setitem(sys.modules, "some_algorithm", module)
    return "some_algorithm"


def test_a_script_for_the_mock_client(algorithm, tmp_path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("age\n1\n2\n3\n")
    steps = [{"function": "filter_range", "parameters": {"column": "age", "min_": 1}}]
    client = MockAlgorithmClient(
        datasets=[
            [{"database": pd.DataFrame({"age": [1, 2]}), "preprocessing": steps}, {"database": file}],
            [{"database": str(file), "db_type": "csv", "preprocessing": steps}, {"database": pd.DataFrame()}],
        ],
        module=algorithm,
        collaboration_id=9,
        organization_ids=[7, 8],
        node_ids=[70, 80],
    )
    assert (client.organization_id, client.collaboration_id, client.node_id) == (7, 9, 70)
    organizations = [one["id"] for one in client.organization.list()]
    assert organizations == [7, 8]
    task = client.task.create(input_={"method": "size"}, organizations=organizations)
    assert client.wait_for_results(task["id"]) == client.result.from_task(task["id"]) == [1, 2]
    assert client.task.get(task["id"])["status"] == "completed"
    assert [run["organization"]["id"] for run in client.run.from_task(task["id"])] == organizations
    both = client.task.create({"method": "sizes"}, [8])
    assert client.result.from_task(both["id"]) == [[2, 0]]
    assert client.collaboration.get()["id"] == 9


def test_organizations_are_numbered_from_zero(algorithm) -> None:
    client = MockAlgorithmClient([[{"database": pd.DataFrame()}]] * 2, algorithm)
    assert [one["id"] for one in client.organization.list()] == [0, 1]
    assert client.organization_id == 0


@pytest.mark.parametrize(
    ("dataset", "ids", "words"),
    [
        ({"database": "a.csv", "type": "csv"}, None, 'no "type"; it may have: database, db_type'),
        ({"db_type": "csv"}, None, 'needs its "database"'),
        ({"database": pd.DataFrame()}, [1, 2], "as many ids of organizations"),
    ],
)
def test_datasets_that_do_not_fit(algorithm, dataset, ids, words) -> None:
    with pytest.raises(ConfigurationError, match=words):
        MockAlgorithmClient([[dataset]], algorithm, organization_ids=ids)


def test_a_database_in_memory_may_need_a_query(algorithm, tmp_path) -> None:
    database = Database("default", str(tmp_path / "none.sqlite"), "sqlite")
    with pytest.raises(AlgorithmError, match="the task must give a query"):
        Federation(sys.modules[algorithm], [database]).run("size")
