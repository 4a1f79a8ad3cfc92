"""Pulling from a registry that wants a log-in: a real one, on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from skerry_node.config import DockerSettings, KeepImages, Limits, Registry
from skerry_node.launchers.docker import DockerLauncher
from skerry_node.launchers.launcher import Image, ImageNotFound
from skerry_node.pulled import PulledImages

pytestmark = pytest.mark.integration
PASSWORD = "correct horse battery"


@dataclass
class Served:
    """A registry with one image in it that the engine has not got, under ``reference``."""

    host: str
    reference: str
    digest: str


@pytest.fixture(scope="module")
def registry(registry_programs: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("registry")
    made = subprocess.run(["htpasswd", "-Bbn", "node", PASSWORD], capture_output=True, check=True)
    (folder / "users").write_bytes(made.stdout)
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "config.yml").write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http: {{addr: '{host}'}}\nauth: {{htpasswd: {{realm: here, path: {folder}/users}}}}\n"
    )
    serve = ["docker-registry", "serve", str(folder / "config.yml")]
    with subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(host, process)
        yield host
        process.terminate()


def wait_for(host: str, process: subprocess.Popen[bytes]) -> None:
    address, port = host.split(":")
    end = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection((address, int(port)), timeout=5).close()
        except OSError:
            assert process.poll() is None, "the registry has ended"
            assert time.monotonic() < end, "the registry does not answer"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def served(registry: str, images: object) -> Iterator[Served]:
    reference = f"{registry}/team/mean:1"
    with closing(docker.from_env()) as client:
        build = ["docker", "build", "-q", "-t", reference, "-"]
        dockerfile = f"FROM skerry/holder\nLABEL made-for={registry}\n"
        subprocess.run(build, input=dockerfile.encode(), check=True, capture_output=True)
        pushed = list(client.api.push(reference, stream=True, decode=True, auth_config=login(PASSWORD)))
        [digest] = [line["aux"]["Digest"] for line in pushed if "aux" in line]
        client.images.remove(reference, force=True)
        yield Served(registry, reference, digest)
        subprocess.run(["docker", "rmi", "-f", reference], check=False, capture_output=True)


def login(password: str) -> dict[str, str]:
    return {"username": "node", "password": password}


@pytest.fixture
def launcher(served: Served, tmp_path: Path) -> Iterator[Callable[..., DockerLauncher]]:
    made: list[DockerLauncher] = []

    def make(password: str | None = PASSWORD, pull: str = "missing", **more: object) -> DockerLauncher:
        secret = tmp_path / "password"
        secret.write_text(f"{password}\n")
        login = Registry(registry=served.host, username="node", password_file=secret)
        host, logins = os.environ.get("DOCKER_HOST"), (login,) if password else ()
        settings = DockerSettings(host=host, pull=pull, holder_pool=0, registries=logins, **more)
        made.append(DockerLauncher(settings, Limits(), "abcdef543210", "registry"))
        return made[-1]

    yield make
    for one in made:
        one.close()
    subprocess.run(["docker", "rmi", "-f", served.reference], check=False, capture_output=True)


def tidy(made: DockerLauncher, state: Path, image: Image, *, idle_days: float, needed: tuple[str, ...] = ()) -> bool:
    """Whether the image is still there after the node tidied, that long after it was used."""
    pulled = PulledImages(state)
    (state / "images.json").unlink(missing_ok=True)
    pulled.note_use(image.id, image.reference, time.time() - idle_days * 86400, new=image.new)
    made.tidy(pulled, needed)
    shown = subprocess.run(["docker", "image", "inspect", image.id], check=False, capture_output=True)
    return shown.returncode == 0


def test_an_image_that_the_node_pulled_goes_when_no_run_used_it(launcher, served, tmp_path) -> None:
    made = launcher(keep_images=KeepImages(days=30))
    image = made.resolve(served.reference)
    assert image.new
    assert tidy(made, tmp_path, image, idle_days=29)
    assert not made.resolve(served.reference).new
    assert tidy(made, tmp_path, image, idle_days=400, needed=(image.id,))
    assert not tidy(made, tmp_path, image, idle_days=31)
    assert PulledImages(tmp_path).list() == ()


def test_an_image_that_the_owner_has_stays(launcher, served, tmp_path) -> None:
    made = launcher(keep_images=KeepImages(days=0, size=4096), pull="always")
    first = launcher().resolve(served.reference)
    again = made.resolve(served.reference)
    assert not again.new  # it was on the machine before this node asked for it
    assert tidy(made, tmp_path, again, idle_days=400)
    subprocess.run(["docker", "tag", served.reference, f"{served.host}/mine:1"], check=True)
    try:
        assert tidy(made, tmp_path, first, idle_days=400)  # the node's name for it is gone, the owner's holds it
    finally:
        subprocess.run(["docker", "rmi", "-f", f"{served.host}/mine:1"], check=True, capture_output=True)


def test_an_image_that_a_container_is_made_of_stays(launcher, served, tmp_path) -> None:
    made = launcher(keep_images=KeepImages(size=4096))
    image = made.resolve(served.reference)
    create = ["docker", "create", "--network", "none", served.reference]
    container = subprocess.run(create, check=True, capture_output=True, text=True).stdout.strip()
    try:
        assert tidy(made, tmp_path, image, idle_days=400)
    finally:
        subprocess.run(["docker", "rm", "-f", container], check=True, capture_output=True)
    assert not tidy(made, tmp_path, image, idle_days=400)


def test_a_node_that_may_pulls_by_tag_and_by_digest(launcher, served) -> None:
    image = launcher().resolve(served.reference)
    assert served.digest in image.digests
    again = launcher().resolve(f"{served.host}/team/mean@{served.digest}")
    assert again.id == image.id


@pytest.mark.parametrize("password", ["wrong", None])
def test_a_node_that_may_not_says_so_and_no_secret(launcher, served, password, caplog) -> None:
    with pytest.raises(ImageNotFound, match="does not take the node's log-in, or needs one") as caught:
        launcher(password).resolve(served.reference)
    assert "docker.registries" in caplog.text
    for text in (caplog.text, str(caught.value)):
        assert "wrong" not in text
        assert "battery" not in text


def test_a_changed_password_needs_no_restart(launcher, served, tmp_path) -> None:
    made = launcher("wrong")
    with pytest.raises(ImageNotFound):
        made.resolve(served.reference)
    (tmp_path / "password").write_text(PASSWORD)
    assert made.resolve(served.reference)


def test_a_password_file_that_is_gone(launcher, served, tmp_path) -> None:
    made = launcher()
    (tmp_path / "password").unlink()
    with pytest.raises(ImageNotFound, match="can't log in to the registry"):
        made.resolve(served.reference)


def test_pull_policies(launcher, served) -> None:
    with pytest.raises(ImageNotFound, match="the node pulls none"):
        launcher(pull="never").resolve(served.reference)
    image = launcher().resolve(served.reference)
    assert launcher(pull="never").resolve(served.reference).id == image.id
    assert launcher("wrong").resolve(served.reference).id == image.id
    with pytest.raises(ImageNotFound, match="log-in"):  # what is here does not do where each run has to be confirmed
        launcher("wrong", pull="always").resolve(served.reference)
    assert launcher(pull="always").resolve(served.reference).id == image.id
