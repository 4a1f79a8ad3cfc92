"""Algorithm stores: which are linked, and what is in the one that ``client.store.set`` chose.

A call to a store carries your access token, with which the store asks your server who you are: choose only stores
that you trust as much as the server.
"""

# ruff: noqa: PLR0917 - the arguments are vantage6's, in its order
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack, cast

from skerry.calls import Call
from skerry.errors import ConfigurationError, InputError
from skerry.picking import Fields, Filters, picks_fields, picks_rows
from skerry.subclients import Ids, Row, Rows, SubClient, present

if TYPE_CHECKING:
    from skerry.client import UserClient


class InStore(SubClient):
    """A group of calls to the store that ``client.store.set`` chose."""

    def _post(self, path: str, body: Mapping[str, Any]) -> Row:
        """Not repeated: a store knows of no keys."""
        return self._answer("POST", path, json=present(body))

    def _send(self, call: Call) -> Any:
        return self.parent.send_to_store(call)


class Store(SubClient):
    """The stores that the server knows, and which of them the calls to a store are for."""

    def __init__(self, parent: UserClient) -> None:
        super().__init__(parent)
        self.url: str | None = None
        self.store_id: int | None = None
        self.role = StoreRole(parent)
        self.rule = StoreRule(parent)
        self.user = StoreUser(parent)
        self.policy = StorePolicy(parent)
        self.review = Review(parent)

    @picks_fields
    def get(self, id_: int, **_pick: Unpack[Fields]) -> Row:
        return self._get(f"algorithmstore/{int(id_)}")

    @picks_rows
    def list(
        self,
        name: str | None = None,
        url: str | None = None,
        collaboration: int | None = None,
        page: int = 1,
        per_page: int = 10,
        **_pick: Unpack[Filters],
    ) -> Row:
        """Of a collaboration: those linked to it, and those linked to all."""
        collaboration = self.parent.collaboration_or_default(collaboration)
        filters = {"name": name, "url": url, "collaboration_id": collaboration}
        return self._get("algorithmstore", page=page, per_page=per_page, **filters)

    @picks_fields
    def create(
        self,
        algorithm_store_url: str,
        name: str,
        collaboration: int | None = None,
        all_collaborations: bool = False,
        force: bool = False,
        **_pick: Unpack[Fields],
    ) -> Row:
        """Links a store to a collaboration, or with ``all_collaborations`` to all that there are and will be.

        ``algorithm_store_url`` is with the path of the store's API.
        """
        body = {
            "algorithm_store_url": algorithm_store_url,
            "name": name,
            "force": force,
            "server_url": self.parent.base_path,
            "collaboration_id": self._target(collaboration, everywhere=all_collaborations),
        }
        return self._post("algorithmstore", body)

    @picks_fields
    def update(
        self,
        id_: int | None = None,
        name: str | None = None,
        collaboration: int | None = None,
        all_collaborations: bool | None = None,
        **_pick: Unpack[Fields],
    ) -> Row:
        """Changes the name, links it to one more collaboration or to all; without an id, the store that was set."""
        body: Row = present({"name": name, "collaboration_id": collaboration})
        if all_collaborations:
            body["collaboration_id"] = None  # which is how the dialect says: all
        return self._answer("PATCH", f"algorithmstore/{self._which(id_)}", json=body)

    def delete(self, id_: int | None = None) -> Row:
        """Unlinks a store; without an id, the one that was set."""
        return self._delete(f"algorithmstore/{self._which(id_)}", {"server_url": self.parent.base_path})

    def set(self, id_: int) -> Row:
        """The store that the calls to a store are for from now on."""
        store = self._get(f"algorithmstore/{int(id_)}")
        self.parent.check_address(str(store["url"]))
        self.url, self.store_id = str(store["url"]), int(id_)
        return store

    def chosen_url(self) -> str:
        """Raises ConfigurationError when none was set."""
        if self.url is None:
            raise ConfigurationError(
                "Say which algorithm store: client.store.set(id) first; client.store.list() has the ids."
            )
        return self.url

    def _target(self, collaboration: int | None, *, everywhere: bool) -> int | None:
        if everywhere:
            return None
        id_ = self.parent.collaboration_or_default(collaboration)
        if id_ is None:
            raise InputError("Say for which collaboration the store is, or all_collaborations=True.")
        return id_

    def _which(self, id_: int | None) -> int:
        id_ = id_ or self.store_id
        if id_ is None:
            raise InputError("Say which store: by its id, or client.store.set(id) before.")
        return int(id_)


class StoreRole(InStore):
    @picks_rows
    def list(
        self,
        name: str | None = None,
        description: str | None = None,
        user: int | None = None,
        page: int = 1,
        per_page: int = 10,
        **_pick: Unpack[Filters],
    ) -> Row:
        """``user``: only the roles of this user of the store."""
        return self._get("role", name=name, description=description, user_id=user, page=page, per_page=per_page)

    @picks_fields
    def create(self, name: str, description: str, rules: Ids, **_pick: Unpack[Fields]) -> Row:
        return self._post("role", {"name": name, "description": description, "rules": rules})

    @picks_fields
    def edit(
        self,
        role_id: int,
        name: str | None = None,
        description: str | None = None,
        rules: Ids | None = None,
        **_pick: Unpack[Fields],
    ) -> Row:
        """Changes what is given. ``rules`` are then all of its rules."""
        return self._patch(f"role/{int(role_id)}", {"name": name, "description": description, "rules": rules})

    def delete(self, role_id: int) -> Row:
        return self._delete(f"role/{int(role_id)}")


class StoreRule(InStore):
    @picks_rows
    def list(
        self,
        name: str | None = None,
        operation: str | None = None,
        role: int | None = None,
        username: str | None = None,
        serverUrl: str | None = None,  # noqa: N803 - vantage6's
        page: int = 1,
        per_page: int = 10,
        **_pick: Unpack[Filters],
    ) -> Row:
        """``username``: only the rules of this user, of this server or of the one at ``serverUrl``."""
        server = (serverUrl or self.parent.base_path) if username else None
        filters = {"name": name, "operation": operation, "role_id": role, "username": username, "server_url": server}
        return self._get("rule", page=page, per_page=per_page, **filters)


class StoreUser(InStore):
    """Users of servers who have roles at the store."""

    @picks_rows
    def list(
        self,
        username: str | None = None,
        role: int | None = None,
        page: int = 1,
        per_page: int = 10,
        **_pick: Unpack[Filters],
    ) -> Row:
        return self._get("user", username=username, role_id=role, page=page, per_page=per_page)

    @picks_fields
    def get(self, id_: int, **_pick: Unpack[Fields]) -> Row:
        return self._get(f"user/{int(id_)}")

    @picks_fields
    def register(self, username: str, roles: Ids, **_pick: Unpack[Fields]) -> Row:
        """Gives a user of this server roles at the store."""
        return self._post("user", {"username": username, "roles": roles})

    @picks_fields
    def update(self, id_: int, roles: Ids, **_pick: Unpack[Fields]) -> Row:
        """``roles`` are then all of theirs."""
        return self._patch(f"user/{int(id_)}", {"roles": roles})

    def delete(self, id_: int) -> Row:
        return self._delete(f"user/{int(id_)}")


class StorePolicy(InStore):
    @picks_fields
    def get(self, public: bool = False, **_pick: Unpack[Fields]) -> Row:
        """The store's policies, or those that everybody may see."""
        return self._get("policy/public" if public else "policy")


class Review(InStore):
    """What reviewers of the store say of algorithms."""

    @picks_rows
    def list(
        self,
        algorithm: int | None = None,
        reviewer: int | None = None,
        under_review: bool | None = None,
        reviewed: bool | None = None,
        approved: bool | None = None,
        rejected: bool | None = None,
        page: int = 1,
        per_page: int = 10,
        **_pick: Unpack[Filters],
    ) -> Row:
        """The flags keep reviews in these states."""
        whose = {"algorithm_id": algorithm, "reviewer_id": reviewer}
        states = {"under_review": under_review, "reviewed": reviewed, "approved": approved, "rejected": rejected}
        return self._get("review", page=page, per_page=per_page, **whose, **_set(states))

    @picks_fields
    def get(self, id_: int, **_pick: Unpack[Fields]) -> Row:
        return self._get(f"review/{int(id_)}")

    @picks_fields
    def create(self, algorithm: int, reviewer: int, **_pick: Unpack[Fields]) -> Row:
        """Asks a user of the store to review an algorithm."""
        return self._post("review", {"algorithm_id": algorithm, "reviewer_id": reviewer})

    def delete(self, id_: int) -> Row:
        return self._delete(f"review/{int(id_)}")

    def approve(self, id_: int, comment: str | None = None) -> Row:
        return self._post(f"review/{int(id_)}/approve", {"comment": comment})

    def reject(self, id_: int, comment: str | None = None) -> Row:
        return self._post(f"review/{int(id_)}/reject", {"comment": comment})


class Algorithm(InStore):
    """The algorithms of the store that ``client.store.set`` chose."""

    @picks_fields
    def get(self, id_: int, **_pick: Unpack[Fields]) -> Row:
        return self._get(f"algorithm/{int(id_)}")

    @picks_rows
    def list(
        self,
        name: str | None = None,
        description: str | None = None,
        image: str | None = None,
        partitioning: str | None = None,
        v6_version: str | None = None,
        awaiting_reviewer_assignment: bool | None = None,
        under_review: bool | None = None,
        in_review_process: bool | None = None,
        invalidated: bool | None = None,
        page: int = 1,
        per_page: int = 10,
        **_pick: Unpack[Filters],
    ) -> Row:
        """Those that are approved, or with a flag those in that state."""
        filters = {"name": name, "description": description, "image": image, "v6_version": v6_version}
        states = {
            "awaiting_reviewer_assignment": awaiting_reviewer_assignment,
            "under_review": under_review,
            "in_review_process": in_review_process,
            "invalidated": invalidated,
        }
        return self._get(
            "algorithm", page=page, per_page=per_page, partitioning=partitioning, **filters, **_set(states)
        )

    @picks_fields
    def create(
        self,
        name: str,
        description: str,
        image: str,
        partitioning: str,
        vantage6_version: str,
        code_url: str,
        functions: Rows,
        documentation_url: str | None = None,
        **_pick: Unpack[Fields],
    ) -> Row:
        """Submits an algorithm. ``partitioning``: ``horizontal`` or ``vertical``."""
        words = {"name": name, "description": description, "image": image, "partitioning": partitioning}
        links = {"code_url": code_url, "documentation_url": documentation_url or None}
        return self._post("algorithm", {**words, "vantage6_version": vantage6_version, "functions": functions, **links})

    @picks_fields
    def update(
        self,
        id_: int,
        name: str | None = None,
        description: str | None = None,
        image: str | None = None,
        partitioning: str | None = None,
        vantage6_version: str | None = None,
        code_url: str | None = None,
        documentation_url: str | None = None,
        functions: Rows | None = None,
        refresh_digest: bool | None = None,
        **_pick: Unpack[Fields],
    ) -> Row:
        """Changes what is given. ``refresh_digest``: have the store look up the image's digest again."""
        words = {"name": name, "description": description, "image": image, "partitioning": partitioning}
        links = {"code_url": code_url, "documentation_url": documentation_url}
        more = {"vantage6_version": vantage6_version, "functions": functions, "refresh_digest": refresh_digest}
        return self._patch(f"algorithm/{int(id_)}", {**words, **links, **more})

    @picks_fields
    def invalidate(self, id_: int, **_pick: Unpack[Fields]) -> Row:
        """Marks it as outdated; it can still be looked at."""
        return self._post(f"algorithm/{int(id_)}/invalidate", {})

    def delete(self, id_: int) -> Row:
        return self._delete(f"algorithm/{int(id_)}")


def _set(flags: dict[str, bool | None]) -> dict[str, Any]:
    """As the store reads them."""
    return cast("dict[str, Any]", {name: str(value) for name, value in flags.items() if value is not None})
