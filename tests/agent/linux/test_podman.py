"""The command lines given to `podman`, and what is made of its answers."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent.linux.podman import Podman, container_name, parse_listing
from fleet.capabilities.containers import ContainerFact
from fleet.contracts.errors import Conflict, FleetError, NoSpace, NotFound, Refused, Unavailable
from fleet.contracts.ids import DeploymentName
from fleet.contracts.podman import Container

WEB, APP = DeploymentName("web"), DeploymentName("app")
CONTAINER = Container(name=APP, image="img:1", command=("serve", "--fast"), environment=(("A", "x y"),))


def engine(folder: Path, script: str) -> Podman:
    """An adapter whose `podman` is a shell script; it may use $LOG."""
    (folder / "podman").write_text(f"#!/bin/sh\nLOG={folder}/log\n{script}\n")
    (folder / "podman").chmod(0o755)
    return Podman({"PATH": f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin"}, storage=folder)


def listed(state: str, **labels: str) -> dict[str, object]:
    names = {f"io.nationtech.fleet.{key}": value for key, value in labels.items()}
    return {"Id": "1", "Image": "img:1", "State": state, "Labels": names, "Mounts": []}


def test_a_listing_is_sorted_and_read() -> None:
    output = json.dumps(
        [
            listed("exited", deployment="web", name="b", fingerprint="f2"),
            listed("running", deployment="web", name="a", fingerprint="f1"),
        ]
    ).encode()
    assert parse_listing(output) == (
        ContainerFact(WEB, DeploymentName("a"), "img:1", "f1", running=True),
        ContainerFact(WEB, DeploymentName("b"), "img:1", "f2", running=False),
    )
    assert parse_listing(b"[]") == ()


@pytest.mark.parametrize(
    "output", [b"", b"{}", b"[{}]", json.dumps([listed("running", deployment="Bad Name", name="a")]).encode()]
)
def test_another_listing_is_an_error(output: bytes) -> None:
    with pytest.raises(Unavailable):
        parse_listing(output)


def test_names_cannot_be_mixed_up() -> None:
    pairs = [("a-b", "c"), ("a", "b-c")]
    assert len({container_name(DeploymentName(one), DeploymentName(two)) for one, two in pairs}) == 2


def test_run_passes_everything_and_ends_the_options_before_the_image(tmp_path: Path) -> None:
    podman = engine(tmp_path, 'for word in "$@"; do echo "$word"; done > $LOG')
    asyncio.run(podman.run(WEB, CONTAINER, "f1"))
    words = (tmp_path / "log").read_text().splitlines()
    assert words[:5] == ["run", "--detach", "--pull=never", "--name", "fleet.web.app"]
    assert "io.nationtech.fleet.fingerprint=f1" in words
    assert words[words.index("--env") + 1] == "A=x y"
    assert words[words.index("--") :] == ["--", "img:1", "serve", "--fast"]


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("Error: the container name is already in use by 1a2b", Conflict),
        ("Error: crun: executable file not found in $PATH", Refused),
    ],
)
def test_a_run_that_fails(tmp_path: Path, message: str, error: type[FleetError]) -> None:
    podman = engine(tmp_path, f"echo $1 >> $LOG; [ $1 = rm ] || {{ echo '{message}' >&2; exit 125; }}")
    with pytest.raises(error):
        asyncio.run(podman.run(WEB, CONTAINER, "f1"))
    calls = (tmp_path / "log").read_text().split()
    assert calls == (["run"] if error is Conflict else ["run", "rm"])


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("reading manifest 1 in docker.io/library/x: manifest unknown", NotFound),
        ("dial tcp: lookup registry: no such host", Unavailable),
        ("writing blob: write /var/tmp/1: no space left on device", NoSpace),
    ],
)
def test_a_pull_that_fails(tmp_path: Path, message: str, error: type[FleetError]) -> None:
    podman = engine(tmp_path, f"[ $1 = image ] && exit 1; echo '{message}' >&2; exit 125")
    with pytest.raises(error):
        asyncio.run(podman.pull("img:1"))


def test_an_image_that_is_there_is_not_pulled(tmp_path: Path) -> None:
    podman = engine(tmp_path, "echo $1 >> $LOG")
    asyncio.run(podman.pull("img:1"))
    assert (tmp_path / "log").read_text().split() == ["image"]


def test_the_other_failures(tmp_path: Path) -> None:
    podman = engine(tmp_path, "echo 'Error: no container with name or ID \"x\" found: no such container' >&2; exit 125")

    async def told(act: Coroutine[Any, Any, object], error: type[FleetError]) -> None:
        with pytest.raises(error):
            await act

    asyncio.run(told(podman.start(WEB, APP), NotFound))
    asyncio.run(told(podman.remove(WEB, APP), Unavailable))
    asyncio.run(told(podman.present(), Unavailable))
