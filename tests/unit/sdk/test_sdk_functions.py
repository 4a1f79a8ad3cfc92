"""Decorators, and which functions a task may call how."""

from __future__ import annotations

import json
import os
import types
from dataclasses import dataclass

import numpy as np
import pytest

from skerry import central, data, functions, partial
from skerry.decorators import algorithm_client, database, declaration, metadata
from skerry.entrypoint import take
from skerry.errors import AlgorithmError, DataError, InputError, MethodNotFound
from skerry.wire import Input

pytestmark = pytest.mark.unit


@dataclass
class Place:
    tables: tuple = ("A", "B", "C")

    def client(self):
        return "client"

    def frames(self, count):
        return take(self.tables, count)

    def databases(self, count):
        return [f"database {name}" for name in take(self.tables, count)]

    def metadata(self):
        return "metadata"


def call(function, *args, **kwargs):
    return functions.call(function, Input("f", list(args), kwargs), Place())


def test_what_is_injected_comes_in_the_order_of_the_decorators() -> None:
    @central
    @data(2)
    @metadata
    @database(1)
    def f(*args, **kwargs):
        return args, kwargs

    assert call(f, 1, x=2) == (("client", "A", "B", "metadata", "database A", 1), {"x": 2})
    assert declaration(f).role == "central"


def test_the_other_order() -> None:
    @data(1)
    @central
    def f(*args):
        return args

    assert call(f) == ("A", "client")


def test_a_marked_function_is_called_in_a_test_like_any_other() -> None:
    @partial
    @data(1)
    def f(frame, column):
        return frame[column]

    assert f({"age": 3}, "age") == 3
    assert f.__name__ == "f"
    assert declaration(f).role == "partial"


def test_vantage6s_name_for_central() -> None:
    assert call(algorithm_client(lambda client: client)) == "client"


@pytest.mark.parametrize("wrong", [lambda frame: frame, 0, "1"])
def test_data_without_a_number(wrong) -> None:
    with pytest.raises(TypeError, match=r"@data\(1\)"):
        data(wrong)


def test_too_few_databases() -> None:
    @data(4)
    def f(*frames):
        return frames

    with pytest.raises(DataError, match=r"needs 4 database.* names 3"):
        call(f)


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {"colour": "red"}, "column.*arguments are: column, digits; given: colour"),
        ((), {}, "column"),
        ((1, 2, 3), {}, "too many positional.* given: 3 without name"),
    ],
)
def test_wrong_arguments_are_told_before_data_is_loaded(args, kwargs, words) -> None:
    @data(4)
    @data(1)
    def f(a, b, c, d, e, column, digits=2):  # noqa: PLR0917
        raise AssertionError

    with pytest.raises(InputError, match=words):
        call(f, *args, **kwargs)


def module(name="algo", **content) -> types.ModuleType:
    made = types.ModuleType(name)
    for key, value in content.items():
        setattr(made, key, value)
    return made


def plain(name, of="algo"):
    def f():
        return name

    f.__module__ = of
    return f


def test_a_package_that_marks_functions_offers_those_only() -> None:
    marked = partial(plain("marked", of="algo.parts"))
    algo = module(marked=marked, helper=plain("helper"), _hidden=partial(plain("hidden")))
    assert set(functions.offered(algo)) == {"marked"}
    assert functions.find(algo, "marked")() == "marked"


def test_a_package_that_marks_none_offers_its_own_public_functions() -> None:
    algo = module(own=plain("own"), deep=plain("deep", of="algo.deep"), _private=plain("private"))
    algo.getcwd, algo.system, algo.Path, algo.imported = os.getcwd, os.system, type, plain("x", of="algorithms")
    assert set(functions.offered(algo)) == {"own", "deep"}
    algo.__all__ = ["deep", "system"]
    assert set(functions.offered(algo)) == {"deep"}


@pytest.mark.parametrize("name", ["system", "__import__", "os.system", "", "getcwd"])
def test_nothing_else_can_be_called(name) -> None:
    algo = module(own=plain("own"), system=os.system, getcwd=plain("getcwd", of="os"))
    with pytest.raises(MethodNotFound, match="it has: own"):
        functions.find(algo, name)


@pytest.mark.parametrize(
    ("algo", "name", "words"),
    [
        (module(mean=partial(plain("mean")), helper=plain("helper")), "helper", "put @partial or @central above it"),
        (module(mean=plain("mean"), _helper=plain("helper")), "_helper", "a name without an underscore"),
        (module(mean=plain("mean"), helper=plain("helper"), __all__=["mean"]), "helper", "name it in __all__"),
    ],
)
def test_an_own_function_that_is_not_offered_comes_with_the_remedy(algo, name, words) -> None:
    with pytest.raises(MethodNotFound) as caught:
        functions.find(algo, name)
    assert f'has a function "{name}" that' in str(caught.value)
    assert words in str(caught.value)
    assert str(caught.value).endswith("those that a task may call: mean.")


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True, "x"]}, [], 0, False, ""])
def test_a_result_is_json(value) -> None:
    assert json.loads(functions.dump(value, "f")) == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "returned nothing"),
        ({1, 2}, "result is of type set"),
        ({"a": [1, {"b": b"x"}]}, r"result\['a'\]\[1\]\['b'\] is of type bytes"),
        ({(1, 2): 3}, "key of type tuple"),
        ({"a": [1, float("nan")]}, r"result\['a'\]\[1\] is nan, for which JSON has no word; give None"),
        ({"a": float("-inf")}, r"result\['a'\] is -inf"),
        (np.float64("nan"), "result is nan"),
        ({float("nan"): 1}, "JSON"),
    ],
)
def test_what_is_no_result(value, words) -> None:
    with pytest.raises(AlgorithmError, match=words) as caught:
        functions.dump(value, "mean")
    assert '"mean"' in str(caught.value)


def test_a_result_that_holds_itself() -> None:
    value: list = []
    value.append(value)
    with pytest.raises(AlgorithmError, match="JSON"):
        functions.dump(value, "f")


def test_numbers_of_numpy_are_named() -> None:
    with pytest.raises(AlgorithmError, match=r"result\['n'\] is of type int64"):
        functions.dump({"n": np.int64(3)}, "f")
