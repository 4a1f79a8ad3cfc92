"""Trying the sandbox from inside, by the very path that runs take: no run is taken while it fails."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skerry.errors import SkerryError
from skerry.probes import PROBES, Answer, Probe
from skerry_node import areas, environment
from skerry_node.config import Config
from skerry_node.launchers.launcher import Attempt, Launcher, LauncherError, Spec, Vanished
from skerry_node.output import open_output
from skerry_node.sandbox import GVISOR

log = logging.getLogger(__name__)

RUN = 0
"""No run of a server has this number."""

PATIENCE = 300.0
_RETRY_SECONDS = 30.0
_ANSWER_BYTES = 1 << 16
_AREA_BYTES = 1 << 20

GVISOR_ANSWERS: Mapping[str, tuple[Answer, str]] = {
    "priority": (Answer.POSSIBLE, "its kernel keeps the number and gives it no effect"),
    "oom-protection": (Answer.POSSIBLE, "its kernel keeps the number and gives it no effect"),
    "dev-fuse": (Answer.POSSIBLE, "the device is its own kernel's, and can't be mounted"),
    "limit-memory": (Answer.POSSIBLE, "it shows no control groups inside; the engine bounds the sandbox as a whole"),
}
"""Where gVisor's own kernel answers otherwise, and why that is no harm."""

_REMEDIES: Mapping[str, str] = {
    "system call": "the engine does not apply the node's list of system calls; is it older than 20.10?",
    "socket": "the engine does not apply the node's list of system calls; is it older than 20.10?",
    "network": "the namespace that runs are started in is not empty; look at the engine's networks",
    "limit": "the engine does not apply the limits; look for cgroups in the output of docker info",
    "needed": "the sandbox is closer than algorithms can bear; look at the engine's log and its security modules",
}
_REMEDY = "the engine does not keep the sandbox's settings; look for default options in its daemon.json"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that isn't as it should be inside, and what to do about it."""

    sentence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.sentence}: {self.remedy}"


@dataclass(frozen=True, slots=True)
class Report:
    """``answers``: by the probe's name; none when the probe image could not be run."""

    problems: tuple[Problem, ...]
    answers: Mapping[str, str] = field(default_factory=dict)


def expected(probe: Probe, runtime: str) -> Answer:
    """What a probe answers in a sandbox that is as it should be."""
    return GVISOR_ANSWERS[probe.name][0] if runtime == GVISOR and probe.name in GVISOR_ANSWERS else probe.expected


def judge(answers: Mapping[str, str], runtime: str) -> Report:
    """Every probe has to answer as expected; one that is missing is one that failed."""
    problems = []
    for probe in PROBES:
        answer = answers.get(probe.name)
        if answer != expected(probe, runtime):
            problems.append(Problem(_sentence(probe, answer), _REMEDIES.get(probe.group, _REMEDY)))
    return Report(tuple(problems), answers)


def _sentence(probe: Probe, answer: str | None) -> str:
    if answer is None:
        return f"the probe image does not try {probe.name}; it is of another version"
    if answer == Answer.BROKEN:
        return f"the probe {probe.name} fails"
    return f"an algorithm {'can' if answer == Answer.POSSIBLE else 'can not'} {probe.what} ({probe.name})"


def inspect_sandbox(config: Config, launcher: Launcher, folder: Path, user: int) -> Report:
    """Runs the probe image as a run of its own. Does not raise: what keeps it from running is a problem too."""
    try:
        return judge(_try_probes(config.docker.probe_image, launcher, folder, user), config.docker.runtime)
    except (SkerryError, OSError, ValueError) as error:
        return Report((Problem("the probe image can't be run", str(error)),))


def _try_probes(reference: str, launcher: Launcher, folder: Path, user: int) -> dict[str, str]:
    """Once more where the namespace or the container is gone before its time, as for a run."""
    try:
        return _run_probes(reference, launcher, folder, user)
    except Vanished as error:
        log.warning("The sandbox is tried once more: %s", error)
        return _run_probes(reference, launcher, folder, user)


def _run_probes(reference: str, launcher: Launcher, folder: Path, user: int) -> dict[str, str]:
    image = launcher.resolve(reference)
    attempt = Attempt(RUN, secrets.randbelow(1 << 31))
    with _areas(folder / str(attempt), user) as (data, temporary):
        spec = Spec(attempt, RUN, image, data, temporary, user=user)
        _make_task_folder(spec.task_folder, user)
        try:
            with launcher.prepare(attempt):
                launcher.start(spec, environment.build(launcher.layout(spec), (), (), ()))
                _wait(launcher, attempt)
            return _read(spec, user)
        finally:
            launcher.remove(attempt)


@contextlib.contextmanager
def _areas(folder: Path, user: int) -> Iterator[tuple[Path, Path]]:
    """Folders as runs get them, gone afterwards."""
    folder.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    folder.mkdir(mode=0o711)
    data, temporary = folder / "data", folder / "temporary"
    try:
        areas.make(data, _AREA_BYTES, mode=0o755, user=None, group=None)
        areas.make(temporary, _AREA_BYTES, mode=0o700, user=user, group=user)
        yield data, temporary
    finally:
        for path in (data, temporary, folder):
            areas.remove(path)


def _make_task_folder(folder: Path, user: int) -> None:
    folder.mkdir(mode=0o700)
    (folder / "output").touch(mode=0o600)
    for path in (folder / "output", folder):
        os.chown(path, user, user)


def _wait(launcher: Launcher, attempt: Attempt) -> None:
    ended = launcher.poll(attempt, PATIENCE)
    if ended is None:
        launcher.stop(attempt)
        raise LauncherError(f"The probes do not come to an end in {PATIENCE:g} s.")
    if ended.code != 0 or ended.reason is not None:
        reason = ended.reason or f"exit code {ended.code}; its log ends: {launcher.logs(attempt)[-500:]}"
        raise LauncherError(f"The probes ended early ({reason}).")


def _read(spec: Spec, user: int) -> dict[str, str]:
    output = open_output(spec.task_folder, owner=user, limit=_ANSWER_BYTES)
    with os.fdopen(output.descriptor, "rb") as file:
        answers = json.loads(file.read(_ANSWER_BYTES))
    if not isinstance(answers, dict):
        raise LauncherError("The probes' answer is not an object of JSON.")
    return {str(name): str(answer) for name, answer in answers.items()}


def remove_leftovers(launcher: Launcher, folder: Path) -> None:
    """What a preflight that was killed left behind. Raises LauncherError."""
    for found in launcher.list():
        if found.attempt.run == RUN:
            launcher.remove(found.attempt)
    for attempt in folder.iterdir() if folder.is_dir() else ():
        for path in (attempt / "data", attempt / "temporary", attempt):
            areas.remove(path)


class Preflight:
    """Keeps trying. ``passed`` is None until the first answer, then whether the last one was good.

    ``tell`` hears of each; where it raises OSError, the next try comes soon.
    """

    def __init__(
        self,
        inspect: Callable[[], Report],
        seconds: float,
        on_change: Callable[[], None],
        closing: threading.Event,
        tell: Callable[[Report], None] = lambda _: None,
    ) -> None:
        self._inspect = inspect
        self._tell = tell
        self._seconds = seconds
        self._on_change = on_change
        self._closing = closing
        self._passed: bool | None = None
        self._thread = threading.Thread(target=self._keep_trying, name="preflight", daemon=True)

    @property
    def passed(self) -> bool | None:
        return self._passed

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Once ``closing`` is set: until nothing of it is under way."""
        if self._thread.is_alive():
            self._thread.join()

    def _keep_trying(self) -> None:
        while not self._closing.is_set():
            report = self._inspect()
            if self._closing.is_set():
                return
            self._judge(report)
            told = self._try_to_tell(report)
            self._closing.wait(self._seconds if self._passed and told else min(self._seconds, _RETRY_SECONDS))

    def _try_to_tell(self, report: Report) -> bool:
        """False on a full disk. What it takes runs by is what was found, whoever has heard of it."""
        try:
            self._tell(report)
        except OSError as error:
            log.warning("Whether the sandbox holds can't be written down: %s: make room on the disk", error)
            return False
        return True

    def _judge(self, report: Report) -> None:
        before, self._passed = self._passed, not report.problems
        for problem in report.problems:
            log.error("The sandbox does not hold: %s", problem)
        if report.problems:
            log.error("This node takes no runs until its sandbox holds; skerry node check says the same")
        elif not before:
            log.info("The sandbox holds: %s probes answered as they should", len(report.answers))
        if self._passed != before:
            self._on_change()
