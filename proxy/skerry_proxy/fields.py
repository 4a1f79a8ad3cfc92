"""Reading a JSON object field by field, believing nothing."""

from __future__ import annotations

import json
from typing import Any

_LARGEST_ID = 2**63 - 1


def parse_object(raw: bytes | str, what: str) -> Fields:
    """The fields of a JSON object; raises ValueError with a sentence that names ``what``."""
    try:
        return Fields(json.loads(raw), what)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not a JSON object.") from error


class Fields:
    """The fields of one object. Every method raises ValueError, naming the field, when it is missing or wrong."""

    def __init__(self, value: Any, what: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{what} is not a JSON object.")
        self._value = value
        self._what = what

    def any(self, name: str) -> Any:
        if name not in self._value:
            raise ValueError(f'{self._what} lacks the field "{name}".')
        return self._value[name]

    def identifier(self, name: str) -> int:
        """A positive integer that a database can hold."""
        value = self.any(name)
        if type(value) is not int or not 0 < value <= _LARGEST_ID:
            raise self._wrong(name, "a positive integer")
        return value

    def count(self, name: str) -> int:
        """A number of things, which may be none."""
        value = self.any(name)
        if type(value) is not int or not 0 <= value <= _LARGEST_ID:
            raise self._wrong(name, "a number of at least 0")
        return value

    def optional_identifier(self, name: str) -> int | None:
        return None if self._value.get(name) is None else self.identifier(name)

    def text(self, name: str, longest: int = 4096) -> str:
        value = self.any(name)
        if not isinstance(value, str) or len(value) > longest:
            raise self._wrong(name, f"a text of at most {longest} characters")
        return value

    def optional_text(self, name: str, longest: int = 4096) -> str | None:
        return None if self._value.get(name) is None else self.text(name, longest)

    def boolean(self, name: str) -> bool:
        value = self.any(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def objects(self, name: str) -> list[dict[str, Any]]:
        """A list of objects; null and a missing field are an empty one."""
        value = self._value.get(name)
        value = [] if value is None else value
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self._wrong(name, "a list of objects")
        return value

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.any(name)
        if value not in choices:
            raise self._wrong(name, "one of " + ", ".join(choices))
        return str(value)

    def nested(self, name: str) -> Fields:
        return Fields(self.any(name), f'The field "{name}" of {self._what[0].lower()}{self._what[1:]}')

    def refuse_others(self, known: frozenset[str]) -> None:
        unknown = sorted(set(self._value) - known)
        if unknown:
            raise ValueError(f'{self._what} has an unknown field "{unknown[0]}".')

    def _wrong(self, name: str, wanted: str) -> ValueError:
        return ValueError(f'{self._what}: the field "{name}" must be {wanted}.')
