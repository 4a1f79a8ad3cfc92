"""vantage6's names for what an algorithm may raise, so that its imports need only another first line.

All are AlgorithmErrors: the message of any of them reaches the user who asked. Those without a use of our own are
here only; new code raises those of ``skerry.errors``.
"""

from __future__ import annotations

from skerry.errors import AlgorithmError, DataError, InputError, MethodNotFound, PrivacyViolation

__all__ = [
    "AlgorithmError",
    "AlgorithmExecutionError",
    "AlgorithmInitializationError",
    "AlgorithmModuleNotFoundError",
    "AlgorithmRuntimeError",
    "ClientError",
    "CollectOrganizationError",
    "CollectResultsError",
    "ConvergenceError",
    "DataError",
    "DataReadError",
    "DataTypeError",
    "DeserializationError",
    "EnvironmentVariableError",
    "EnvironmentVariableNotFoundError",
    "InputError",
    "MaxIterationsReached",
    "MethodNotFoundError",
    "NodePermissionException",
    "PrivacyThresholdViolation",
    "PrivacyViolation",
    "SubtakCreationError",
    "UserInputError",
]


class PrivacyThresholdViolation(PrivacyViolation):
    """There are too few rows, or too few of a kind."""


class DataReadError(DataError):
    """A database can't be read."""


class DataTypeError(DataError):
    """A column is not of the type that is needed."""


class AlgorithmRuntimeError(AlgorithmError):
    """Base of what goes wrong while computing."""


class AlgorithmExecutionError(AlgorithmRuntimeError):
    """The computation failed."""


class MaxIterationsReached(AlgorithmRuntimeError):
    """It did not end within the rounds that were allowed."""


class ConvergenceError(AlgorithmRuntimeError):
    """It moves away from an answer."""


class ClientError(AlgorithmError):
    """Base of what goes wrong with other organizations."""


class SubtakCreationError(ClientError):
    """A child task could not be made; misspelt as in vantage6."""


class CollectOrganizationError(ClientError):
    """The organizations could not be listed."""


class CollectResultsError(ClientError):
    """The results of a child task could not be had."""


class UserInputError(InputError):
    """The user gave an argument that can't be used."""


class DeserializationError(InputError):
    """The input is not JSON."""


class EnvironmentVariableError(InputError):
    """A variable of the container can't be used."""


class EnvironmentVariableNotFoundError(EnvironmentVariableError):
    """A variable of the container is not set."""


class AlgorithmInitializationError(AlgorithmError):
    """Base of what goes wrong before the function is called."""


class AlgorithmModuleNotFoundError(AlgorithmInitializationError):
    """The image's package can't be imported."""


class MethodNotFoundError(AlgorithmInitializationError, MethodNotFound):
    """The image has no such function."""


class NodePermissionException(AlgorithmError):
    """The node does not allow it, such as the use of a column."""
