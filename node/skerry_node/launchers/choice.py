"""Which launcher a configuration asks for."""

from __future__ import annotations

from skerry.errors import ConfigurationError
from skerry_node.config import Config
from skerry_node.launchers.docker import DockerLauncher
from skerry_node.launchers.launcher import Launcher
from skerry_node.launchers.process import ProcessLauncher


def make_launcher(config: Config, installation: str) -> Launcher:
    """Raises ConfigurationError, or LauncherError when the engine does not answer."""
    if config.launcher == "docker":
        relaxations = config.policies.relaxations
        return DockerLauncher(
            config.docker, config.limits, installation, config.name, relaxations, uid_base=config.uid_base
        )
    if not config.development or config.process is None:
        raise ConfigurationError("launcher: process is for nodes of skerry dev only; use docker.")
    return ProcessLauncher(config.process.registry, config.state_folder / "processes", config.limits)
