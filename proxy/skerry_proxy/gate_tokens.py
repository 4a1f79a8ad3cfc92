"""The token that a container shows at its own gate, and nowhere else: a JWT (HS256) with vantage6's claims."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from skerry_proxy.runs import Run


def mint_gate_token(run: Run) -> str:
    """The same token for the same run, whichever process makes it."""
    unsigned = f"{_encode({'alg': 'HS256', 'typ': 'JWT'})}.{_encode(_claims(run))}"
    signature = hmac.digest(run.secret, unsigned.encode("ascii"), hashlib.sha256)
    return f"{unsigned}.{_base64url(signature)}"


def is_gate_token(expected: str, shown: str) -> bool:
    """Compares in constant time."""
    return hmac.compare_digest(expected.encode("ascii"), shown.encode("utf-8", "replace"))


def _claims(run: Run) -> dict[str, Any]:
    """``sub`` is an object, and its keys are those that vantage6's clients read without verifying."""
    return {
        "fresh": False,
        "iat": run.opened,
        "nbf": run.opened,
        "jti": f"run-{run.id}-{run.attempt}",
        "type": "access",
        "aud": "gate",
        "client_type": "container",
        "roles": [],
        "run_id": run.id,
        "sub": {
            "client_type": "container",
            "node_id": run.node,
            "organization_id": run.organization,
            "collaboration_id": run.collaboration,
            "study_id": run.study,
            "store_id": run.store,
            "task_id": run.task,
            "image": run.image,
            "databases": list(run.databases),
        },
    }


def _encode(value: dict[str, Any]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":"), sort_keys=True).encode())


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
