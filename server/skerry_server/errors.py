"""What the services refuse, without a word of HTTP: each door maps these classes to its dialect once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from skerry.errors import SkerryError


class Refused(SkerryError):
    """Base of all that a service refuses; nothing of the request has been done."""


class InvalidRequest(Refused):
    """A field is missing or wrong; ``fields`` says which and why, where there is more than the sentence."""

    def __init__(self, message: str, fields: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__(message)
        self.fields = {name: list(reasons) for name, reasons in (fields or {}).items()}


class TooLarge(Refused):
    """A body exceeds what this server takes."""


class Busy(Refused):
    """What is asked for can't be done just now; the same call may be made again."""


class NotOffered(Refused):
    """This server does not do that, or is not configured for it."""


class LoginFailed(Refused):
    """Name and password, or the API key, do not fit. Says no more on purpose."""


class UnknownKey(LoginFailed):
    """No node has this API key."""


class LetterTokenRefused(InvalidRequest):
    """A token that is to have come by mail is none, was used, or is too old."""

    def __init__(self) -> None:
        super().__init__("Invalid recovery token!")


class TooManyFailures(Refused):
    """From this address credentials were guessed at too often; the right ones aren't taken either for a while."""

    def __init__(self) -> None:
        super().__init__("Too many failed attempts from your address: try again in a quarter of an hour.")


class PermissionDenied(Refused):
    """The caller is known and may not do this."""

    def __init__(self, message: str = "You lack the permission to do that!") -> None:
        super().__init__(message)


class StoreNotLinked(Refused):
    """The algorithm store is not one of the task's collaboration."""


class RunOver(Refused):
    """The run that calls has ended, and its task needs nothing more of it."""


class NotKnown(Refused):
    """There is no such thing, or the caller may not know of it."""

    def __init__(self, what: str, id_: int | UUID) -> None:
        super().__init__(f"There is no {what} with id {id_}.")


class Removed(Refused):
    """It was there, and was kept for as long as the server's configuration says."""

    def __init__(self, run_id: int) -> None:
        super().__init__(f"The input, result and log of run {run_id} were removed: this server keeps them for a while.")


class Damaged(Refused):
    """The bytes of a payload are not in their store, or not as many as were written there."""

    def __init__(self) -> None:
        super().__init__(
            "The server's copy of this payload is damaged or lost: run the task again, or let the server's "
            "administrator restore it from a back-up."
        )


class Conflicting(Refused):
    """The state moved on, or someone else was first."""


class StaleAttempt(Conflicting):
    """This attempt is not the run's current one, or the step is not allowed from the run's state."""
