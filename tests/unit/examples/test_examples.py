"""The examples on a federation in memory give what the pooled data give."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pandas as pd
import pytest

from skerry.errors import AlgorithmError
from skerry.testing import Federation

EXAMPLES = Path(__file__).parents[3] / "examples"
pytestmark = pytest.mark.unit


@pytest.fixture(scope="module", autouse=True)
def _importable():
    added = [str(EXAMPLES), str(EXAMPLES / "federated-mean"), str(EXAMPLES / "logistic-regression")]
    sys.path[:0] = added
    yield
    for path in added:
        sys.path.remove(path)


@pytest.fixture(scope="module")
def demo_data():
    return importlib.import_module("demo_data")


@pytest.fixture(scope="module")
def shares(demo_data, tmp_path_factory):
    return demo_data.split(tmp_path_factory.mktemp("shares"), 3)


def federation(algorithm: str, tables) -> Federation:
    return Federation(importlib.import_module(algorithm), tables)


def test_the_shares_are_all_rows_once(demo_data, shares) -> None:
    tables = [pd.read_csv(path) for path in shares]
    sizes = [len(table) for table in tables]
    assert sum(sizes) == 569
    assert len(set(sizes)) == 3
    assert not pd.concat(tables).duplicated().any()
    assert demo_data.LICENCE == "CC BY 4.0"


@pytest.mark.parametrize("nodes", [1, 2, 5])
def test_any_number_of_shares(demo_data, tmp_path, nodes) -> None:
    paths = demo_data.split(tmp_path, nodes)
    assert [path.name for path in paths] == [f"node-{i}.csv" for i in range(1, nodes + 1)]
    assert sum(len(pd.read_csv(path)) for path in paths) == 569


def test_mean(demo_data, shares) -> None:
    result = federation("federated_mean", shares).run("mean", column=demo_data.COLUMN)
    pooled = demo_data.pooled_mean()
    assert result["n"] == pooled["n"] == 569
    assert result["mean"] == pytest.approx(pooled["mean"], rel=1e-12)


def test_mean_of_some_organizations(shares) -> None:
    result = federation("federated_mean", shares).run("mean", column="mean area", organizations=[2, 3])
    some = pd.concat([pd.read_csv(path) for path in shares[1:]])
    assert result == {"mean": pytest.approx(some["mean area"].mean()), "n": len(some)}


def test_mean_leaves_missing_values_out() -> None:
    tables = [pd.DataFrame({"age": [1.0, 2.0, None, 3.0, 4.0, 5.0]}), pd.DataFrame({"age": range(10)})]
    assert federation("federated_mean", tables).run("mean", "age") == {"mean": 60 / 15, "n": 15}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (pd.DataFrame({"age": [1, 2, 3, 4]}), "fewer than 5"),
        (pd.DataFrame({"height": range(9)}), 'no column "age"; there are: height'),
        (pd.DataFrame({"age": list("abcdefg")}), "does not hold numbers"),
    ],
)
def test_mean_refuses(table, words) -> None:
    tables = [pd.DataFrame({"age": range(10)}), table]
    with pytest.raises(AlgorithmError, match=words) as caught:
        federation("federated_mean", tables).run("mean", column="age")
    assert "Organization 2" in str(caught.value)


def test_logistic_regression(demo_data, shares) -> None:
    result = federation("logistic_regression", shares).run(
        "fit", outcome=demo_data.OUTCOME, features=list(demo_data.FEATURES)
    )
    pooled = demo_data.pooled_logistic()
    assert result["coefficients"].keys() == pooled.keys()
    for name, value in pooled.items():
        assert result["coefficients"][name] == pytest.approx(value, rel=1e-9)
    assert result["n"] == 569
    assert result["rounds"] < 15
    assert all(error > 0 for error in result["standard_errors"].values())


def test_standard_errors_are_those_of_the_pooled_information() -> None:
    """One balanced binary feature: the variance of the log odds is the sum of the four counts' reciprocals."""
    rows = [(0, 0)] * 30 + [(0, 1)] * 10 + [(1, 0)] * 20 + [(1, 1)] * 40
    table = pd.DataFrame(rows, columns=["x", "y"])
    result = federation("logistic_regression", [table[::2], table[1::2]]).run("fit", outcome="y", features=["x"])
    assert result["standard_errors"]["x"] == pytest.approx((1 / 30 + 1 / 10 + 1 / 20 + 1 / 40) ** 0.5, rel=1e-6)
    assert result["standard_errors"]["(intercept)"] == pytest.approx((1 / 30 + 1 / 10) ** 0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.rename(columns={"x": "z"}), "no column x"),
        (lambda table: table.assign(y=table["y"] + 1), "must be 0 or 1"),
        (lambda table: table.head(9), "fewer than 10"),
        (lambda table: table.assign(y=(table["x"] > 10).astype(int)), "separate the outcomes|linearly"),
        (lambda table: table.assign(x=1.0), "linearly"),
    ],
)
def test_logistic_regression_refuses(change, words) -> None:
    table = pd.DataFrame({"x": [float(i) for i in range(20)], "y": [0, 1, 0, 0, 1] * 4})
    with pytest.raises(AlgorithmError, match=words):
        federation("logistic_regression", [change(table)]).run("fit", outcome="y", features=["x"])
