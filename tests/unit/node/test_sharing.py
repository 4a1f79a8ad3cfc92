from __future__ import annotations

import openpyxl
import pyarrow as pa
import pytest
from pyarrow import parquet

from skerry_node.config import Config, Database, Share
from skerry_node.policies import Policies
from skerry_node.sharing import MOST_ROWS, describe, read_columns

pytestmark = pytest.mark.unit


def share(config: Config, policies: dict | None = None, **what: bool) -> list[tuple[str, str]]:
    changes = {"share": Share(**what), "policies": Policies.model_validate(policies or {})}
    return describe(config.model_copy(update=changes))


def test_what_is_shared(config) -> None:
    rules = ["team/mean", {"algorithm": "team/mean", "functions": ["secret"]}, "team/.*"]
    policies = {"allowed_algorithms": rules, "allowed_users": [7, 8], "allowed_organizations": [1]}
    assert share(config, policies) == [
        ("encryption", "false"),
        ("allowed_algorithms", "team/mean"),
        ("allowed_algorithms", "team/.*"),
        ("allowed_users", "7"),
        ("allowed_users", "8"),
        ("allowed_orgs", "1"),
        ("database_labels", "default"),
        ("db_type_default", "csv"),
    ]


def test_nothing_is_shared_where_the_owner_says_so(config) -> None:
    assert share(config, configuration=False, columns=True) == []


def test_columns_only_where_the_owner_says_so(config) -> None:
    assert ("columns_default", "a") not in share(config)
    assert ("columns_default", "a") in share(config, columns=True)


def database(path, kind: str) -> Database:
    return Database.model_validate({"label": "x", "uri": str(path), "type": kind})


def test_the_heads_of_files(tmp_path) -> None:
    (tmp_path / "t.csv").write_bytes(b'\xef\xbb\xbfage,"a, b"\n1,2\n')
    parquet.write_table(pa.table({"age": [1], "height": [2]}), tmp_path / "t.parquet")
    book = openpyxl.Workbook()
    book.worksheets[0].append(["age", "weight"])
    book.worksheets[0].append([1, 2])
    book.save(tmp_path / "t.xlsx")
    assert read_columns(database(tmp_path / "t.csv", "csv")) == ["age", "a, b"]
    assert read_columns(database(tmp_path / "t.parquet", "parquet")) == ["age", "height"]
    assert read_columns(database(tmp_path / "t.xlsx", "excel")) == ["age", "weight"]
    assert read_columns(database(tmp_path / "t.csv", "other")) == []


@pytest.mark.parametrize("kind", ["csv", "parquet", "excel"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"patient 7 has secrets"])
def test_what_is_no_such_file_has_no_columns_and_no_content_in_the_log(tmp_path, kind, content, caplog) -> None:
    (tmp_path / "t").write_bytes(content)
    columns = read_columns(database(tmp_path / "t", kind))
    assert columns == ([content.decode()] if kind == "csv" and content.isascii() and content else [])
    assert "secrets" not in caplog.text


def test_too_many_columns_are_not_cut_but_left_out(config, caplog) -> None:
    config.databases[0].uri.write_text(",".join(f"c{i}" for i in range(MOST_ROWS)))
    assert not any(key.startswith("columns") for key, _ in share(config, columns=True))
    assert "too many" in caplog.text
