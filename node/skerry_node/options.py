"""What the verbs of ``skerry node`` share: how they are told of a configuration."""

from __future__ import annotations

import os
from pathlib import Path

import click

from skerry_node import config as configuration
from skerry_node.config import Config

CONFIG = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The node's configuration (YAML).",
)


def load(path: Path) -> Config:
    """The configuration, with the engine that DOCKER_HOST names where it names none. Raises ConfigurationError."""
    config = configuration.load(path)
    if config.launcher == "docker" and config.docker.host is None and os.environ.get("DOCKER_HOST"):
        docker = config.docker.model_copy(update={"host": os.environ["DOCKER_HOST"]})
        return config.model_copy(update={"docker": docker})
    return config
