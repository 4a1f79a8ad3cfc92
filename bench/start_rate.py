"""How many no-op runs a node gets done in a second, all asked for at once.

The reference: the engine alone creates, starts, awaits and removes containers of the same image under the same sandbox
(the whole host configuration of a run's container, without the namespace that the run joins), as many in parallel.
`COUNT=20 make bench-start_rate` asks for fewer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import measuring

from skerry import UserClient
from skerry.dev import Federation

COUNT = int(os.environ.get("COUNT", "200"))
PARALLEL = 4
_ASKING = 8


def runs_a_second(made: Federation, client: UserClient, image: str, count: int) -> float:
    def all_of_them() -> None:
        with ThreadPoolExecutor(_ASKING) as pool:
            clients = [made.client() for _ in range(_ASKING)]
            asked = pool.map(
                lambda n: measuring.ask(clients[n % _ASKING], made, image, "step", number=n)["id"], range(count)
            )
            tasks = list(asked)
        for number, task in enumerate(tasks):
            assert client.task.get(task).wait(progress=False).results() == [number]

    return count / measuring.seconds(all_of_them)


def sandbox_of_a_run(made: Federation, client: UserClient, image: str, api: docker.APIClient) -> dict[str, Any]:
    """What the engine says of a container while it runs."""
    task = measuring.ask(client, made, image, "rest", seconds=600)
    try:
        while not (found := api.containers(filters={"ancestor": image, "status": "running"})):
            pass
        described: dict[str, Any] = api.inspect_container(found[0]["Id"])
        return described
    finally:
        task.kill()
        task.wait(progress=False)


def containers_a_second(api: docker.APIClient, described: dict[str, Any], count: int) -> float:
    config, host = described["Config"], described["HostConfig"]
    user = int(config["User"].partition(":")[0])

    def one(folder: Path) -> None:
        mount = {"Type": "bind", "Source": str(folder), "Target": "/mnt/data"}
        settings = {**host, "NetworkMode": "none", "Mounts": [mount]}
        names = ("Image", "User", "Env", "Cmd", "Entrypoint", "WorkingDir", "Healthcheck")
        body = {name: config.get(name) for name in names} | {"HostConfig": settings}
        container = api.create_container_from_config(body)["Id"]
        api.start(container)
        assert api.wait(container)["StatusCode"] == 0
        api.remove_container(container)

    with tempfile.TemporaryDirectory(prefix="skerry-bench-") as home, ThreadPoolExecutor(PARALLEL) as pool:
        Path(home).chmod(0o711)
        folders = [_make_folder(Path(home), number, config["Env"], user) for number in range(count)]
        return count / measuring.seconds(lambda: list(pool.map(one, folders)))


def _make_folder(home: Path, number: int, variables: list[str], user: int) -> Path:
    """As a run finds it, with another function to call."""
    folder = home / str(number)
    task = next(measuring.decode(one.partition("=")[2]) for one in variables if one.startswith("INPUT_FILE="))
    inner = folder / Path(task).parent.relative_to("/mnt/data")
    inner.mkdir(parents=True)
    (inner / "input").write_text('{"method": "step", "args": [], "kwargs": {"number": 1}}')
    for name in ("output", "token"):
        (inner / name).touch()
    for path in (folder, inner, *inner.iterdir()):
        shutil.chown(path, user, user)
    return folder


def measure() -> tuple[float, float]:
    image = measuring.build("rounds")
    with measuring.federation(1, limits={"parallel_runs": PARALLEL}) as made, docker.APIClient(_engine()) as api:
        client = made.client()
        described = sandbox_of_a_run(made, client, image, api)
        runs_a_second(made, client, image, PARALLEL)
        return runs_a_second(made, client, image, COUNT), containers_a_second(api, described, COUNT)


def _engine() -> str | None:
    command = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    asked = subprocess.run(command, capture_output=True, text=True, check=True)
    return os.environ.get("DOCKER_HOST") or asked.stdout.strip()


def report(runs: float, containers: float) -> None:
    rows = [["runs of a node", f"{runs:.2f}"], ["containers of the engine alone", f"{containers:.2f}"]]
    measuring.table([f"{COUNT} at {PARALLEL} in parallel", "a second"], rows)
    reference = "the engine alone, same sandbox and parallelism"
    measuring.tell("start_rate", runs, "1/s", reference, containers, n=COUNT)


if __name__ == "__main__":
    report(*measure())
