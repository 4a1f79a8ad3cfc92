"""The images build here, with or without a registry, and are what they promise."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
BUILD = Path(__file__).parent.parent.parent / "docker" / "images.sh"
SERVICES = ("server", "proxy", "node")


@pytest.fixture(scope="module")
def service_images(images) -> None:
    built = subprocess.run([BUILD, *SERVICES], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr


def run(image: str, *command: str, options: tuple[str, ...] = ()) -> str:
    """In the least favourable circumstances: no network, nothing to write to, no rights."""
    bounds = ("--rm", "--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
    ended = subprocess.run(
        ["docker", "run", *bounds, *options, image, *command], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def python(image: str, program: str) -> str:
    return run(image, "-c", program, options=("--entrypoint=python3",))


def installed(image: str, *modules: str) -> list[str]:
    program = (
        f"import json; from importlib.util import find_spec; print(json.dumps([n for n in {modules} if find_spec(n)]))"
    )
    return json.loads(python(image, program))


def inspect(image: str) -> dict:
    shown = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=True).stdout
    return json.loads(shown)[0]


def test_the_base_has_what_algorithms_import(images) -> None:
    modules = "skerry.entrypoint, openpyxl, pandas, pyarrow.parquet, sqlalchemy"
    assert python("skerry/algorithm-base", f"import sys, {modules}; print(sys.version_info[:2])").strip() == "(3, 11)"


def test_the_base_is_not_root(images) -> None:
    assert python("skerry/algorithm-base", "import os; print(os.getuid() > 0 and os.getgid() > 0)").strip() == "True"


def test_the_base_ships_compiled(images) -> None:
    """A container with a read-only root can't write .pyc, and would compile at each start."""
    program = """
import json, pandas, skerry.wire, sys
from importlib.util import cache_from_source
from pathlib import Path
files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
print(json.dumps([file for file in files if file.endswith(".py") and not Path(cache_from_source(file)).exists()]))
"""
    assert json.loads(python("skerry/algorithm-base", program)) == []


def test_the_base_has_nothing_setuid(images) -> None:
    program = (
        "import os; print([path for folder, _, names in os.walk('/') if not folder.startswith(('/proc', '/sys'))"
        " for name in names if os.path.isfile(path := os.path.join(folder, name)) and os.stat(path).st_mode & 0o6000])"
    )
    assert python("skerry/algorithm-base", program).strip() == "[]"


def test_the_base_lacks_what_only_services_need(images) -> None:
    assert installed("skerry/algorithm-base", "flask", "docker", "skerry_server", "skerry_node") == []


def test_the_base_says_in_a_sentence_what_it_lacks(images) -> None:
    """Started by hand, without what a node puts into its environment."""
    ended = subprocess.run(
        ["docker", "run", "--rm", "skerry/algorithm-base"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "INPUT_FILE" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_the_holder_is_one_small_file_that_waits(images) -> None:
    shown = inspect("skerry/holder")
    assert shown["Size"] < 4_000_000
    assert shown["Config"]["User"] not in {"", "0", "root"}
    name = subprocess.run(
        ["docker", "run", "--detach", "--rm", "--network=none", "--read-only", "--cap-drop=ALL", "skerry/holder"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    try:
        state = subprocess.run(
            ["docker", "inspect", "-f", "{{.State.Running}}", name], capture_output=True, text=True, check=True
        )
        assert state.stdout.strip() == "true"
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=True)


def test_building_again_changes_nothing(images) -> None:
    before = [inspect(image)["Id"] for image in ("skerry/holder", "skerry/algorithm-base")]
    again = subprocess.run([BUILD], capture_output=True, text=True, check=True)
    assert again.stderr.count("up to date") == 3
    assert [inspect(image)["Id"] for image in ("skerry/holder", "skerry/algorithm-base")] == before


def test_an_image_that_there_is_not(images) -> None:
    wrong = subprocess.run([BUILD, "nothing"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "nothing" in wrong.stderr
    assert "algorithm-base" in wrong.stderr


@pytest.mark.parametrize(("image", "verb"), [("skerry/server", "bootstrap"), ("skerry/node", "check")])
def test_a_service_image_has_its_command(service_images, image, verb) -> None:
    assert verb in run(image, "--help")


@pytest.mark.parametrize("program", ["nft", "wireguard-go"])
def test_the_node_has_what_a_vpn_needs(service_images, program) -> None:
    assert "v" in run("skerry/node", "--version", options=(f"--entrypoint={program}",))


def test_server_and_proxy_are_not_root(service_images) -> None:
    for image in ("skerry/server", "skerry/proxy"):
        assert inspect(image)["Config"]["User"].split(":")[0] not in {"", "0", "root"}


def test_no_image_lets_anybody_log_in(service_images) -> None:
    """CVE-2024-21653: the images of the nearest peer came with an SSH server that took passwords."""
    program = (
        "import os, shutil; doors = ('sshd', 'dropbear', 'telnetd');"
        " print(any(map(shutil.which, doors)), os.path.exists('/etc/ssh'))"
    )
    for image in (*SERVICES, "algorithm-base"):
        assert python(f"skerry/{image}", program).split() == ["False", "False"]


def test_each_service_image_holds_its_own_part_only(service_images) -> None:
    parts = ("skerry_server", "skerry_proxy", "skerry_node")
    held = {image: installed(f"skerry/{image}", *parts) for image in SERVICES}
    assert held == {
        "server": ["skerry_server"],
        "proxy": ["skerry_proxy"],
        "node": ["skerry_proxy", "skerry_node"],
    }
