"""What a machine must be able to do for a node, each with its remedy."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker

from skerry.errors import SkerryError
from skerry_node import areas, vpn
from skerry_node.config import Config, Database
from skerry_node.launchers.choice import make_launcher
from skerry_node.launchers.docker import connect, require_runtime
from skerry_node.launchers.process import list_missing
from skerry_node.policies import Policies
from skerry_node.preflight import Report, inspect_sandbox, remove_leftovers
from skerry_node.services import Address
from skerry_node.users import default_base, preflight_user
from skerry_proxy.destinations import Destination, dial


@dataclass(frozen=True, slots=True)
class Finding:
    """``needed``: without it the node does not start, or no run completes."""

    what: str
    good: bool
    remedy: str = ""
    needed: bool = True


def check_machine(config: Config) -> list[Finding]:
    """All findings but the sandbox's; asks the engine, starts nothing."""
    findings = [Finding("configuration, key files and databases", good=True)]
    findings += _check_docker(config) if config.launcher == "docker" else _check_process()
    findings += [_check_database(database) for database in config.databases]
    findings += [_check_destination(f'gate "{gate.name}"', gate.destination) for gate in config.gates]
    findings += _check_vpn(config)
    findings.append(_check_policy(config))
    findings += [_relaxation(str(relaxation)) for relaxation in config.policies.relaxations]
    return findings


def try_sandbox(config: Config) -> Report:
    """Runs the probe image as a node does before it takes runs. Raises LauncherError, ConfigurationError."""
    installation = secrets.token_hex(6)  # of its own: a node that runs meanwhile does not take it for its own
    folder = config.state_folder / "check"
    alone = config.docker.model_copy(update={"holder_pool": 0})
    launcher = make_launcher(config.model_copy(update={"docker": alone}), installation)
    try:
        remove_leftovers(launcher, folder)
        user = preflight_user(config.uid_base or default_base(installation))
        return inspect_sandbox(config, launcher, folder, user)
    finally:
        launcher.close()


def judge_sandbox(report: Report) -> list[Finding]:
    """The report as findings: a line for each problem, or one for all."""
    what = f"the sandbox holds: {len(report.answers)} probes tried from inside"
    problems = [Finding(one.sentence, good=False, remedy=one.remedy) for one in report.problems]
    return problems or [Finding(what, good=True)]


def _check_docker(config: Config) -> Iterator[Finding]:
    yield Finding(
        "root with CAP_SYS_ADMIN, to enter the namespaces of runs",
        areas.mountable(),
        "start the node as root (in a container: with CAP_SYS_ADMIN and the host's pid namespace)",
    )
    try:
        api = connect(config.docker.host)
    except SkerryError as error:
        yield Finding("a Docker engine that answers", good=False, remedy=str(error))
        return
    with api:
        yield Finding(f"a Docker engine that answers (version {api.version()['Version']})", good=True)
        image = config.docker.holder_image
        there = bool(api.images(image))
        yield Finding(f"the image {image}, which holds the runs' namespaces", there, "build it with: make images")
        yield _check_runtime(api, config.docker.runtime)


def _check_runtime(api: docker.APIClient, runtime: str) -> Finding:
    what = f"the engine's runtime {runtime}"
    try:
        require_runtime(api, runtime)
    except SkerryError as error:
        return Finding(what, good=False, remedy=str(error))
    return Finding(what, good=True)


def _check_vpn(config: Config) -> Iterator[Finding]:
    """Whether the runs of this machine could have a VPN, where the owner allows it."""
    if config.policies.vpn != "allow":
        return
    reason, relay = vpn.missing(config.vpn), config.vpn.relay
    means = f"WireGuard (by {vpn.choose_driver().name}) and nftables"
    means += "" if relay is None else f", and the relay at {relay.endpoint[0]} port {relay.endpoint[1]}"
    yield Finding(f"{means}, for runs that talk to their job's other runs", reason is None, reason or "")


def _relaxation(text: str) -> Finding:
    return Finding(f"the sandbox is relaxed: {text}", good=False, remedy="policies.relaxations", needed=False)


def _check_process() -> Iterator[Finding]:
    yield Finding("containers", good=False, remedy="the process launcher is for development only", needed=False)
    for phrase in list_missing():
        what, _, reason = phrase.partition(": ")
        yield Finding(f"separated: {what}", good=False, remedy=reason, needed=False)


def _check_database(database: Database) -> Finding:
    if isinstance(database.uri, Address):
        return _check_destination(f'database "{database.label}"', database.uri.destination)
    return _check_file(f'database "{database.label}" ({database.uri})', database.uri)


def _check_destination(what: str, destination: Destination) -> Finding:
    """Whether somebody listens there, now and seen from here."""
    try:
        dial(destination).close()
    except OSError as error:
        remedy = (
            f"nobody answers there ({error.strerror or error}): is the address right, and does it let this machine in?"
        )
        return Finding(f"{what} ({destination}) reachable", good=False, remedy=remedy, needed=False)
    return Finding(f"{what} ({destination}) reachable", good=True)


def _check_file(what: str, path: Path) -> Finding:
    """Complains of both extremes: data that no run can read, and data that everybody on the machine can."""
    mode = path.stat().st_mode
    if not mode & 0o044:
        remedy = "no run can read it: give it a group of its own, set data_group to that, and chmod g+r"
        return Finding(f"{what} readable for runs", good=False, remedy=remedy, needed=False)
    reachable = all(parent.stat().st_mode & 0o001 for parent in path.parents)
    if mode & 0o004 and reachable and os.geteuid() == 0:
        remedy = "everybody on this machine can read it: give it a group, set data_group to that, and chmod o="
        return Finding(f"{what} closed to other users", good=False, remedy=remedy, needed=False)
    return Finding(what, good=True)


def _admits_every_image(policies: Policies) -> bool:
    rules = policies.allowed_algorithms
    return rules is None or any(rule.algorithm in {".*", ".+"} and not rule.approve_first for rule in rules)


def relaxations(config: Config) -> Iterator[str]:
    """What the configuration allows that a careful owner would not; each as it stands in the audit journal."""
    policies = config.policies
    if _admits_every_image(policies):
        yield "every image may run"
    if policies.unsigned_tasks == "allow":
        yield "unsigned tasks are admitted"
    if not policies.require_confirmed_keys:
        yield "the first use of an organization's keys is trusted"
    if config.launcher == "process":
        yield "no containers: the process launcher"
    if policies.vpn == "allow":
        yield "runs may talk to the other runs of their job"


def _check_policy(config: Config) -> Finding:
    return Finding(
        "only named images are allowed",
        good=not _admits_every_image(config.policies),
        remedy="every image may run here: list the ones you trust in policies.allowed_algorithms",
        needed=False,
    )
