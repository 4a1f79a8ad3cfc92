"""The few REST calls that ``skerry dev`` makes, on the loopback interface."""

from __future__ import annotations

from typing import Any

import requests

from skerry.errors import ServerError, ServerUnreachable

API_PATH = "/api"
_SECONDS = 30


class Connection:
    """One user's session at the server. Every call raises ServerError or ServerUnreachable."""

    def __init__(self, url: str) -> None:
        self._base = f"{url}{API_PATH}"
        self._session = requests.Session()
        # Nothing from the environment: a proxy of the company has no business between us and loopback.
        self._session.trust_env = False

    def close(self) -> None:
        self._session.close()

    def log_in(self, username: str, password: str) -> None:
        answer = self.post("token/user", {"username": username, "password": password})
        self._session.headers["Authorization"] = f"Bearer {answer['access_token']}"

    def get(self, path: str, **parameters: str | int) -> Any:
        return self._call("GET", path, params=parameters)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("POST", path, json=body)

    def put(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("PUT", path, json=body)

    def _call(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = self._session.request(method, f"{self._base}/{path}", timeout=_SECONDS, **options)
        except requests.RequestException as error:
            raise ServerUnreachable(f"The server at {self._base} does not answer ({type(error).__name__}).") from error
        if not answer.ok:
            raise ServerError(f"{method} {path}: {_message(answer)}", answer.status_code)
        return answer.json()


def _message(answer: requests.Response) -> str:
    try:
        return f"{answer.json()['msg']} ({answer.status_code})"
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"
