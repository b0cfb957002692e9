"""What a box's container is made of, as the engine's API takes it: every rule of its isolation is in here."""

from __future__ import annotations

import json
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from greenroom.sandbox.backend import MIB, BoxSpec
from greenroom.sandbox.docker.link import shared_folder

LEASE_LABEL: Final = "greenroom.lease"
OWNER_LABEL: Final = "greenroom.owner"

BOX_USER: Final = 10001
"""Who a box's processes are, inside and, with a rootful engine, outside too: nobody the host knows."""

BOX_FOLDER: Final = "/box"
"""Where a box's directory is mounted."""

PORT: Final = 8000
"""Where our tool server listens in a container whose port is published."""

OFFICIAL_PORT: Final = 80
OFFICIAL_TIMEOUT: Final = 86_400
"""Seconds that the official image's own front server gives a request. Longer than any call: its own 60 would end a
longer one as if the box were gone, while our client stops waiting by itself."""

SHARED_MEMORY: Final = 64 * MIB
FILES: Final = 16_384
"""Open files of a process. Engines refuse more than 20,000 where the host's own limit is that low."""

PROCESSES: Final = 31_000
"""Of one user on a host, where engines count so. What bounds one box is the limit of its pids."""

PODMANS_OWN: Final = ("/run", "/var/tmp")
"""Where Podman puts memory in containers whose root cannot be written to."""

NAME_PREFIX: Final = "greenroom-"


class ContainerPlan(Struct, frozen=True, kw_only=True):
    """What is the same for all boxes of a backend.

    `official`: the image is the official one, which needs root, a writable root and a network. `seccomp`: the profile,
    as this engine takes it. `port`: boxes are reached at a published port. `network`: the engine's network for that.
    `processes`: how many a user may have, which Podman otherwise sets to more than some hosts let it. `closed`: folders
    in which the engine would put memory without a bound.
    """

    image: str
    seccomp: str
    official: bool = False
    port: bool = False
    network: str = "bridge"
    trust: str = ""
    processes: int | None = None
    closed: tuple[str, ...] = ()


def container_name(lease: str) -> str:
    """Of the box with this lease: an engine has one container of a name, so no lease ever gets two."""
    return NAME_PREFIX + lease


def container_config(spec: BoxSpec, plan: ContainerPlan) -> dict[str, Any]:
    """The body of the request that creates the container."""
    return {
        "Image": plan.image,
        "Labels": {LEASE_LABEL: spec.lease, OWNER_LABEL: spec.owner},
        "Env": [f"{name}={value}" for name, value in environment(spec, plan).items()],
        "HostConfig": official_host_config(spec, plan) if plan.official else host_config(spec, plan),
        "StopTimeout": 0,
        **({"ExposedPorts": {_port(plan): {}}} if plan.port else {}),
        **({} if plan.official else {"User": f"{BOX_USER}:{BOX_USER}"}),
    }


def environment(spec: BoxSpec, plan: ContainerPlan) -> Mapping[str, str]:
    """What the tool server is told. The token of ours is in a file, which it removes: an environment stays readable."""
    if plan.official:
        return {
            "SECRET_TOKEN": spec.token,
            "NGINX_TIMEOUT": str(OFFICIAL_TIMEOUT),
            "WORKSPACE_DIR": "/workspace",
        }
    said = {"GREENROOM_BOX": BOX_FOLDER, "GREENROOM_BOX_KIND": spec.kind}
    if plan.trust:
        said["GREENROOM_BOX_TRUST"] = plan.trust
    if plan.port:
        said["GREENROOM_BOX_LISTEN"] = f"0.0.0.0:{PORT}"
    return said


def host_config(spec: BoxSpec, plan: ContainerPlan) -> dict[str, Any]:
    """Our image's isolation."""
    limits = spec.limits
    return {
        **_limits(spec, plan),
        **_network(plan),
        "Binds": [f"{shared_folder(spec.directory, port=plan.port)}:{BOX_FOLDER}:rw"],
        "ReadonlyRootfs": True,
        "Tmpfs": {
            # The mode, because a mounted folder is root's whatever was in the image.
            "/tmp": f"rw,nosuid,nodev,exec,size={limits.temporary},mode=1777",
            "/workspace": f"rw,nosuid,nodev,exec,size={limits.workspace},mode=1777",
            **dict.fromkeys(plan.closed, "ro,nosuid,nodev,noexec,size=64k"),
        },
        "ShmSize": SHARED_MEMORY,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", f"seccomp={plan.seccomp}"],
        "IpcMode": "private",
        "Privileged": False,
    }


def official_host_config(spec: BoxSpec, plan: ContainerPlan) -> dict[str, Any]:
    """What the official image runs in: as little of a host as it allows."""
    return {**_limits(spec, plan), **_network(plan), "ShmSize": 2 * spec.limits.temporary}


def _limits(spec: BoxSpec, plan: ContainerPlan) -> dict[str, Any]:
    limits = spec.limits
    bounds = {"nofile": FILES, "core": 0}
    if plan.processes is not None:
        bounds["nproc"] = plan.processes
    return {
        "Memory": limits.memory,
        "MemorySwap": limits.memory,  # memory and swap together, so: no swap
        "PidsLimit": limits.pids,
        "NanoCpus": int(limits.cpus * 1e9),
        "Ulimits": [{"Name": name, "Soft": most, "Hard": most} for name, most in bounds.items()],
        "OomScoreAdj": 500,  # where the host itself runs short, boxes go before what serves them
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,  # what ended stays to be seen, until who has its lease removes it
    }


def _network(plan: ContainerPlan) -> dict[str, Any]:
    if not plan.port:
        return {"NetworkMode": "none"}
    published = [{"HostIp": "127.0.0.1", "HostPort": ""}]
    return {"NetworkMode": plan.network, "PortBindings": {_port(plan): published}}


def _port(plan: ContainerPlan) -> str:
    return f"{OFFICIAL_PORT if plan.official else PORT}/tcp"


def published_port(container: Mapping[str, Any]) -> int | None:
    """The host's port of a container, of an engine's description of it; None while there is none."""
    ports = (container.get("NetworkSettings") or {}).get("Ports") or {}
    for bindings in ports.values():
        for binding in bindings or ():
            if binding.get("HostPort"):
                return int(binding["HostPort"])
    return None


def seccomp_option(profile: Path, *, podman: bool) -> str:
    """The profile as the engine takes it: Docker the text itself, Podman a path on its machine. Reads a file."""
    if podman:
        return str(profile)
    return json.dumps(json.loads(profile.read_text(encoding="utf-8")), separators=(",", ":"))


def most_processes() -> int:
    """`PROCESSES`, or what this host lets a user have."""
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    return PROCESSES if hard == resource.RLIM_INFINITY else min(PROCESSES, hard)
