from __future__ import annotations

import pytest

from skerry import entrypoint, exceptions
from skerry.errors import AlgorithmError, DataError, InputError, PrivacyViolation

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", exceptions.__all__)
def test_the_words_of_each_reach_the_user(name) -> None:
    error = getattr(exceptions, name)
    assert issubclass(error, AlgorithmError)
    assert entrypoint.sentence(error("Too few rows.")) == "Too few rows."


@pytest.mark.parametrize(
    ("base", "name"),
    [
        (PrivacyViolation, "PrivacyThresholdViolation"),
        (DataError, "DataTypeError"),
        (InputError, "EnvironmentVariableNotFoundError"),
        (exceptions.ClientError, "SubtakCreationError"),
        (exceptions.AlgorithmRuntimeError, "ConvergenceError"),
        (exceptions.AlgorithmInitializationError, "MethodNotFoundError"),
    ],
)
def test_their_tree_is_vantage6s(base, name) -> None:
    assert issubclass(getattr(exceptions, name), base)
