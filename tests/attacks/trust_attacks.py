"""What a breached server does to a node and to who asks, beside the genuine order, which runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from attack import Attack, Struck, Weaken

sys.path.insert(0, str(Path(__file__).parent.parent / "integration"))
import lying_world
from lying_world import DATABASES, IMAGE, OTHER_IMAGE, TAGGED, TEXT, World, certified, make_identity

from skerry import crypto, trust
from skerry.errors import CryptoError
from skerry.payloads import Collaboration, TaskFacts
from skerry.wire import Format, to_stored

MORE_IMAGES = (
    f"{IMAGE}-evil",
    f"evil/{IMAGE}",
    f"{IMAGE}/evil",
    f"localhost/{IMAGE}",
    "skerry-tests/v1xok",
    "skerry-tests/v1.ok-evil",
    f"{TAGGED}:2",
    TAGGED,
    "skerry-tests/Allowed",
)
"""Names that a careless comparison takes for an allowed one; under each there is an image."""

_CHUNK = crypto.CHUNK_SIZE + 16
_SIGNATURE = 64
_LONG = b'{"method": "echo", "args": [], "kwargs": {"value": "' + b"x" * 3 * crypto.CHUNK_SIZE + b'"}}'
_LAST = len(_LONG) % crypto.CHUNK_SIZE + 16


# --- what is taken away -----------------------------------------------------------------------------------


def without_policy(name: str) -> Weaken:
    def weaken(patch: pytest.MonkeyPatch) -> None:
        patch.delitem(lying_world.POLICIES, name)

    return weaken


def with_rules(**changes: Any) -> Weaken:
    """Every rule of the owner's without these conditions."""

    def weaken(patch: pytest.MonkeyPatch) -> None:
        rules = [
            {key: value for key, value in rule.items() if key not in changes}
            for rule in lying_world.POLICIES["allowed_algorithms"]
        ]
        patch.setitem(lying_world.POLICIES, "allowed_algorithms", rules)

    return weaken


def without(code: str) -> Weaken:
    """The node and its proxy start with this; it holds for the test's own process too where it names no proxy."""

    def weaken(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(lying_world, "WEAKER", code)

    return weaken


def unsigned_allowed(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(lying_world.POLICIES, "unsigned_tasks", "allow")


def contexts_unchecked_here(patch: pytest.MonkeyPatch) -> None:
    """By who reads a result."""
    patch.setattr(trust, "_check_context", lambda *_: None)


def authors_unchecked_here(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(trust, "_verify_author", lambda *_: None)


ANY_IMAGE = without_policy("allowed_algorithms")
ANY_USER = without_policy("allowed_users")
ANY_ORGANIZATION = without_policy("allowed_organizations")
ANY_FUNCTION = with_rules(functions=None)
ANY_DATABASE = with_rules(databases=None)
NAMES_UNCHECKED = without("import skerry_node.admission as a\na.matches = lambda *_: True\n")
CONTEXTS_UNCHECKED = without("import skerry.trust as t\nt._check_context = lambda *_: None\n")
TIMES_UNCHECKED = without("import skerry.trust as t\nt._check_times = lambda *_: None\n")
AUTHORS_UNCHECKED = without("import skerry.trust as t\nt._verify_author = lambda *_: None\n")
TAGS_UNCHECKED = without(
    "import skerry.crypto as c, skerry.trust as t\n"
    "class Unchecked:\n"
    "    def __init__(self, key):\n"
    "        self.key, self.encrypt = key, Genuine(key).encrypt\n"
    "    def decrypt(self, nonce, sealed, _):\n"
    "        stream = c.Cipher(c.AES(self.key), c.CTR(nonce + bytes([0, 0, 0, 2]))).decryptor()\n"
    "        return stream.update(sealed[:-16])\n"
    "Genuine, c.AESGCM = c.AESGCM, Unchecked\n"
    "t._verify_author = lambda *_: None\n"
)
"""AES-GCM without its tag is a mere stream, and nobody looks at the signature over it either."""
REPLAYS_UNCHECKED = without("import skerry_proxy.ledger as l\nl.Ledger.use = lambda *_: None\n")
ADDRESSEES_UNCHECKED = without("import skerry_proxy.office as o\no.Office._check_addressee = lambda *_: None\n")
KEYS_NOT_PINNED = without(
    "import skerry_proxy.keyring as k\n"
    "def find(self, organization, token):\n"
    "    shown = [one for one in self._fetch(token) if one['organization_id'] == organization]\n"
    "    return k.Announced.from_wire(shown[0]).keys\n"
    "k.Keyring.find = k.Keyring.check = find\n"
)

# --- how it is tried --------------------------------------------------------------------------------------


def offered(world: World, order: dict[str, Any]) -> Struck:
    """Succeeds when the node started anything."""
    ended = world.liar.offer(order)
    if world.liar.ran(order["run"]):
        return Struck(succeeded=True, answer="it was started")
    return Struck(succeeded=False, answer=f"{ended['status']}: {world.read_log(ended['log'] or '')}")


@dataclass(frozen=True, slots=True)
class Signed:
    """An order whose signed context, or what the server says beside it, is otherwise than the genuine one's.

    ``times`` are in seconds from now.
    """

    context: dict[str, Any]
    said: dict[str, Any]
    text: bytes = TEXT
    times: dict[str, int] = field(default_factory=dict)

    def __call__(self, world: World) -> Struck:
        now = int(time.time())
        times = {name: now + seconds for name, seconds in self.times.items()}
        context = world.context(**self.context, **times)
        author = certified(world.people[context.sender], context.sender, context.user or 7)
        stored = world.seal(context, self.text, author=author)
        order = world.order(context, stored, **{name: v for name, v in self.said.items() if name != "node_id"})
        return offered(world, order | {name: v for name, v in self.said.items() if name == "node_id"})


def _child_of_unknown_organization(world: World) -> Struck:
    parent, author = world.context(sender=3, recipient=1), certified(world.people[3], 3, 7)
    stored = b"".join(crypto.seal([TEXT], parent, recipients=[world.people[1].public_pem], identity=author))
    opened = crypto.unseal([stored], world.people[1])
    list(opened.chunks)
    child = world.context(user=None, parent=parent.task)
    return offered(world, world.order(child, world.seal(child, author=world.people[1], chain=(opened.proof,))))


def _unsigned(world: World) -> Struck:
    context = world.context()
    stored = crypto.vantage6_encrypt(TEXT, world.people[2].public_pem).encode()
    return offered(world, world.order(context, stored) | {"format": "vantage6"})


def _plain(world: World) -> Struck:
    return offered(world, world.order(world.context(), TEXT) | {"format": "plain"})


def _user_that_the_server_names(world: World) -> Struck:
    context = world.context(user=None)
    return offered(world, world.order(context, world.seal(context, author=world.people[1])))


def _certificate_of_another_user(world: World) -> Struck:
    """Somebody of the organization, not admitted here, signs as user 7."""
    context = world.context()
    return offered(world, world.order(context, world.seal(context, author=certified(world.people[1], 1, 8))))


def _signed_by_a_stranger(world: World) -> Struck:
    context = world.context()
    return offered(world, world.order(context, world.seal(context, author=certified(make_identity(), 1, 7))))


def _replayed(world: World, *, restart: bool) -> Struck:
    context = world.context()
    stored = world.seal(context)
    world.runs(world.order(context, stored))
    if restart:
        world.stop()
        world.start()
    return offered(world, world.order(context, stored))


def _swapped_key(world: World, organization: int) -> Struck:
    """The server shows its own key for an organization, and signs with it. The genuine one was seen before."""
    genuine = world.context()
    world.runs(world.order(genuine, world.seal(genuine)))
    mallory = make_identity()
    world.show_keys(**{f"organization_{organization}": mallory.organization_keys(organization)})
    try:
        context = world.context(sender=organization)
        order = world.order(context, world.seal(context, author=certified(mallory, organization, 7)))
        return offered(world, order)
    finally:
        world.show_keys()


@dataclass(frozen=True, slots=True)
class Bent:
    """A genuine input of four chunks, altered on its way."""

    bend: Callable[[bytes, bytes], bytes]

    def __call__(self, world: World) -> Struck:
        first, second = world.context(), world.context()
        bent = self.bend(world.seal(first, _LONG), world.seal(second, _LONG))
        return offered(world, world.order(first, bent))


def _flip(position: int) -> Bent:
    def bend(stored: bytes, _: bytes) -> bytes:
        bent = bytearray(stored)
        bent[position] ^= 1
        return bytes(bent)

    return Bent(bend)


def _parts(stored: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """What stands before two whole chunks, these two, and the last with the signature."""
    last = len(stored) - _SIGNATURE - _LAST
    first = last - 2 * _CHUNK
    return stored[:first], stored[first : first + _CHUNK], stored[first + _CHUNK : last], stored[last:]


def _reorder(stored: bytes, _: bytes) -> bytes:
    start, first, second, rest = _parts(stored)
    return start + second + first + rest


def _splice(stored: bytes, other: bytes) -> bytes:
    """The head of one task's, the body of another's."""
    middle = len(stored) // 2
    return stored[:middle] + other[middle:]


def _stretch(stored: bytes, _: bytes) -> bytes:
    now = int(time.time())
    for second in range(now + 3590, now + 3610):
        stored = stored.replace(str(second).encode(), str(second + 86400).encode())
    return stored


@dataclass(frozen=True, slots=True)
class Answered:
    """Results of two tasks come back; the server hands on something else than the first one's, as it is."""

    choose: Callable[[bytes, bytes], tuple[bytes, int]]
    kind: str = "result"

    def __call__(self, world: World) -> Struck:
        contexts = [world.context(), world.context()]
        stored = [to_stored(world.runs(world.order(one, world.seal(one)))["result"], Format.NATIVE) for one in contexts]
        facts = TaskFacts(contexts[0].task, Collaboration(1, encrypted=True, accept="native"), IMAGE, DATABASES)
        shown, sender = self.choose(stored[0], stored[1])
        try:
            return Struck(world.client().open(shown, self.kind, facts, sender) is not None, "it was believed")
        except CryptoError as error:
            return Struck(succeeded=False, answer=f"refused: {error}")


def _forge(world: World) -> Struck:
    """A result that the server made itself for who asks, whose key is public."""
    context = world.context()
    ended = world.runs(world.order(context, world.seal(context)))
    assert ended["result"]
    answer = replace(context, direction="result", sender=2, recipient=1, user=None, attempt=1)
    pieces = crypto.seal([b"43"], answer, recipients=[world.people[1].public_pem], identity=make_identity())
    facts = TaskFacts(context.task, Collaboration(1, encrypted=True, accept="native"), IMAGE, DATABASES)
    try:
        return Struck(world.client().open(b"".join(pieces), "result", facts, 2) == b"43", "it was believed")
    except CryptoError as error:
        return Struck(succeeded=False, answer=f"refused: {error}")


# --- the catalogue ----------------------------------------------------------------------------------------

_AEAD = "what can't be decrypted can't be run: the check and the decryption are one"
_BROKEN = "failed|not allowed"


def _signed(
    name: str,
    tries: str,
    refusal: str,
    weaken: Weaken | None,
    /,
    *,
    text: bytes = TEXT,
    said: Any = None,
    times: Any = None,
    **context: Any,
) -> Attack:
    return Attack(f"trust-{name}", tries, refusal, Signed(context, said or {}, text, times or {}), weaken)


def _named(name: str, image: str, tries: str) -> Attack:
    return _signed(f"image-{name}", tries, "not allowed.*does not admit the image", NAMES_UNCHECKED, image=image)


def _function(method: str) -> bytes:
    return b'{"method": "' + method.encode() + b'", "args": [], "kwargs": {}}'


ATTACKS: list[Attack] = [
    _signed("image", "run an image that isn't on the list", "does not admit the image", ANY_IMAGE, image=OTHER_IMAGE),
    _named("prefix", MORE_IMAGES[0], "pass by a name that only starts as an allowed one"),
    _named("suffix", MORE_IMAGES[1], "pass by a name that only ends as an allowed one"),
    _named("folder", MORE_IMAGES[2], "pass by a name below an allowed one"),
    _named("registry", MORE_IMAGES[3], "pass by the allowed name at another registry"),
    _named("dot", MORE_IMAGES[4], "pass by a character where the pattern has a dot"),
    _named("pattern", MORE_IMAGES[5], "pass by a name that a pattern fits only in part"),
    _named("tag", MORE_IMAGES[6], "pass by another tag"),
    _named("latest", MORE_IMAGES[7], "pass by no tag where one is named"),
    _named("case", MORE_IMAGES[8], "pass by another case"),
    _signed("function", "call a function that isn't allowed", '"noop"', ANY_FUNCTION, text=_function("noop")),
    _signed("user", "ask as a user that isn't allowed", "user 8", ANY_USER, user=8),
    _signed("organization", "ask as an organization that isn't allowed", "organization 3", ANY_ORGANIZATION, sender=3),
    _signed("database", "read a database that isn't allowed", "secret", ANY_DATABASE, databases=({"label": "secret"},)),
    _signed(
        "other-database",
        "have another database read than was signed",
        "for other databases",
        CONTEXTS_UNCHECKED,
        said={"databases": []},
    ),
    _signed(
        "other-image",
        "have another image run than was signed",
        "another image",
        CONTEXTS_UNCHECKED,
        said={"image": IMAGE},
        image=OTHER_IMAGE,
    ),
    _signed(
        "other-node",
        "hand over another node's run",
        "another organization, node",
        ADDRESSEES_UNCHECKED,
        said={"node_id": 6},
    ),
    _signed(
        "expired", "run a task whose time is over", "expired", TIMES_UNCHECKED, times={"created": -200, "expires": -100}
    ),
    _signed("endless", "run a task that lives for years", "expired", TIMES_UNCHECKED, times={"expires": 9 * 10**7}),
    Attack(
        "trust-child",
        "ask by an allowed organization's central function",
        "organization 3",
        _child_of_unknown_organization,
        ANY_ORGANIZATION,
    ),
    Attack("trust-unsigned", "hand over a task that nobody signed", "unsigned", _unsigned, unsigned_allowed),
    Attack(
        "trust-plain",
        "hand over a task in the clear",
        "unencrypted tasks",
        _plain,
        excuse="an encrypted collaboration knows no such format, whatever the owner allows",
    ),
    Attack(
        "trust-named-user", "name a user for a task that has none", "user None", _user_that_the_server_names, ANY_USER
    ),
    Attack(
        "trust-certificate",
        "sign by another user's certificate",
        "another user",
        _certificate_of_another_user,
        AUTHORS_UNCHECKED,
    ),
    Attack(
        "trust-signature",
        "sign as an organization without its key",
        "signature|certificate|key",
        _signed_by_a_stranger,
        AUTHORS_UNCHECKED,
    ),
    Attack(
        "trust-replay",
        "have a task run twice",
        "used before",
        lambda world: _replayed(world, restart=False),
        REPLAYS_UNCHECKED,
    ),
    Attack(
        "trust-replay-later",
        "have a task run twice, with a restart in between",
        "used before",
        lambda world: _replayed(world, restart=True),
        REPLAYS_UNCHECKED,
    ),
    Attack(
        "trust-key",
        "show its own key for who asks",
        "key confirm",
        lambda world: _swapped_key(world, 1),
        KEYS_NOT_PINNED,
    ),
    Attack("trust-flip-head", "alter the head of an input", _BROKEN, _flip(200), excuse=_AEAD),
    Attack("trust-flip-body", "alter the body of an input", _BROKEN, _flip(-crypto.CHUNK_SIZE), TAGS_UNCHECKED),
    Attack("trust-flip-signature", "alter the signature of an input", _BROKEN, _flip(-1), AUTHORS_UNCHECKED),
    Attack(
        "trust-truncated", "cut an input", _BROKEN, Bent(lambda stored, _: stored[: len(stored) // 2]), excuse=_AEAD
    ),
    Attack(
        "trust-last-chunk",
        "cut the last chunk of an input",
        _BROKEN,
        Bent(lambda stored, _: stored[:-_CHUNK] + stored[-_SIGNATURE:]),
        excuse=_AEAD,
    ),
    Attack("trust-reordered", "swap two chunks of an input", _BROKEN, Bent(_reorder), excuse=_AEAD),
    Attack(
        "trust-spliced", "put the body of one input behind the head of another", _BROKEN, Bent(_splice), excuse=_AEAD
    ),
    Attack("trust-stretched", "write a later end into an input", _BROKEN, Bent(_stretch), TAGS_UNCHECKED),
    Attack("trust-appended", "add to an input", _BROKEN, Bent(lambda stored, _: stored + b"more"), excuse=_AEAD),
    Attack(
        "trust-result-of-task",
        "hand on another task's result",
        "another task",
        Answered(lambda _, second: (second, 2)),
        contexts_unchecked_here,
    ),
    Attack(
        "trust-result-of-organization",
        "hand on a result as another organization's",
        "another organization|signature",
        Answered(lambda first, _: (first, 3)),
        contexts_unchecked_here,
    ),
    Attack(
        "trust-result-as-log",
        "hand on a result as a log",
        "another direction",
        Answered(lambda first, _: (first, 2), "log"),
        contexts_unchecked_here,
    ),
    Attack(
        "trust-result-altered",
        "alter a result",
        "refused",
        Answered(lambda first, _: (first[:-100] + bytes([first[-100] ^ 1]) + first[-99:], 2)),
        excuse=_AEAD,
    ),
    Attack(
        "trust-result-plain", "hand on a result in the clear", "refused", Answered(lambda *_: (b"42", 2)), excuse=_AEAD
    ),
    Attack("trust-result-forged", "make a result itself", "refused", _forge, authors_unchecked_here),
]
