"""The chain: whatever is done to it, verifying names the first record at fault."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.audit import WITNESS, Deed, Head, Record, Verifier, What, Who, follow, lines_of
from skerry.cli.main import main
from skerry.errors import BrokenChain
from skerry.wire import canonical

pytestmark = pytest.mark.unit
LENGTH = 6
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
DEEDS = st.builds(
    Deed,
    st.builds(Who, st.text(min_size=1), st.none() | st.integers(0, 2**40), st.none() | st.integers(0, 2**40)),
    st.text(min_size=1),
    st.builds(What, st.text(min_size=1), st.none() | st.integers(0, 2**40)),
    st.dictionaries(st.text(), st.integers(0, 2**40), max_size=3),
    st.dictionaries(st.text(), JSON, max_size=3),
)


def deed(action: str = "task.create", **details: Any) -> Deed:
    return Deed(Who("user", 3, 1), action, What("task", 5), {"organization": 1}, details)


def chain(writer: str = "server-1", deeds: Iterable[Deed] | None = None) -> list[Record]:
    head, records = Head(writer), []
    for one in deeds if deeds is not None else [deed(number=number) for number in range(LENGTH)]:
        records.append(follow(head, one, "2026-01-02T03:04:05.000006Z"))
        head = records[-1].head
    return records


def lines(records: list[Record], *heads: Head) -> list[bytes]:
    return list(lines_of(records, heads))


def verify(*exports: list[bytes]) -> list[Head]:
    verifier = Verifier()
    for export in exports:
        for number, line in enumerate(export, start=1):
            verifier.feed(line, f"line {number}")
    return verifier.finish()


def broken(*exports: list[bytes]) -> str:
    with pytest.raises(BrokenChain) as caught:
        verify(*exports)
    return str(caught.value)


@given(st.lists(DEEDS, max_size=4))
def test_what_was_written_holds(deeds: list[Deed]) -> None:
    records = chain(deeds=deeds)
    assert verify(lines(records)) == ([records[-1].head] if records else [])
    assert [Record.parse(json.loads(line)) for line in lines(records)] == records


WHOLE = lines(chain())
POSITIONS = st.integers(0, len(b"".join(WHOLE)) - 1)


@settings(max_examples=400)
@given(POSITIONS, st.integers(1, 255))
def test_no_byte_is_free(position: int, change: int) -> None:
    """Whichever byte becomes whichever other one, the line that holds it is the one that is named."""
    export = bytearray(b"".join(WHOLE))
    number = bytes(export[:position]).count(b"\n") + 1
    export[position] ^= change
    text = broken(bytes(export).splitlines(keepends=True))
    assert re.match(rf"line {number}:", text)


@given(st.sampled_from(["time", "writer", "action"]), st.integers(0, LENGTH - 1))
def test_a_changed_record_is_named(name: str, index: int) -> None:
    export = list(WHOLE)
    value = json.loads(export[index])
    export[index] = canonical({**value, name: "2027"}) + b"\n"
    text = broken(export)
    assert text.startswith(f"line {index + 1}: Record {index + 1} of ")


@given(st.integers(0, LENGTH - 2))
def test_a_removed_record_is_named(index: int) -> None:
    text = broken(WHOLE[:index] + WHOLE[index + 1 :])
    assert f"Record {index + 2} of server-1 comes after record {index}: record {index + 1} is removed or moved" in text


@given(st.permutations(range(LENGTH)).filter(lambda order: list(order) != sorted(order)))
def test_a_moved_record_is_named(order: list[int]) -> None:
    first = next(place for place, index in enumerate(order) if place != index)
    assert broken([WHOLE[index] for index in order]).startswith(f"line {first + 1}: Record {order[first] + 1} ")


@given(st.integers(0, LENGTH - 1))
def test_a_repeated_record_is_named(index: int) -> None:
    assert f"line {index + 2}: Record {index + 1} " in broken(WHOLE[: index + 1] + WHOLE[index:])


@given(st.integers(0, LENGTH - 2))
def test_a_record_that_was_replaced_with_a_right_hash_is_found_by_the_next(index: int) -> None:
    records = chain()
    before = records[index - 1].head if index else Head("server-1")
    forged = follow(before, deed(number="another"), records[index].time)
    text = broken([*WHOLE[:index], forged.line(), *WHOLE[index + 1 :]])
    assert f"line {index + 2}: Record {index + 2} of server-1 does not follow record {index + 1}" in text


def test_a_record_of_another_chain_does_not_fit() -> None:
    foreign = chain(deeds=[deed(other=True)] * LENGTH)
    assert "does not follow record 2" in broken([*WHOLE[:2], lines(foreign)[2]])


@given(st.integers(0, LENGTH - 1))
def test_a_cut_end_is_seen_by_the_noted_head(kept: int) -> None:
    head = chain()[-1].head
    text = broken(WHOLE[:kept] + lines([], head))
    missing = f"record {LENGTH} is" if kept == LENGTH - 1 else f"records {kept + 1} to {LENGTH} are"
    assert text == f"The chain of server-1 was cut at its end: {missing} missing, as its own writer noted."


def test_a_cut_end_without_a_head_is_not_seen() -> None:
    """Said in the documentation: only a head that is kept elsewhere shows it."""
    assert verify(WHOLE[:2])[0].sequence == 2


def test_many_writers_share_an_export() -> None:
    first, second = chain("server-1"), chain("server-2")
    mixed = [line for pair in zip(lines(first), lines(second), strict=True) for line in pair]
    assert verify(mixed) == [first[-1].head, second[-1].head]


@given(st.integers(1, LENGTH), st.integers(1, LENGTH - 1))
def test_a_witness_shows_a_cut(seen: int, kept: int) -> None:
    node = chain("node-1")
    server = chain("server-1", [deed(), deed(WITNESS, **node[seen - 1].head.as_dict()), deed()])
    if kept >= seen:
        assert len(verify(lines(server), lines(node[:kept]))) == 2
        return
    text = broken(lines(server), lines(node[:kept]))
    assert text.startswith("The chain of node-1 was cut at its end: record")
    assert text.endswith("as server-1 witnessed at 2026-01-02T03:04:05.000006Z (its record 2).")


def read_again(first: list[bytes], others: list[bytes], second: list[bytes]) -> tuple[Verifier, bool]:
    """A chain, what others say of it, and the chain once more; whether it was behind before that."""
    verifier = Verifier()
    for line in [*first, *others]:
        verifier.feed(line)
    was_behind = verifier.behind
    for line in second:
        verifier.feed(line, again=True)
    return verifier, was_behind


@given(st.integers(1, LENGTH), st.integers(1, LENGTH), st.integers(1, LENGTH))
def test_a_chain_that_went_on_while_it_was_read(seen: int, read: int, length: int) -> None:
    node = chain("node-1")
    server = lines(chain("server-1", [deed(WITNESS, **node[seen - 1].head.as_dict())]))
    whole = max(read, length)
    second = lines(node[:whole], node[whole - 1].head)
    verifier, was_behind = read_again(lines(node[:read], node[read - 1].head), server, second)
    assert was_behind == (seen > read)
    assert verifier.behind == (seen > whole)
    if not verifier.behind:
        assert verifier.finish()[0] == node[whole - 1].head
        return
    with pytest.raises(BrokenChain, match="was cut at its end"):
        verifier.finish()


def test_a_chain_is_the_same_when_it_is_read_again() -> None:
    node, other = chain("node-1"), chain("node-1", [deed(number="another")])
    with pytest.raises(BrokenChain, match="Record 1 of node-1 was changed while it was read"):
        read_again(lines(node), [], lines(other))


def test_an_end_that_was_noted_is_not_forgotten() -> None:
    node = chain("node-1")
    verifier, _ = read_again(lines(node[:4], node[-1].head), [], lines(node[:4], node[3].head))
    with pytest.raises(BrokenChain, match="was cut at its end"):
        verifier.finish()


def test_what_is_witnessed_while_chains_are_read_again_is_left_for_the_next_time() -> None:
    node = chain("node-1")
    server = chain("server-1", [deed(), deed(WITNESS, **node[3].head.as_dict())])
    verifier, _ = read_again([*lines(server[:1]), *lines(node[:2])], [], lines(server))
    assert [head.sequence for head in verifier.finish()] == [2, 2]


def test_a_chain_that_is_not_there_at_all_is_named() -> None:
    verifier = Verifier()
    for line in lines(chain("server-1", [deed(WITNESS, **chain("node-1")[3].head.as_dict())])):
        verifier.feed(line)
    verifier.finish()
    assert verifier.absent == ["node-1"]


def test_a_witness_shows_a_chain_that_was_written_anew() -> None:
    node = chain("node-1")
    server = chain("server-1", [deed(WITNESS, **node[3].head.as_dict())])
    anew = chain("node-1", [deed(number=0), deed(number="another"), *[deed(number=n) for n in range(2, LENGTH)]])
    assert verify(lines(anew)) == [anew[-1].head]
    assert "Record 4 of node-1 is not the one that was there" in broken(lines(anew), lines(server))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b"", "not an audit record"),
        (b"[]", "exactly the fields"),
        (b"{}", "exactly the fields"),
        (b"[" * 100_000, "not an audit record"),
        (b'{"head":{"hash":"x","sequence":1,"writer":"w"}}', '"hash" must be a hash'),
        (b'{"head":{"hash":"x","sequence":-1,"writer":"w"}}', '"sequence" must be a whole number'),
        (canonical({**json.loads(WHOLE[0]), "sequence": "1"}), '"sequence" must be a whole number'),
        (canonical({**json.loads(WHOLE[0]), "sequence": True}), '"sequence" must be a whole number'),
        (canonical({**json.loads(WHOLE[0]), "about": {"run": "x"}}), '"run" must be a whole number'),
        (canonical({**json.loads(WHOLE[0]), "more": 1}), "exactly the fields"),
        (json.dumps(json.loads(WHOLE[0])).encode(), "not written as a record is"),
        (b"\xff\xfe", "not an audit record"),
    ],
)
def test_what_is_no_record_is_refused_with_a_sentence(line: bytes, named: str) -> None:
    assert named in broken([line])


# --- the command line --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "code"), [(LENGTH, 0), (3, 1)])
def test_trails_of_what_runs_are_read_once_more(length: int, code: int, monkeypatch, capsys) -> None:
    """The server's has gone on when the node's is read; or it was cut, and stays so."""
    records = chain("server-1")
    node = lines(chain("node-1", [deed(WITNESS, **records[-1].head.as_dict())]))
    looks = {"server": [lines(records[:3]), lines(records[:length])], "node": [node, node]}
    monkeypatch.setattr("skerry.cli.audit._trail", lambda kind: lambda _: iter(looks[kind].pop(0)))
    assert main(["audit", "verify", "--server", "server.yaml", "--node", "node.yaml"]) == code
    assert ("was cut at its end" in capsys.readouterr().err) == (code == 1)
    assert looks == {"server": [], "node": []}
