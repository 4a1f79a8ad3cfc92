"""The kinds of fields that the doors' request schemas are made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from skerry.wire import canonical

LARGEST_ID = 2**31 - 1
NO_NUL = "A NUL character is not allowed."
_DEEPEST = 32


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError(NO_NUL)
    return text


def _not_numeric(name: str) -> str:
    """A name that looks like an id is taken for one sooner or later."""
    if name.strip().isnumeric() or not name.strip():
        raise ValueError("A name must not be empty or a number.")
    return name


def _bounded(value: dict[str, Any]) -> dict[str, Any]:
    """JSON that can be written again, and not nested without end."""
    try:
        text = canonical(value)
    except (ValueError, RecursionError) as error:
        raise ValueError("It must be plain JSON, without NaN.") from error
    if _depth(text) > _DEEPEST:
        raise ValueError(f"It must not be nested deeper than {_DEEPEST} levels.")
    return value


def _depth(text: bytes) -> int:
    deepest = depth = 0
    for byte in text:
        depth += (byte in b"[{") - (byte in b"]}")
        deepest = max(deepest, depth)
    return deepest


def _flag(value: Any) -> Any:
    """Clients send ``True``, ``False``, ``1`` and ``0`` as text; they mean it."""
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    return words.get(value.lower(), value) if isinstance(value, str) else value


def _split(value: Any) -> Any:
    """``include=`` comes repeated, or with commas."""
    return [part for one in value for part in one.split(",")] if isinstance(value, list) else value


Id = Annotated[int, Field(gt=0, le=LARGEST_ID)]
Text = Annotated[str, AfterValidator(_no_nul)]
Short = Annotated[str, Field(max_length=128), AfterValidator(_no_nul)]
Name = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_no_nul), AfterValidator(_not_numeric)]
Username = Annotated[str, Field(min_length=3, max_length=128, pattern=r"^[a-zA-Z][a-zA-Z0-9._-]+$")]
Email = Annotated[str, Field(max_length=128, pattern=r"^[^@\s\x00]+@[^@\s\x00]+$")]
Json = Annotated[dict[str, Any], AfterValidator(_bounded)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Words = Annotated[list[str], BeforeValidator(_split)]


class Body(BaseModel):
    """A request's JSON: exact types, no unknown field; a null counts as absent, as clients mean it."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        return {key: part for key, part in value.items() if part is not None} if isinstance(value, dict) else value


class Query(BaseModel):
    """Arguments of an address: text that is read as what it should be."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class Dependents(Query):
    """Whether what hangs on a thing is deleted with it."""

    delete_dependents: Flag = False


class Member(Body):
    """What joins or leaves."""

    id: Id
