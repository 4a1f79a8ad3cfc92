"""Every error that skerry raises on purpose; the text says what is wrong and what to do next."""

from __future__ import annotations


class SkerryError(Exception):
    """Base of all: its text is one or more whole sentences that a user may read."""


class ConfigurationError(SkerryError):
    """A configuration file or an option is wrong; names the key and the remedy."""


class MissingExtra(SkerryError):
    """A part of skerry that this command needs is not installed."""

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(f'{what} needs skerry\'s "{extra}" extra: pip install "skerry[{extra}]"')
        self.extra = extra


# --- the server, as its callers see it -----------------------------------------------------------------


class ServerError(SkerryError):
    """The server answered with an error status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class InvalidInput(ServerError):
    """400 or 422: a field is missing or wrong."""


class AuthenticationError(ServerError):
    """401: not logged in, or not allowed; the vantage6 dialect makes no difference."""


class NotFound(ServerError):
    """404."""


class Conflict(ServerError):
    """409: the state moved on; for a node: the attempt is fenced."""


class ServerUnreachable(SkerryError):
    """No answer: the address is wrong, the server is down, or the way to it is cut."""


# --- keys and envelopes ----------------------------------------------------------------------------------


class CryptoError(SkerryError):
    """Base of what can go wrong with keys, envelopes and signatures."""


class KeyFileError(CryptoError):
    """A key file is missing, readable by others, or not what it should be."""


class DecryptionError(CryptoError):
    """The payload was altered, or it is for someone else. Says no more on purpose."""


class SignatureError(CryptoError):
    """The signature, the certificate or the chain of an envelope does not hold."""


class ContextError(CryptoError):
    """The envelope is genuine and meant for something else; names the field that differs."""


class MissingKey(CryptoError):
    """An organization has not registered the key that is needed."""


class KeyChanged(CryptoError):
    """The server shows other keys for an organization than the pinned ones."""


class KeyNotConfirmed(CryptoError):
    """Keys are new and the owner wants to confirm each organization's keys first."""


# --- audit -----------------------------------------------------------------------------------------------


class NotRecorded(SkerryError):
    """An audit record can't be written, so what it would have recorded is not done."""


class BrokenChain(SkerryError):
    """An audit chain does not hold; names the first record that is at fault."""


# --- tasks -----------------------------------------------------------------------------------------------


class WaitInterrupted(KeyboardInterrupt):
    """Ctrl-C during a wait; the text says that the task goes on, and how to end it."""


class TaskFailed(SkerryError):
    """A task ended without all its results; ``runs`` says which run ended how, with its log."""

    def __init__(self, message: str, runs: list[dict[str, object]]) -> None:
        super().__init__(message)
        self.runs = runs


class WaitTimeout(SkerryError):
    """The time that the caller gave was up before the task ended; the task goes on."""


# --- inside an algorithm ----------------------------------------------------------------------------------


class AlgorithmError(SkerryError):
    """Raise it, or a subclass, in an algorithm: its message reaches the user who asked."""


class DataError(AlgorithmError):
    """A database can't be read or lacks what the algorithm needs."""


class PrivacyViolation(AlgorithmError):
    """The answer would say too much about too few."""


class InputError(AlgorithmError):
    """An argument of the function is missing or wrong."""


class MethodNotFound(AlgorithmError):
    """The image has no such function."""


class ChildTaskFailed(AlgorithmError):
    """A child task ended without all its results."""
