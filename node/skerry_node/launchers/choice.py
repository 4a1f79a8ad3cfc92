"""Which launcher a configuration asks for."""

from __future__ import annotations

from skerry.errors import ConfigurationError
from skerry_node.config import Config
from skerry_node.launchers.docker import DockerLauncher
from skerry_node.launchers.launcher import Launcher


def make_launcher(config: Config, installation: str) -> Launcher:
    """Raises ConfigurationError, or LauncherError when the engine does not answer."""
    if config.launcher == "docker":
        return DockerLauncher(config.docker, config.limits, installation, config.name)
    raise ConfigurationError("launcher: process")
