"""Audit records as a chain: what one is, how each is bound to the one before it, and how a chain is verified. No I/O.

Each writer (a server's replica, a node) has a chain of its own. Whoever can write all of a chain can write it anew from
some record on, and nothing in the chain itself shows that; what does is a *witness*: a record in somebody else's chain
that says which head this one had. Servers and nodes witness each other's heads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from skerry.errors import BrokenChain
from skerry.wire import canonical

NO_RECORD = "0" * 64
"""What the first record of a chain names as the hash before it."""

WITNESS = "audit.witness"
"""The action of a record whose details are the head of another writer's chain."""

_DOMAIN = b"skerry audit v1\0"
_HASH_LENGTH = 64
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Who:
    """Who acts. ``id`` and ``organization`` are the server's; None where there is none."""

    kind: str
    id: int | None = None
    organization: int | None = None


@dataclass(frozen=True, slots=True)
class What:
    """What is acted on."""

    kind: str
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Deed:
    """What is to be recorded, before it has a place in a chain.

    ``about``: to which organization, collaboration, task, run it belongs (name → id). ``details``: plain JSON without
    secrets and without payloads; sizes and hashes are fine.
    """

    actor: Who
    action: str
    object: What
    about: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Head:
    """How far a chain has come: the number and hash of its last record; 0 and ``NO_RECORD`` before the first."""

    writer: str
    sequence: int = 0
    hash: str = NO_RECORD

    def as_dict(self) -> dict[str, Any]:
        return {"writer": self.writer, "sequence": self.sequence, "hash": self.hash}

    @classmethod
    def parse(cls, value: Any) -> Head:
        """Raises ValueError, naming the field."""
        fields = _object(value, "head", ("writer", "sequence", "hash"))
        return cls(_text(fields, "writer"), _number(fields, "sequence"), _hash(fields, "hash"))


@dataclass(frozen=True, slots=True)
class Record:
    """One link of a chain. ``time`` is UTC in ISO 8601; ``hash`` covers all the rest."""

    writer: str
    sequence: int
    previous: str
    time: str
    deed: Deed
    hash: str

    @property
    def head(self) -> Head:
        return Head(self.writer, self.sequence, self.hash)

    @property
    def holds(self) -> bool:
        """Whether the hash fits what the record says."""
        return self.hash == _digest(_unsealed(self.writer, self.sequence, self.previous, self.time, self.deed))

    def as_dict(self) -> dict[str, Any]:
        return {**_unsealed(self.writer, self.sequence, self.previous, self.time, self.deed), "hash": self.hash}

    def line(self) -> bytes:
        """As a line of an export."""
        return canonical(self.as_dict()) + b"\n"

    @classmethod
    def parse(cls, value: Any) -> Record:
        """Raises ValueError, naming the field, for what is not exactly a record; does not look at the hash."""
        names = ("writer", "sequence", "previous", "time", "actor", "action", "object", "about", "details", "hash")
        fields = _object(value, "record", names)
        actor = _object(fields["actor"], "actor", ("kind", "id", "organization"))
        thing = _object(fields["object"], "object", ("kind", "id"))
        about = {name: _number(fields["about"], name) for name in _mapping(fields, "about")}
        deed = Deed(
            Who(_text(actor, "kind"), _optional_number(actor, "id"), _optional_number(actor, "organization")),
            _text(fields, "action"),
            What(_text(thing, "kind"), _optional_number(thing, "id")),
            about,
            _mapping(fields, "details"),
        )
        sequence, previous = _number(fields, "sequence"), _hash(fields, "previous")
        return cls(_text(fields, "writer"), sequence, previous, _text(fields, "time"), deed, _hash(fields, "hash"))


def follow(head: Head, deed: Deed, time: str) -> Record:
    """The record that comes next in the chain with this head. Raises ValueError for details that are not JSON."""
    sequence = head.sequence + 1
    hashed = _digest(_unsealed(head.writer, sequence, head.hash, time, deed))
    return Record(head.writer, sequence, head.hash, time, deed, hashed)


def _unsealed(writer: str, sequence: int, previous: str, time: str, deed: Deed) -> dict[str, Any]:
    actor, thing = deed.actor, deed.object
    return {
        "writer": writer,
        "sequence": sequence,
        "previous": previous,
        "time": time,
        "actor": {"kind": actor.kind, "id": actor.id, "organization": actor.organization},
        "action": deed.action,
        "object": {"kind": thing.kind, "id": thing.id},
        "about": dict(deed.about),
        "details": dict(deed.details),
    }


def _digest(unsealed: Mapping[str, Any]) -> str:
    return hashlib.sha256(_DOMAIN + canonical(unsealed)).hexdigest()


# --- verifying ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Witness:
    """That a record in one chain says which head another chain had."""

    by: Head
    time: str
    head: Head


@dataclass(slots=True)
class _Chain:
    """What was read of one writer's chain: a hash for each record, the first one's first."""

    hashes: list[bytes] = field(default_factory=list)
    said: Head | None = None

    def head(self, writer: str) -> Head:
        return Head(writer, len(self.hashes), self.hashes[-1].hex()) if self.hashes else Head(writer)


class Verifier:
    """Takes the lines of exports, of any number of writers, each writer's in their order; then ``finish``.

    Of chains that go on meanwhile one may be read before what others witnessed of it: while ``behind``, they are read
    once more. Every method raises BrokenChain at the first record that does not hold.
    """

    def __init__(self) -> None:
        self._chains: dict[str, _Chain] = {}
        self._witnesses: list[Witness] = []
        self.records = 0

    def feed(self, line: bytes | str, where: str = "", *, again: bool = False) -> None:
        """One line: a record, or ``{"head": …}``. ``where`` is for the error's text.

        ``again``: of a chain that was read before: what is read once more has to be the same, and it may have gone on.
        """
        at = f"{where}: " if where else ""
        try:
            value = _read(line)
            if isinstance(value, dict) and set(value) == {"head"}:
                head = Head.parse(value["head"])
                self._note_end(head, again=again)
                return
            record = Record.parse(value)
        except (ValueError, RecursionError) as error:
            raise BrokenChain(f"{at}This is not an audit record: {error}.") from error
        try:
            if again and record.sequence <= len(self._chain(record.writer).hashes):
                self._compare(record)
            else:
                self._take(record, notes_witness=not again)
        except ValueError as error:
            raise BrokenChain(f"{at}Record {record.sequence} of {record.writer} {error}.") from error

    def finish(self) -> list[Head]:
        """The heads of all chains. Checks the ends: against the heads that were said, and against all witnesses."""
        for chain in self._chains.values():
            if chain.said is not None:
                self._check_head(chain.said, "as its own writer noted")
        for witness in self._witnesses:
            by = f"as {witness.by.writer} witnessed at {witness.time} (its record {witness.by.sequence})"
            self._check_head(witness.head, by)
        return [chain.head(writer) for writer, chain in sorted(self._chains.items())]

    @property
    def witnesses(self) -> list[Witness]:
        """Those that could be compared with a chain that was read."""
        return [witness for witness in self._witnesses if witness.head.writer in self._chains]

    @property
    def behind(self) -> bool:
        """Whether more was witnessed of a chain than was read of it: it was cut, or has gone on since."""
        return any(w.head.sequence > len(self._chains[w.head.writer].hashes) for w in self.witnesses)

    @property
    def absent(self) -> list[str]:
        """The writers that others witnessed and of whose chains nothing was read."""
        return sorted({witness.head.writer for witness in self._witnesses} - set(self._chains))

    @property
    def guarded(self) -> set[str]:
        """The writers whose end was compared with a head that was said."""
        return {writer for writer, chain in self._chains.items() if chain.said is not None}

    def _chain(self, writer: str) -> _Chain:
        return self._chains.setdefault(writer, _Chain())

    def _note_end(self, head: Head, *, again: bool) -> None:
        """A chain goes on, it does not go back: what was noted first holds where the second is not behind it."""
        chain = self._chain(head.writer)
        if not again or chain.said is None or head.sequence > chain.said.sequence:
            chain.said = head

    def _compare(self, record: Record) -> None:
        if not record.holds or record.hash != self._chain(record.writer).hashes[record.sequence - 1].hex():
            raise ValueError("was changed while it was read")

    def _take(self, record: Record, *, notes_witness: bool) -> None:
        chain = self._chain(record.writer)
        last = chain.head(record.writer)
        if record.sequence <= last.sequence:
            raise ValueError(f"comes after record {last.sequence}: it was moved or repeated")
        if record.sequence > last.sequence + 1:
            missing = _span(last.sequence + 1, record.sequence - 1)
            raise ValueError(f"comes after record {last.sequence}: {missing} removed or moved")
        if not record.holds:
            raise ValueError("was changed: its hash does not fit what it says")
        if record.previous != last.hash:
            raise ValueError(f"does not follow record {last.sequence}: one of the two was replaced")
        chain.hashes.append(bytes.fromhex(record.hash))
        self.records += 1
        if record.deed.action == WITNESS and notes_witness:
            self._witnesses.append(Witness(record.head, record.time, Head.parse(record.deed.details)))

    def _check_head(self, head: Head, by: str) -> None:
        """That the chain has come as far as that, and by that way; it may have gone on since."""
        chain = self._chains.get(head.writer)
        if chain is None or head.sequence == 0:
            return
        if len(chain.hashes) < head.sequence:
            missing = _span(len(chain.hashes) + 1, head.sequence)
            raise BrokenChain(f"The chain of {head.writer} was cut at its end: {missing} missing, {by}.")
        if chain.hashes[head.sequence - 1].hex() != head.hash:
            raise BrokenChain(
                f"Record {head.sequence} of {head.writer} is not the one that was there, {by}: the chain was written "
                "anew, up to that record or from an earlier one on."
            )


def _span(first: int, last: int) -> str:
    return f"record {first} is" if first == last else f"records {first} to {last} are"


# --- parsing -----------------------------------------------------------------------------------------------


def _read(line: bytes | str) -> Any:
    """The value of a line that is written in the one way in which records are, so that no byte of it is free."""
    text = line.encode() if isinstance(line, str) else line
    value = json.loads(text)
    if canonical(value) != text.removesuffix(b"\n"):
        raise ValueError("it is not written as a record is")
    return value


def _object(value: Any, what: str, names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(names):
        raise ValueError(f'"{what}" must have exactly the fields {", ".join(names)}')
    return value


def _mapping(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    if not isinstance(fields[name], dict):
        raise ValueError(f'"{name}" must be an object')
    return dict(fields[name])


def _text(fields: Mapping[str, Any], name: str) -> str:
    if not isinstance(fields[name], str) or not fields[name]:
        raise ValueError(f'"{name}" must be a text')
    return str(fields[name])


def _number(fields: Mapping[str, Any], name: str) -> int:
    if type(fields[name]) is not int or fields[name] < 0:
        raise ValueError(f'"{name}" must be a whole number')
    return int(fields[name])


def _optional_number(fields: Mapping[str, Any], name: str) -> int | None:
    return None if fields[name] is None else _number(fields, name)


def _hash(fields: Mapping[str, Any], name: str) -> str:
    text = _text(fields, name)
    if len(text) != _HASH_LENGTH or not set(text) <= _HEX:
        raise ValueError(f'"{name}" must be a hash of {_HASH_LENGTH} hexadecimal digits')
    return text


def lines_of(records: Iterable[Record], heads: Iterable[Head]) -> Iterator[bytes]:
    """An export: the records, then what their writers noted as the ends of their chains."""
    for record in records:
        yield record.line()
    for head in heads:
        yield canonical({"head": head.as_dict()}) + b"\n"
