"""The client of a user's script: log in, set up encryption, create tasks, read their results.

The names and shapes are those of vantage6 4.x's UserClient; what it answers with an error's JSON is raised here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from skerry.calls import REPEATABLE, Call
from skerry.errors import ConfigurationError, Conflict, KeyChanged, MissingExtra
from skerry.session import Session
from skerry.transport import Transport, is_loopback

try:
    from skerry.payloads import Collaboration, Keyring, Owner, Payloads, TaskFacts
    from skerry.runs import Result, Run
    from skerry.stores import Algorithm, Store
    from skerry.subclients import CollaborationCalls, Node, Organization, Role, Rule, Study, User, Util
    from skerry.tasks import Task, TaskHandle
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "cryptography":
        raise
    raise MissingExtra("client", "UserClient") from error


class UserClient:
    """Raises ServerError or a subclass, ServerUnreachable, CryptoError and ConfigurationError, with a sentence."""

    def __init__(
        self,
        host: str,
        port: int,
        path: str = "/api",
        log_level: str = "info",  # noqa: ARG002 - vantage6's
        *,
        ca_file: str | None = None,
        allow_http: bool = False,
    ) -> None:
        """``host`` with its scheme, such as ``https://server.example.org``.

        ``ca_file``: certificates of a private authority. ``allow_http``: send passwords to another machine without
        encryption.
        """
        self._allow_http, self._verify = allow_http, ca_file or True
        self.host, self.port, self.path = host.rstrip("/"), int(port), f"/{path.strip('/')}"
        self.check_address(self.host)
        self._transport = self._transport_to(f"{self.host}:{self.port}{self.path}")
        self.session = Session(self._transport)
        self._payloads: Payloads | None = None
        self._name = ""
        self._default_collaboration: int | None = None
        self._collaborations: dict[int, Collaboration] = {}
        self.task = Task(self)
        self.run = Run(self)
        self.result = Result(self)
        self.organization = Organization(self)
        self.collaboration = CollaborationCalls(self)
        self.study = Study(self)
        self.node = Node(self)
        self.user = User(self)
        self.role = Role(self)
        self.rule = Rule(self)
        self.util = Util(self)
        self.store = Store(self)
        self.algorithm = Algorithm(self)

    @property
    def base_path(self) -> str:
        """The address of the server's API."""
        return self._transport.base_url

    @property
    def token(self) -> str:
        """The access token. Raises AuthenticationError before the login."""
        return self.session.tokens.access

    @property
    def headers(self) -> dict[str, str]:
        """What a request of your own needs to be let in."""
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def name(self) -> str:
        """Your user name. Raises AuthenticationError before the login."""
        self.session.tokens  # noqa: B018 - raises
        return self._name

    @property
    def collaboration_id(self) -> int | None:
        """The one of ``setup_collaboration``."""
        return self._default_collaboration

    @property
    def organization_id(self) -> int:
        return self.payloads.owner.organization_id

    @property
    def user_id(self) -> int:
        return self.payloads.owner.user_id

    @property
    def payloads(self) -> Payloads:
        """Raises AuthenticationError before the login."""
        if self._payloads is None:
            self.session.tokens  # noqa: B018 - raises
            raise ConfigurationError("The log-in did not end well: call authenticate again.")
        return self._payloads

    def authenticate(self, username: str, password: str, mfa_code: str | int | None = None) -> None:
        """Logs in; raises AuthenticationError with what may be wrong."""
        self._become(self.session.log_in(username, password, None if mfa_code is None else str(mfa_code)))

    def resume(self, refresh_token: str) -> None:
        """Goes on with an earlier login, ``session.tokens.refresh``; raises AuthenticationError when it has expired."""
        self._become(self.session.resume(refresh_token))

    def refresh_token(self) -> None:
        """Renews the access token, which every call does by itself in time."""
        self.session.resume(self.session.tokens.refresh)

    def _become(self, user_id: int) -> None:
        user = self.session.json(Call("GET", f"user/{user_id}", repeatable=True))
        self._name = str(user.get("username") or "")
        owner = Owner(int(user["organization"]["id"]), user_id)
        self._payloads = Payloads(owner, self._keys_in)

    def setup_encryption(self, private_key_file: str | Path | None, *, require_confirmed_keys: bool = False) -> None:
        """From here on inputs are encrypted and signed with the keys in this file; None: nothing is.

        Registers the organization's keys at the server when it has none there. Keys of other organizations are
        pinned, beside the key file, when they are first seen; with ``require_confirmed_keys`` only those are used
        that have been confirmed with ``skerry key confirm``. Raises KeyFileError for an unusable file, KeyChanged
        when the organization has registered other keys.
        """
        owner, keyring = self.payloads.owner, None
        if private_key_file is not None:
            keyring = Keyring.open(Path(private_key_file), require_confirmed=require_confirmed_keys)
            self._register(keyring, owner.organization_id, str(private_key_file))
        self._payloads = Payloads(owner, self._keys_in, keyring)

    def setup_collaboration(self, collaboration_id: int) -> None:
        """The collaboration of all calls that don't name another; raises NotFound when there is none."""
        self._default_collaboration = self.facts_of(collaboration_id).id

    def wait_for_results(self, task_id: int, interval: float = 1) -> dict[str, Any]:  # noqa: ARG002 - vantage6's; a push needs none
        """Waits until all runs of a task have ended; then what ``result.from_task`` gives.

        ``task.get(task_id).wait().results()`` gives Python objects. Raises TaskFailed when a run has failed; what the
        others returned is in ``result.from_task``.
        """
        self.task.get(task_id).wait().check()
        return self.result.from_task(task_id)

    def check_if_blob_store_enabled(self) -> bool:
        """Whether the server keeps inputs and results of vantage6's clients as blobs; this client does not mind."""
        return bool(self.request("blobstream/status").get("blob_store_enabled"))

    def generate_path_to(self, endpoint: str, is_for_algorithm_store: bool = False) -> str:
        """The address of a path below the server's API, or the chosen algorithm store's."""
        base = self.store.chosen_url() if is_for_algorithm_store else self.base_path
        return f"{base.rstrip('/')}/{endpoint.lstrip('/')}"

    def request(
        self,
        endpoint: str,
        json: Any = None,
        method: str = "get",
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        is_for_algorithm_store: bool = False,
    ) -> Any:
        """One call, answered as JSON. Repeated, when no answer comes, only if that does no harm."""
        verb = method.upper()
        call = Call(verb, endpoint, json=json, params=params, headers=headers, repeatable=verb in REPEATABLE)
        return self.send_to_store(call) if is_for_algorithm_store else self.session.json(call)

    def without_token(self, call: Call) -> Any:
        """The answer to a call that needs no log-in."""
        return self._transport.json(call)

    def send_to_store(self, call: Call) -> Any:
        """The chosen algorithm store's answer; it asks this server who you are. Raises as ``request`` does."""
        headers = {**(call.headers or {}), "Server-Url": self.base_path}
        return self.session.json(replace(call, headers=headers), self._transport_to(self.store.chosen_url()))

    def check_address(self, url: str) -> None:
        """Raises ConfigurationError for an address that a password or token must not be sent to."""
        if not url.startswith(("https://", "http://")):
            raise ConfigurationError(f'The host "{url}" lacks its scheme: https://{url}, or http:// on this machine.')
        if url.startswith("http://") and not self._allow_http and not is_loopback(url):
            raise ConfigurationError(
                f"{url} is another machine: use https (or allow_http=True on a network you trust)."
            )

    def _transport_to(self, url: str) -> Transport:
        return Transport(url, verify=self._verify)

    def collaboration_or_default(self, collaboration: int | None) -> int | None:
        return self._default_collaboration if collaboration is None else int(collaboration)

    def facts_of(self, collaboration_id: int) -> Collaboration:
        """What a collaboration demands of payloads; asked of the server once. Raises NotFound."""
        if collaboration_id not in self._collaborations:
            answer = self.request(f"collaboration/{int(collaboration_id)}")
            self._collaborations[collaboration_id] = Collaboration.of(answer)
        return self._collaborations[collaboration_id]

    def forget_collaboration(self, collaboration_id: int) -> None:
        """For when it is about to change."""
        self._collaborations.pop(int(collaboration_id), None)

    def open(self, stored: bytes, direction: str, task: Mapping[str, Any], organization: int) -> bytes:
        """The plaintext of a result or log that an organization's run made for a task; raises CryptoError."""
        return self.payloads.open(stored, direction, self._facts(task), organization)

    def open_result(self, stored: Iterable[bytes], task: Mapping[str, Any], organization: int) -> Iterator[bytes]:
        """The same of a result, piece by piece: to be believed only when it has ended without raising."""
        return self.payloads.open_stream(stored, "result", self._facts(task), organization)

    def open_input(self, stored: bytes, task: Mapping[str, Any]) -> bytes:
        """The plaintext of an input that was made for the user's organization; raises CryptoError."""
        return self.payloads.open_input(stored, self._facts(task))

    def _facts(self, task: Mapping[str, Any]) -> TaskFacts:
        collaboration = self.facts_of(int(task["collaboration"]["id"]))
        return TaskFacts(str(task["uuid"]), collaboration, str(task["image"]), format=task.get("format"))

    def _keys_in(self, collaboration_id: int) -> list[dict[str, Any]]:
        return list(self.request("skerry/keys", params={"collaboration_id": collaboration_id})["data"])

    def _register(self, keyring: Keyring, organization_id: int, file: str) -> None:
        registered = str(self.request(f"organization/{organization_id}").get("public_key") or "")
        if keyring.identity.certificate is not None:
            keyring.check_certified(organization_id, registered, file)
            return
        keys = keyring.identity.organization_keys(organization_id)
        try:
            self.request(f"skerry/organization/{organization_id}/keys", json=keys, method="put")
        except Conflict as error:
            raise KeyChanged(
                f"Your organization has registered other keys at the server than those in {file}. Use the key file of "
                "your organization; if its keys really changed, its administrator has to replace the registered ones."
            ) from error


Client = UserClient
"""vantage6's other name for it."""
__all__ = ["Client", "TaskHandle", "UserClient"]
