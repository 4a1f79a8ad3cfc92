"""What may pass the WireGuard interface of a run: set by the node from outside, where the algorithm can't change it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Collection
from ipaddress import IPv4Address

from skerry_node.launchers.launcher import LauncherError
from skerry_node.namespace import inside
from skerry_node.wireguard import INSIDE

PROGRAM = "nft"
_PATIENCE = 60.0


def rules(peers: Collection[IPv4Address], ports: Collection[int]) -> str:
    """The whole table: all that is not named is dropped. The algorithm's own loopback stays as it is.

    Peers reach the declared ports by TCP and UDP. Which of a peer's ports can be reached is that peer's node's to say.
    """
    incoming = [
        *_if(peers, f'iifname "{INSIDE}" ip saddr @peers ct state established,related accept'),
        *_if(ports, f'iifname "{INSIDE}" ip saddr @peers tcp dport {_set(ports)} accept'),
        *_if(ports, f'iifname "{INSIDE}" ip saddr @peers udp dport {_set(ports)} accept'),
    ]
    elements = f" elements = {_set(peers)};" if peers else ""
    lines = [
        "table inet skerry",
        "delete table inet skerry",
        "table inet skerry {",
        f"set peers {{ type ipv4_addr;{elements} }}",
        "chain input { type filter hook input priority 0; policy drop;",
        'iifname "lo" accept',
        *incoming,
        "}",
        "chain forward { type filter hook forward priority 0; policy drop; }",
        "chain output { type filter hook output priority 0; policy drop;",
        'oifname "lo" accept',
        f'oifname "{INSIDE}" ip daddr @peers accept',
        "}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def close(namespace: int, peers: Collection[IPv4Address], ports: Collection[int]) -> None:
    """Puts the rules in force, in one step, in the namespace of this descriptor. Raises LauncherError."""
    try:
        done = inside(namespace, lambda: _load(rules(peers, ports)))
    except (OSError, subprocess.SubprocessError) as error:
        raise LauncherError(f"{PROGRAM} can't be run: {error}.") from error
    if done.returncode:
        raise LauncherError(f"nftables does not take the rules of a run: {done.stderr.strip()}.")


def _load(text: str) -> subprocess.CompletedProcess[str]:
    command = [PROGRAM, "-f", "-"]
    return subprocess.run(command, input=text, text=True, capture_output=True, timeout=_PATIENCE, check=False)


def missing() -> str | None:
    """Why this machine can't close a namespace, in one sentence; None when it can."""
    if shutil.which(PROGRAM) is None:
        return f"{PROGRAM} is not installed (apt-get install nftables)"
    return None


def _if(needed: Collection[object], line: str) -> list[str]:
    return [line] if needed else []


def _set(values: Collection[object]) -> str:
    return f"{{ {', '.join(sorted(map(str, values)))} }}"
