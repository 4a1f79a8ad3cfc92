"""The server's resources as a user's script calls them, with vantage6 4.x's names and arguments.

Lists come as the server gives them: ``{"data": […], "links": {…}}``.
"""

# ruff: noqa: PLR0917 - the arguments are vantage6's, in its order
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from skerry.errors import DecryptionError, InputError
from skerry.keys import Identity
from skerry.transport import Call

if TYPE_CHECKING:
    from skerry.client import UserClient

_LARGEST_PAGE = 100

Row = dict[str, Any]
Rows = list[Row]
Ids = list[int]
"""Names of their own, because ``list`` is a method below."""


@dataclass(frozen=True, slots=True)
class SubClient:
    """A group of a user's calls. What is None is not sent."""

    parent: UserClient

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        return self._answer("get", path, params=_present(params))

    def _post(self, path: str, body: Mapping[str, Any], *, repeatable: bool = False) -> dict[str, Any]:
        call = Call("POST", path, json=_present(body), repeatable=repeatable)
        return cast("dict[str, Any]", self.parent.session.json(call))

    def _patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._answer("patch", path, json=_present(body))

    def _delete(self, path: str, params: Mapping[str, Any] | None = None, body: Any = None) -> dict[str, Any]:
        return self._answer("delete", path, params=params, json=body)

    def _all(self, path: str, **params: Any) -> Rows:
        """All rows of all pages."""
        rows: Rows = []
        page, more = 1, True
        while more:
            answer = self._get(path, page=page, per_page=_LARGEST_PAGE, **params)
            rows += answer["data"]
            more, page = "next" in (answer.get("links") or {}), page + 1
        return rows

    def _answer(self, method: str, path: str, **details: Any) -> dict[str, Any]:
        return cast("dict[str, Any]", self.parent.request(path, method=method, **details))


class Organization(SubClient):
    def list(
        self,
        name: str | None = None,
        country: str | None = None,
        collaboration: int | None = None,
        study: int | None = None,
        page: int = 1,
        per_page: int = 20,
    ) -> dict[str, Any]:
        collaboration = self.parent.collaboration_or_default(collaboration)
        filters = {"name": name, "country": country, "collaboration_id": collaboration, "study_id": study}
        return self._get("organization", page=page, per_page=per_page, **filters)

    def all_of(self, collaboration: int) -> Rows:
        """All members of a collaboration."""
        return self._all("organization", collaboration_id=int(collaboration))

    def get(self, id_: int | None = None) -> dict[str, Any]:
        """An organization; without an id, the user's own."""
        return self._get(f"organization/{int(id_ or self.parent.organization_id)}")

    def create(
        self,
        name: str,
        address1: str | None = None,
        address2: str | None = None,
        zipcode: str | None = None,
        country: str | None = None,
        domain: str | None = None,
        public_key: str | None = None,
    ) -> dict[str, Any]:
        address = {"address1": address1, "address2": address2, "zipcode": zipcode, "country": country}
        return self._post("organization", {"name": name, **address, "domain": domain, "public_key": public_key})

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
    ) -> dict[str, Any]:
        address = {"address1": address1, "address2": address2, "zipcode": zipcode, "country": country}
        body = {"name": name, **address, "domain": domain, "public_key": public_key}
        return self._patch(f"organization/{int(id_ or self.parent.organization_id)}", body)

    def delete(self, id_: int, delete_dependents: bool = False) -> dict[str, Any]:
        return self._delete(f"organization/{int(id_)}", _dependents(delete_dependents))


class CollaborationCalls(SubClient):
    def list(
        self,
        scope: str = "organization",
        name: str | None = None,
        encrypted: bool | None = None,
        organization: int | None = None,
        page: int = 1,
        per_page: int = 20,
    ) -> dict[str, Any]:
        """Those of the user's organization, or all that there are with ``scope="global"``."""
        if scope == "organization":
            organization = organization or self.parent.organization_id
        filters = {"name": name, "encrypted": encrypted, "organization_id": organization}
        return self._get("collaboration", page=page, per_page=per_page, **filters)

    def get(self, id_: int | None = None) -> dict[str, Any]:
        """A collaboration; without an id, the one of ``setup_collaboration``."""
        id_ = self.parent.collaboration_or_default(id_)
        if id_ is None:
            raise InputError("Say which collaboration.")
        return self._get(f"collaboration/{int(id_)}")

    def create(
        self, name: str, organizations: Ids, encrypted: bool = False, accept: str | None = None
    ) -> dict[str, Any]:
        """``accept``: which formats an encrypted one takes, ``native`` (the default), ``vantage6`` or ``both``."""
        body = {"name": name, "organization_ids": organizations, "encrypted": encrypted, "accept": accept}
        return self._post("collaboration", body)

    def update(
        self,
        id_: int | None = None,
        name: str | None = None,
        encrypted: bool | None = None,
        organizations: Ids | None = None,
    ) -> dict[str, Any]:
        body = {"name": name, "encrypted": encrypted, "organization_ids": organizations}
        return self._patch(f"collaboration/{self._id(id_)}", body)

    def delete(self, id_: int | None = None, delete_dependents: bool = False) -> dict[str, Any]:
        return self._delete(f"collaboration/{self._id(id_)}", _dependents(delete_dependents))

    def add_organization(self, organization: int, collaboration: int | None = None) -> Any:
        return self._post(f"collaboration/{self._id(collaboration)}/organization", {"id": organization})

    def remove_organization(self, organization: int, collaboration: int | None = None) -> Any:
        return self._delete(f"collaboration/{self._id(collaboration)}/organization", body={"id": organization})

    def _id(self, id_: int | None) -> int:
        id_ = self.parent.collaboration_or_default(id_)
        if id_ is None:
            raise InputError("Say which collaboration.")
        self.parent.forget_collaboration(id_)
        return int(id_)


class Study(SubClient):
    def list(
        self,
        name: str | None = None,
        organization: int | None = None,
        collaboration: int | None = None,
        include_organizations: bool = False,
        page: int = 1,
        per_page: int = 20,
    ) -> dict[str, Any]:
        collaboration = self.parent.collaboration_or_default(collaboration)
        filters = {"name": name, "organization_id": organization, "collaboration_id": collaboration}
        include = "organizations" if include_organizations else None
        return self._get("study", page=page, per_page=per_page, include=include, **filters)

    def get(self, id_: int) -> dict[str, Any]:
        return self._get(f"study/{int(id_)}")

    def create(self, name: str, organizations: Ids, collaboration: int | None = None) -> dict[str, Any]:
        collaboration = self.parent.collaboration_or_default(collaboration)
        body = {"name": name, "organization_ids": organizations, "collaboration_id": collaboration}
        return self._post("study", body)

    def update(self, id_: int, name: str | None = None, organizations: Ids | None = None) -> dict[str, Any]:
        return self._patch(f"study/{int(id_)}", {"name": name, "organization_ids": organizations})

    def delete(self, id_: int) -> dict[str, Any]:
        return self._delete(f"study/{int(id_)}")

    def add_organization(self, organization: int, study: int) -> Any:
        return self._post(f"study/{int(study)}/organization", {"id": organization})

    def remove_organization(self, organization: int, study: int) -> Any:
        return self._delete(f"study/{int(study)}/organization", body={"id": organization})


class Node(SubClient):
    def list(
        self,
        name: str | None = None,
        organization: int | None = None,
        collaboration: int | None = None,
        study: int | None = None,
        is_online: bool | None = None,
        page: int = 1,
        per_page: int = 20,
    ) -> dict[str, Any]:
        status = None if is_online is None else ("online" if is_online else "offline")
        filters = {
            "name": name,
            "organization_id": organization,
            "collaboration_id": self.parent.collaboration_or_default(collaboration),
            "study_id": study,
        }
        return self._get("node", page=page, per_page=per_page, status=status, **filters)

    def get(self, id_: int) -> dict[str, Any]:
        return self._get(f"node/{int(id_)}")

    def create(
        self, collaboration: int | None = None, organization: int | None = None, name: str | None = None
    ) -> dict[str, Any]:
        """The new node with its ``api_key``, which is shown this once only."""
        body = {
            "collaboration_id": self.parent.collaboration_or_default(collaboration),
            "organization_id": organization or self.parent.organization_id,
            "name": name,
        }
        return self._post("node", body)

    def update(self, id_: int, name: str | None = None) -> dict[str, Any]:
        return self._patch(f"node/{int(id_)}", {"name": name})

    def delete(self, id_: int) -> dict[str, Any]:
        return self._delete(f"node/{int(id_)}")


class User(SubClient):
    def list(
        self,
        username: str | None = None,
        organization: int | None = None,
        email: str | None = None,
        role: int | None = None,
        rule: int | None = None,
        page: int = 1,
        per_page: int = 20,
    ) -> dict[str, Any]:
        filters = {"username": username, "organization_id": organization, "email": email}
        return self._get("user", page=page, per_page=per_page, role_id=role, rule_id=rule, **filters)

    def get(self, id_: int | None = None) -> dict[str, Any]:
        """A user; without an id, this one."""
        return self._get(f"user/{int(id_ or self.parent.user_id)}")

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
    ) -> dict[str, Any]:
        names = {"username": username, "firstname": firstname, "lastname": lastname, "email": email}
        rights: Row = {"roles": roles or [], "rules": rules or []}
        organization = organization or self.parent.organization_id
        return self._post("user", {**names, **rights, "password": password, "organization_id": organization})

    def update(
        self,
        id_: int | None = None,
        firstname: str | None = None,
        lastname: str | None = None,
        organization: int | None = None,
        rules: Ids | None = None,
        roles: Ids | None = None,
        email: str | None = None,
    ) -> dict[str, Any]:
        names = {"firstname": firstname, "lastname": lastname, "email": email}
        body = {**names, "organization_id": organization, "rules": rules, "roles": roles}
        return self._patch(f"user/{int(id_ or self.parent.user_id)}", body)

    def delete(self, id_: int) -> dict[str, Any]:
        return self._delete(f"user/{int(id_)}")


class Role(SubClient):
    def list(
        self,
        name: str | None = None,
        organization: int | None = None,
        user: int | None = None,
        page: int = 1,
        per_page: int = 20,
    ) -> dict[str, Any]:
        return self._get("role", name=name, organization_id=organization, user_id=user, page=page, per_page=per_page)

    def get(self, id_: int) -> dict[str, Any]:
        return self._get(f"role/{int(id_)}")

    def create(self, name: str, description: str, rules: Ids, organization: int | None = None) -> dict[str, Any]:
        body = {"name": name, "description": description, "rules": rules, "organization_id": organization}
        return self._post("role", body)

    def update(
        self, role: int, name: str | None = None, description: str | None = None, rules: Ids | None = None
    ) -> dict[str, Any]:
        return self._patch(f"role/{int(role)}", {"name": name, "description": description, "rules": rules})

    def delete(self, role: int) -> dict[str, Any]:
        return self._delete(f"role/{int(role)}")


class Rule(SubClient):
    def list(
        self,
        name: str | None = None,
        operation: str | None = None,
        scope: str | None = None,
        role: int | None = None,
        page: int = 1,
        per_page: int = 20,
    ) -> dict[str, Any]:
        filters = {"name": name, "operation": operation, "scope": scope, "role_id": role}
        return self._get("rule", page=page, per_page=per_page, **filters)

    def get(self, id_: int) -> dict[str, Any]:
        return self._get(f"rule/{int(id_)}")


class Run(SubClient):
    def get(self, id_: int, include_task: bool = False) -> dict[str, Any]:
        return self._get(f"run/{int(id_)}", include="task" if include_task else None)

    def list(
        self,
        task: int | None = None,
        organization: int | None = None,
        state: str | None = None,
        node: int | None = None,
        include_task: bool = False,
        page: int = 1,
        per_page: int = 20,
    ) -> dict[str, Any]:
        filters = {"task_id": task, "organization_id": organization, "state": state, "node_id": node}
        include = "task" if include_task else None
        return self._get("run", include=include, page=page, per_page=per_page, **filters)

    def from_task(self, task_id: int, include_task: bool = False) -> dict[str, Any]:
        return self._get("run", task_id=int(task_id), include="task" if include_task else None)

    def all_of(self, task_id: int) -> Rows:
        """All runs of a task."""
        return self._all("run", task_id=int(task_id))


class Result(SubClient):
    def get(self, id_: int) -> str:
        """The text of one run's result, decrypted; JSON as a rule."""
        run = self._get(f"run/{int(id_)}")
        task = self._get(f"task/{int(run['task']['id'])}")
        return self._text(task, run)

    def from_task(self, task_id: int) -> dict[str, Any]:
        """What there is, as rows with the decrypted text in ``result``; None where a run has none."""
        task, runs = self._get(f"task/{int(task_id)}"), self.parent.run.all_of(task_id)
        rows = [{"id": run["id"], "run": {"id": run["id"]}, "result": self._text_or_none(task, run)} for run in runs]
        return {"data": rows, "links": {}}

    def plaintext(self, task: Mapping[str, Any], run_id: int, organization: int) -> bytes:
        """The bytes of one run's result. Raises CryptoError when they are not what that organization made."""
        call = Call("GET", f"skerry/run/{run_id}/result", repeatable=True)
        return self.parent.open(self.parent.session.content(call), "result", task, organization)

    def _text_or_none(self, task: Mapping[str, Any], run: Mapping[str, Any]) -> str | None:
        return self._text(task, run) if run["status"] == "completed" else None

    def _text(self, task: Mapping[str, Any], run: Mapping[str, Any]) -> str:
        organization = int(run["organization"]["id"])
        try:
            return self.plaintext(task, int(run["id"]), organization).decode()
        except UnicodeDecodeError as error:
            raise DecryptionError(f"The result of organization {organization} is not text.") from error


class Util(SubClient):
    def get_server_version(self, attempts_on_timeout: int | None = None) -> dict[str, Any]:  # noqa: ARG002 - vantage6's
        return self._get("version")

    def get_server_health(self) -> dict[str, Any]:
        return self._get("health")

    def generate_private_key(self, file_: str) -> None:
        """Makes a key file for the user's organization and registers its public half.

        Raises KeyFileError when the file exists, KeyChanged when the organization has registered other keys.
        """
        Identity.generate().save(file_)
        self.parent.setup_encryption(file_)


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _dependents(delete_dependents: bool) -> dict[str, str]:
    return {"delete_dependents": json.dumps(bool(delete_dependents))}
