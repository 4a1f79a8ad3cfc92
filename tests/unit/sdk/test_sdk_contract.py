from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry import contract

pytestmark = pytest.mark.unit


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_value_comes_back_as_it_went(value) -> None:
    assert contract.decode(contract.encode(value)) == value


def test_the_encoding_is_vantage6s() -> None:
    assert contract.encode("/mnt/tmp") == "F5WW45BPORWXA!!!"
    assert contract.encode("") == ""


@pytest.mark.parametrize("value", ["no base32", "F5WW45BPORWXA", "f5ww45bporwxa!!!", "é", "74!!!!!!"])
def test_what_was_not_encoded_is_no_value(value) -> None:
    with pytest.raises(ValueError, match="not a value"):
        contract.decode(value)


def test_an_environment_is_decoded_except_what_belongs_to_the_image() -> None:
    plain = {
        "PATH": "/usr/bin",
        "PKG_NAME": "ABCDEFGH",
        "PYTHONPATH": "GEYA!!!!",
        "LANG": "C.UTF-8",
        "IMAGE_SETS": "1.2",
        "IMAGE_SETS_BINARY": contract.encode("\x00\x01\x02\x03\x04"),
        "EMPTY": "",
    }
    encoded = {"OUTPUT_FILE": "/mnt/data/task-000000007/output", "MINIMUM_ROWS": "10", "A_QUERY": "select 1\nfrom é"}
    given_ = plain | {name: contract.encode(value) for name, value in encoded.items()}
    assert contract.decode_environment(given_) == plain | encoded


def test_names_and_paths() -> None:
    assert contract.run_folder(7) == "/mnt/data/task-000000007"
    assert contract.database_variable("my_data", "DATABASE_URI") == "MY_DATA_DATABASE_URI"


def test_claims_are_read(make_token) -> None:
    assert contract.read_claims(make_token({"task_id": 1}))["sub"] == {"task_id": 1}


def test_claims_are_a_dict() -> None:
    assert contract.read_claims("a.e30.c") == {}


@pytest.mark.parametrize("text", ["", "x", "a.b", "a.!!!.c", "a.W10.c", "a.MQ.c", "a." + "W1tb" * 9 + ".c"])
def test_what_is_no_token(text) -> None:
    with pytest.raises(ValueError, match="not a token"):
        contract.read_claims(text)
