"""The server's resources as a user's script calls them, with vantage6 4.x's names and arguments.

A list comes as the server gives it, one page: ``{"data": […], "links": {…}}``. Text in a filter may hold ``%`` for
anything and ``_`` for one character. An argument that is None is not sent. Times are UTC, such as
``2026-11-21T08:30:00``. Every ``get``, ``list``, ``create`` and ``update`` can keep a part of its answer:
``field``, ``fields``, ``filter_`` and ``filters`` of ``skerry.picking``. What the server refuses is raised as a
ServerError with its words.
"""

# ruff: noqa: PLR0917 - the arguments are vantage6's, in its order
from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack, cast

from skerry.calls import KEY, REPEATABLE, Call
from skerry.errors import InputError
from skerry.keys import Identity
from skerry.picking import Fields, Filters, picks_fields, picks_rows

if TYPE_CHECKING:
    from skerry.client import UserClient

_LARGEST_PAGE = 100

Row = dict[str, Any]
Rows = list[Row]
Ids = list[int]
"""Names of their own, because ``list`` is a method below."""


class SubClient:
    """A group of a user's calls. What is None is not sent."""

    def __init__(self, parent: UserClient) -> None:
        self.parent = parent

    def _get(self, path: str, **params: Any) -> Row:
        return self._answer("GET", path, params=present(params))

    def _post(self, path: str, body: Mapping[str, Any]) -> Row:
        """Done once, however often it is sent because no answer came."""
        return self._answer("POST", path, json=present(body), headers={KEY: str(uuid.uuid4())}, repeatable=True)

    def _patch(self, path: str, body: Mapping[str, Any]) -> Row:
        return self._answer("PATCH", path, json=present(body))

    def _delete(self, path: str, params: Mapping[str, Any] | None = None, body: Any = None) -> Row:
        return self._answer("DELETE", path, params=params, json=body)

    def _all(self, path: str, **params: Any) -> Rows:
        """All rows of all pages."""
        rows: Rows = []
        page, more = 1, True
        while more:
            answer = self._get(path, page=page, per_page=_LARGEST_PAGE, **params)
            rows += answer["data"]
            more, page = "next" in (answer.get("links") or {}), page + 1
        return rows

    def _answer(self, method: str, path: str, *, repeatable: bool = False, **details: Any) -> Row:
        call = Call(method, path, repeatable=repeatable or method in REPEATABLE, **details)
        return cast("Row", self._send(call))

    def _send(self, call: Call) -> Any:
        return self.parent.session.json(call)


class Organization(SubClient):
    """Data owners and research groups."""

    @picks_rows
    def list(
        self,
        name: str | None = None,
        country: str | None = None,
        collaboration: int | None = None,
        study: int | None = None,
        page: int = 1,
        per_page: int = 20,
        **_pick: Unpack[Filters],
    ) -> Row:
        """Those that you may see; of a collaboration or a study, if you name one."""
        collaboration = self.parent.collaboration_or_default(collaboration)
        filters = {"name": name, "country": country, "collaboration_id": collaboration, "study_id": study}
        return self._get("organization", page=page, per_page=per_page, **filters)

    def all_of(self, collaboration: int) -> Rows:
        """All members of a collaboration, of all pages."""
        return self._all("organization", collaboration_id=int(collaboration))

    @picks_fields
    def get(self, id_: int | None = None, **_pick: Unpack[Fields]) -> Row:
        """One organization; without an id, your own."""
        return self._get(f"organization/{int(id_ or self.parent.organization_id)}")

    @picks_fields
    def create(
        self,
        name: str,
        address1: str | None = None,
        address2: str | None = None,
        zipcode: str | None = None,
        country: str | None = None,
        domain: str | None = None,
        public_key: str | None = None,
        **_pick: Unpack[Fields],
    ) -> Row:
        """A new organization. Its keys are registered by its own users or its node, not here."""
        address = {"address1": address1, "address2": address2, "zipcode": zipcode, "country": country}
        return self._post("organization", {"name": name, **address, "domain": domain, "public_key": public_key})

    @picks_fields
    def update(
        self,
        id_: int | None = None,
        name: str | None = None,
        address1: str | None = None,
        address2: str | None = None,
        zipcode: str | None = None,
        country: str | None = None,
        domain: str | None = None,
        public_key: str | None = None,
        **_pick: Unpack[Fields],
    ) -> Row:
        """Changes what is given; without an id, of your own organization."""
        address = {"address1": address1, "address2": address2, "zipcode": zipcode, "country": country}
        body = {"name": name, **address, "domain": domain, "public_key": public_key}
        return self._patch(f"organization/{int(id_ or self.parent.organization_id)}", body)

    def delete(self, id_: int, delete_dependents: bool = False) -> Row:
        """With ``delete_dependents`` also its users, nodes, tasks and results; without it the server lists them."""
        return self._delete(f"organization/{int(id_)}", _dependents(delete_dependents))


class CollaborationCalls(SubClient):
    """Organizations that work together. Where no id is given, ``client.setup_collaboration`` says which is meant."""

    @picks_rows
    def list(
        self,
        scope: str = "organization",
        name: str | None = None,
        encrypted: bool | None = None,
        organization: int | None = None,
        algorithm_store: int | None = None,
        page: int = 1,
        per_page: int = 20,
        **_pick: Unpack[Filters],
    ) -> Row:
        """Those of your organization, or all that you may see with ``scope="global"``."""
        if scope not in {"organization", "global"}:
            raise InputError(f'The scope "{scope}" is none; give "organization" or "global".')
        if scope == "organization":
            organization = organization or self.parent.organization_id
        filters = {"name": name, "encrypted": encrypted, "organization_id": organization}
        return self._get("collaboration", page=page, per_page=per_page, algorithm_store_id=algorithm_store, **filters)

    @picks_fields
    def get(self, id_: int | None = None, **_pick: Unpack[Fields]) -> Row:
        """One collaboration; without an id, the one of ``setup_collaboration``."""
        return self._get(f"collaboration/{self._which(id_)}")

    @picks_fields
    def create(
        self,
        name: str,
        organizations: Ids,
        encrypted: bool = False,
        accept: str | None = None,
        **_pick: Unpack[Fields],
    ) -> Row:
        """``accept``: which formats an encrypted one takes, ``native`` (the default), ``vantage6`` or ``both``."""
        body = {"name": name, "organization_ids": organizations, "encrypted": encrypted, "accept": accept}
        return self._post("collaboration", body)

    @picks_fields
    def update(
        self,
        id_: int | None = None,
        name: str | None = None,
        encrypted: bool | None = None,
        organizations: Ids | None = None,
        **_pick: Unpack[Fields],
    ) -> Row:
        """Changes what is given. ``organizations`` are then all its members."""
        body = {"name": name, "encrypted": encrypted, "organization_ids": organizations}
        return self._patch(f"collaboration/{self._changed(id_)}", body)

    def delete(self, id_: int | None = None, delete_dependents: bool = False) -> Row:
        """With ``delete_dependents`` also its studies, nodes, tasks and results; without it the server lists them."""
        return self._delete(f"collaboration/{self._changed(id_)}", _dependents(delete_dependents))

    def add_organization(self, organization: int, collaboration: int | None = None) -> Any:
        """The members after it."""
        return self._post(f"collaboration/{self._changed(collaboration)}/organization", {"id": organization})

    def remove_organization(self, organization: int, collaboration: int | None = None) -> Any:
        """The members after it."""
        return self._delete(f"collaboration/{self._changed(collaboration)}/organization", body={"id": organization})

    def _which(self, id_: int | None) -> int:
        id_ = self.parent.collaboration_or_default(id_)
        if id_ is None:
            raise InputError("Say which collaboration: by its id, or setup_collaboration(…) before.")
        return int(id_)

    def _changed(self, id_: int | None) -> int:
        id_ = self._which(id_)
        self.parent.forget_collaboration(id_)
        return id_


class Study(SubClient):
    """Parts of a collaboration: some of its organizations."""

    @picks_rows
    def list(
        self,
        name: str | None = None,
        organization: int | None = None,
        collaboration: int | None = None,
        include_organizations: bool = False,
        page: int = 1,
        per_page: int = 20,
        **_pick: Unpack[Filters],
    ) -> Row:
        """``include_organizations``: with the organizations themselves instead of a link to them."""
        collaboration = self.parent.collaboration_or_default(collaboration)
        filters = {"name": name, "organization_id": organization, "collaboration_id": collaboration}
        include = "organizations" if include_organizations else None
        return self._get("study", page=page, per_page=per_page, include=include, **filters)

    @picks_fields
    def get(self, id_: int, **_pick: Unpack[Fields]) -> Row:
        return self._get(f"study/{int(id_)}")

    @picks_fields
    def create(self, name: str, organizations: Ids, collaboration: int | None = None, **_pick: Unpack[Fields]) -> Row:
        collaboration = self.parent.collaboration_or_default(collaboration)
        body = {"name": name, "organization_ids": organizations, "collaboration_id": collaboration}
        return self._post("study", body)

    @picks_fields
    def update(
        self, id_: int, name: str | None = None, organizations: Ids | None = None, **_pick: Unpack[Fields]
    ) -> Row:
        """Changes what is given. ``organizations`` are then all its members."""
        return self._patch(f"study/{int(id_)}", {"name": name, "organization_ids": organizations})

    def delete(self, id_: int) -> Row:
        return self._delete(f"study/{int(id_)}")

    def add_organization(self, organization: int, study: int) -> Any:
        return self._post(f"study/{int(study)}/organization", {"id": organization})

    def remove_organization(self, organization: int, study: int) -> Any:
        return self._delete(f"study/{int(study)}/organization", body={"id": organization})


class Node(SubClient):
    """The daemons at the data owners, as the server knows them."""

    @picks_rows
    def list(
        self,
        name: str | None = None,
        organization: int | None = None,
        collaboration: int | None = None,
        study: int | None = None,
        is_online: bool | None = None,
        ip: str | None = None,
        last_seen_from: str | None = None,
        last_seen_till: str | None = None,
        page: int = 1,
        per_page: int = 20,
        **_pick: Unpack[Filters],
    ) -> Row:
        """``is_online``: only those that are, or only those that are not."""
        filters = {
            "name": name,
            "organization_id": organization,
            "collaboration_id": self.parent.collaboration_or_default(collaboration),
            "study_id": study,
            "status": None if is_online is None else ("online" if is_online else "offline"),
            "ip": ip,
            "last_seen_from": last_seen_from,
            "last_seen_till": last_seen_till,
        }
        return self._get("node", page=page, per_page=per_page, **filters)

    @picks_fields
    def get(self, id_: int, **_pick: Unpack[Fields]) -> Row:
        return self._get(f"node/{int(id_)}")

    @picks_fields
    def create(
        self,
        collaboration: int | None = None,
        organization: int | None = None,
        name: str | None = None,
        **_pick: Unpack[Fields],
    ) -> Row:
        """The new node with its ``api_key``, which is shown this once only."""
        body = {
            "collaboration_id": self.parent.collaboration_or_default(collaboration),
            "organization_id": organization or self.parent.organization_id,
            "name": name,
        }
        return self._post("node", body)

    @picks_fields
    def update(self, id_: int, name: str | None = None, clear_ip: bool | None = None, **_pick: Unpack[Fields]) -> Row:
        """``clear_ip``: forget the address that the node had."""
        return self._patch(f"node/{int(id_)}", {"name": name, "clear_ip": clear_ip})

    def delete(self, id_: int) -> Row:
        return self._delete(f"node/{int(id_)}")

    def kill_tasks(self, id_: int) -> Row:
        """Ends all that the node does: the tasks of its runs, with their child tasks."""
        return self._post("kill/node/tasks", {"id": int(id_)})


class User(SubClient):
    """People, each of one organization."""

    @picks_rows
    def list(
        self,
        username: str | None = None,
        organization: int | None = None,
        firstname: str | None = None,
        lastname: str | None = None,
        email: str | None = None,
        role: int | None = None,
        rule: int | None = None,
        last_seen_from: str | None = None,
        last_seen_till: str | None = None,
        page: int = 1,
        per_page: int = 20,
        **_pick: Unpack[Filters],
    ) -> Row:
        """``role`` and ``rule``: only those who have it."""
        names = {"username": username, "firstname": firstname, "lastname": lastname, "email": email}
        times = {"last_seen_from": last_seen_from, "last_seen_till": last_seen_till}
        filters = {"organization_id": organization, "role_id": role, "rule_id": rule}
        return self._get("user", page=page, per_page=per_page, **names, **times, **filters)

    @picks_fields
    def get(self, id_: int | None = None, **_pick: Unpack[Fields]) -> Row:
        """One user; without an id, you."""
        return self._get(f"user/{int(id_ or self.parent.user_id)}")

    @picks_fields
    def create(
        self,
        username: str,
        firstname: str,
        lastname: str,
        password: str,
        email: str,
        organization: int | None = None,
        roles: Ids | None = None,
        rules: Ids | None = None,
        **_pick: Unpack[Fields],
    ) -> Row:
        """A new user of your organization or another one. You can hand out only rules that you have yourself."""
        names = {"username": username, "firstname": firstname, "lastname": lastname, "email": email}
        rights: Row = {"roles": roles or [], "rules": rules or []}
        organization = organization or self.parent.organization_id
        return self._post("user", {**names, **rights, "password": password, "organization_id": organization})

    @picks_fields
    def update(
        self,
        id_: int | None = None,
        firstname: str | None = None,
        lastname: str | None = None,
        organization: int | None = None,
        rules: Ids | None = None,
        roles: Ids | None = None,
        email: str | None = None,
        **_pick: Unpack[Fields],
    ) -> Row:
        """Changes what is given; without an id, of yourself. ``rules`` and ``roles`` are then all of theirs."""
        names = {"firstname": firstname, "lastname": lastname, "email": email}
        body = {**names, "organization_id": organization, "rules": rules, "roles": roles}
        return self._patch(f"user/{int(id_ or self.parent.user_id)}", body)

    def delete(self, id_: int) -> Row:
        return self._delete(f"user/{int(id_)}")


class Role(SubClient):
    """Named sets of rules."""

    @picks_rows
    def list(
        self,
        name: str | None = None,
        description: str | None = None,
        organization: int | None = None,
        rule: int | None = None,
        user: int | None = None,
        include_root: bool | None = None,
        page: int = 1,
        per_page: int = 20,
        **_pick: Unpack[Filters],
    ) -> Row:
        """``include_root``: with the roles that belong to no organization."""
        filters = {"name": name, "description": description, "include_root": include_root}
        owners = {"organization_id": organization, "rule_id": rule, "user_id": user}
        return self._get("role", page=page, per_page=per_page, **filters, **owners)

    @picks_fields
    def get(self, id_: int, **_pick: Unpack[Fields]) -> Row:
        return self._get(f"role/{int(id_)}")

    @picks_fields
    def create(
        self, name: str, description: str, rules: Ids, organization: int | None = None, **_pick: Unpack[Fields]
    ) -> Row:
        body = {"name": name, "description": description, "rules": rules, "organization_id": organization}
        return self._post("role", body)

    @picks_fields
    def update(
        self,
        role: int,
        name: str | None = None,
        description: str | None = None,
        rules: Ids | None = None,
        **_pick: Unpack[Fields],
    ) -> Row:
        """Changes what is given. ``rules`` are then all of its rules."""
        return self._patch(f"role/{int(role)}", {"name": name, "description": description, "rules": rules})

    def delete(self, role: int) -> Row:
        return self._delete(f"role/{int(role)}")


class Rule(SubClient):
    """What may be done: an operation on a resource, within a scope."""

    @picks_rows
    def list(
        self,
        name: str | None = None,
        operation: str | None = None,
        scope: str | None = None,
        role: int | None = None,
        page: int = 1,
        per_page: int = 20,
        **_pick: Unpack[Filters],
    ) -> Row:
        """``name`` is that of the resource, such as ``task``; ``operation`` and ``scope`` are in capitals."""
        filters = {"name": name, "operation": operation, "scope": scope, "role_id": role}
        return self._get("rule", page=page, per_page=per_page, **filters)

    @picks_fields
    def get(self, id_: int, **_pick: Unpack[Fields]) -> Row:
        return self._get(f"rule/{int(id_)}")


class Util(SubClient):
    """The server itself, your password, your second factor, your key file."""

    def get_server_version(self, attempts_on_timeout: int | None = None) -> Row:  # noqa: ARG002 - vantage6's
        return self._get("version")

    def get_server_health(self) -> Row:
        return self._get("health")

    def change_my_password(self, current_password: str, new_password: str) -> Row:
        """Log in again with the new one afterwards."""
        return self._patch("password/change", {"current_password": current_password, "new_password": new_password})

    def reset_my_password(self, email: str | None = None, username: str | None = None) -> Row:
        """Has the server mail you a token for ``set_my_password``. Needs no log-in."""
        return self._recover("lost", _whom(email, username))

    def set_my_password(self, token: str, password: str) -> Row:
        """Sets a new password with the token that was mailed. Needs no log-in."""
        return self._recover("reset", {"reset_token": token, "password": password})

    def reset_two_factor_auth(self, password: str, email: str | None = None, username: str | None = None) -> Row:
        """Has the server mail you a token for ``set_two_factor_auth``. Needs no log-in."""
        return self._recover("2fa/lost", {**_whom(email, username), "password": password})

    def set_two_factor_auth(self, token: str) -> Row:
        """A new second factor, as ``qr_uri`` and ``otp_secret`` for your authenticator. Needs no log-in."""
        return self._recover("2fa/reset", {"reset_token": token})

    def generate_private_key(self, file_: str | None = None) -> None:
        """Makes a key file for your organization and registers its public half.

        Without a name, ``privkey_<organization>.pem`` here. Raises KeyFileError when the file exists, KeyChanged when
        the organization has registered other keys.
        """
        file_ = file_ or f"privkey_{self.parent.organization_id}.pem"
        Identity.generate().save(file_)
        self.parent.setup_encryption(file_)

    def _recover(self, step: str, body: Row) -> Row:
        return cast("Row", self.parent.without_token(Call("POST", f"recover/{step}", json=body)))


def present(values: Mapping[str, Any]) -> Row:
    """Without those that are None."""
    return {name: value for name, value in values.items() if value is not None}


def _whom(email: str | None, username: str | None) -> Row:
    if not email and not username:
        raise InputError("Say who you are: email=… or username=….")
    return present({"email": email, "username": username})


def _dependents(delete_dependents: bool) -> dict[str, str]:
    return {"delete_dependents": json.dumps(bool(delete_dependents))}
