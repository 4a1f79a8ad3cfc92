"""``skerry algorithm``: make one, build its image, hear what a node will say of it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from skerry import images, inspection, scaffold
from skerry.images import Image

_folder = click.argument("folder", type=click.Path(path_type=Path))


@click.group()
def algorithm() -> None:
    """Make an algorithm, build its image, check what a node will say of it."""


@algorithm.command()
@_folder
def new(folder: Path) -> None:
    """Write a first algorithm with its test into FOLDER."""
    for path in scaffold.write(folder):
        click.echo(str(path))


@algorithm.command()
@_folder
@click.option("--tag", help="The image's name; default: the folder's.")
@click.option("--base", help="Another base image than skerry/algorithm-base.")
@click.option("--push", is_flag=True, help="Push it to its registry, and print its digest there.")
@click.option(
    "--launcher",
    type=click.Choice(["docker", "process"]),
    default="docker",
    show_default=True,
    help="process: keep the folder for nodes of `skerry dev` that start plain processes.",
)
@click.option("--registry", type=click.Path(path_type=Path), help="Where the process launcher keeps its folders.")
def build(  # noqa: PLR0917 - one for each option
    folder: Path, tag: str | None, base: str | None, push: bool, launcher: str, registry: Path | None
) -> None:
    """Build an image from FOLDER: by its Dockerfile, or without one from its one Python package.

    Prints the image's name, and its digest in a registry or its id in the engine, to run it by or to allow at a node.
    """
    name = tag or folder.absolute().name.lower()
    if launcher == "process":
        _print(images.register(folder, name, registry or default_registry()))
    else:
        _print(images.build(folder, name, base=base, push=push))


@algorithm.command()
@click.argument("target", metavar="IMAGE|FOLDER")
@click.pass_context
def check(context: click.Context, target: str) -> None:
    """Say what a node will say of an image or a folder. Exit status 1 when it would refuse it."""
    findings = inspection.check(target)
    for finding in findings:
        click.echo(f"{finding.verdict:<8} {finding.sentence}")
    context.exit(int(any(finding.verdict == "refused" for finding in findings)))


def default_registry() -> Path:
    """Where this user's nodes of `skerry dev` look for algorithms of the process launcher."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "skerry" / "process-images"


def _print(image: Image) -> None:
    click.echo(f"{image.name}@{image.digest}" if image.digest else f"{image.name} {image.id}")
