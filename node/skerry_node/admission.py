"""What the owner of a node allows: rules without I/O. Anything that is not clearly allowed is refused.

A refusal names the kind of rule that refused, and nothing of what other rules would allow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from skerry import contract
from skerry.errors import SkerryError
from skerry.peering import MOST_PORTS
from skerry_node.config import Database
from skerry_node.launchers.launcher import Image
from skerry_node.policies import OnlyFor, Policies, Rule
from skerry_node.references import matches

_ANY = Rule(algorithm=".*")
"""What stands where the owner of a node for development made no rules."""


class NotAdmitted(SkerryError):
    """The owner does not allow this; the sentence is for the user."""


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for what. ``origin`` is the organization of ``user``, who stands behind the job; ``organization`` asks
    for this very task. Where ``signed`` is false all three are only the server's claim, as ``store`` always is.
    """

    image: str
    method: str
    databases: Sequence[str]
    organization: int
    origin: int
    user: int | None
    signed: bool
    store: str | None = None


def admit(policies: Policies, databases: Sequence[Database], request: Request, image: Image | None = None) -> Rule:
    """The rule that admits it; raises NotAdmitted.

    ``image`` None: it is not here yet. What an entry with a digest means is then left open, to be asked again.
    """
    if not request.signed and policies.unsigned_tasks != "allow":
        raise NotAdmitted("This node admits signed tasks only, and this one is not signed (policies.unsigned_tasks).")
    _admit_asker(policies, request)
    digests = None if image is None else image.digests
    rule = _choose_rule(policies.allowed_algorithms, request, digests)
    _admit_databases(databases, request, digests)
    if image is not None:
        _admit_ports(request.image, image)
    return rule


def _admit_ports(name: str, image: Image) -> None:
    if contract.GATE_PORT in image.ports:
        raise NotAdmitted(f"The image {name} exposes port {contract.GATE_PORT}, which is the gate's.")
    if len(image.ports) > MOST_PORTS:
        raise NotAdmitted(f"The image {name} exposes {len(image.ports)} ports: a run may have {MOST_PORTS} at most.")


def _admit_asker(policies: Policies, request: Request) -> None:
    if not _holds(policies.allowed_users, request.user):
        raise NotAdmitted(f"This node does not admit tasks of user {request.user} (policies.allowed_users).")
    for organization in _organizations(request):
        if not _holds(policies.allowed_organizations, organization):
            raise NotAdmitted(
                f"This node does not admit tasks of organization {organization} (policies.allowed_organizations)."
            )
    stores = policies.allowed_algorithm_stores
    if stores is not None and _address(request.store) not in {_address(store) for store in stores}:
        raise NotAdmitted(
            f"This node does not admit algorithms of {request.store or 'no store'} (policies.allowed_algorithm_stores)."
        )


def _organizations(request: Request) -> tuple[int, int]:
    """Both count: another organization's central function is no way around a list."""
    return request.organization, request.origin


def _address(store: str | None) -> str | None:
    return store.rstrip("/") if store else None


def _holds(allowed: Collection[object] | None, asked: object) -> bool:
    return allowed is None or asked in allowed


def _choose_rule(rules: Sequence[Rule] | None, request: Request, digests: Collection[str] | None) -> Rule:
    """The first that fits. Where none does, it is said at which point the last ones dropped out."""
    if rules is None:
        return _ANY
    left = [rule for rule in rules if matches(rule.algorithm, request.image, digests)]
    if not left:
        raise NotAdmitted(f"This node does not admit the image {request.image} (policies.allowed_algorithms).")
    for key, fits in _CONDITIONS.items():
        left = [rule for rule in left if fits(rule, request)]
        if not left:
            raise NotAdmitted(
                f"This node does not admit {_phrase(key, request)} with the image {request.image} "
                f"(policies.allowed_algorithms: {key})."
            )
    return left[0]


_CONDITIONS: dict[str, Callable[[Rule, Request], bool]] = {
    "functions": lambda rule, request: _holds(rule.functions, request.method),
    "databases": lambda rule, request: all(_holds(rule.databases, label) for label in request.databases),
    "users": lambda rule, request: _holds(rule.users, request.user),
    "organizations": lambda rule, request: all(_holds(rule.organizations, one) for one in _organizations(request)),
}


def _phrase(key: str, request: Request) -> str:
    """What was asked for, in the words of a condition."""
    organizations = " and ".join(map(str, dict.fromkeys(_organizations(request))))
    return {
        "functions": f'the function "{request.method}"',
        "databases": f"the database {_quote(request.databases)}",
        "users": f"tasks of user {request.user}",
        "organizations": f"tasks of organization {organizations}",
        "algorithms": f"the image {request.image}",
    }[key]


def _quote(labels: Sequence[str]) -> str:
    return " beside ".join(f'"{label}"' for label in labels)


def _admit_databases(databases: Sequence[Database], request: Request, digests: Collection[str] | None) -> None:
    known = {database.label: database for database in databases}
    for label in request.databases:
        if label not in known:
            raise NotAdmitted(f'This node has no database "{label}"; it has: {", ".join(known) or "none"}.')
        if request.databases.count(label) > 1:
            raise NotAdmitted(f'The task names the database "{label}" twice.')
        for key, fits in _fit_database(known[label].only_for, request, digests).items():
            if not fits:
                raise NotAdmitted(
                    f'The owner\'s database "{label}" is not for {_phrase(key, request)} (databases: only_for.{key}).'
                )


def _fit_database(only_for: OnlyFor, request: Request, digests: Collection[str] | None) -> dict[str, bool]:
    entries = only_for.algorithms
    return {
        "algorithms": entries is None or any(matches(entry, request.image, digests) for entry in entries),
        "functions": _holds(only_for.functions, request.method),
        "users": _holds(only_for.users, request.user),
        "organizations": all(_holds(only_for.organizations, one) for one in _organizations(request)),
    }
