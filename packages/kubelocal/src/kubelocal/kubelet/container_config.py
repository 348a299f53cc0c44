"""The launcher's ``start`` message, made from a container's spec, image, environment and mounts."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from kubelocal.codec.quantities import amount
from kubelocal.controllers.service_endpoints import DOMAIN
from kubelocal.injection.sidecar_images import READY_AFTER
from kubelocal.injection.start_delays import READY_DELAY, delay_of
from kubelocal.kubelet.environment import ContainerConfigError, Lookup, environment, expand
from kubelocal.kubelet.image_table import command_line, find_image
from kubelocal.kubelet.node_context import MACHINE_PATH, NodeContext, below, rewritten
from kubelocal.kubelet.pod_network import PodAddress
from kubelocal.kubelet.pod_volumes import ContainerMount, PodVolumes
from kubelocal.kubelet.security_context import Identity, identity_of
from kubelocal.settings import LocalImage
from kubelocal.types import Manifest

__all__ = ["host_files", "hostname_of", "process_spec", "write_hosts"]


def hostname_of(pod: Manifest) -> str:
    """Return a pod's host name: its own or its name, at most 63 characters."""
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])[:63].rstrip("-.")


def write_hosts(pod: Manifest, folder: Path, place: PodAddress, services: Sequence[str]) -> None:
    """Write a pod's /etc/hosts, with the lines that name the Services; in place, for it may be mounted already."""
    name = hostname_of(pod)
    domain = ""
    if subdomain := pod["spec"].get("subdomain"):
        domain = f"{name}.{subdomain}.{pod['metadata']['namespace']}.{DOMAIN}\t"
    # its own name first: where both have one address, programs ask for the name of that address
    lines = ["# Kubernetes-managed hosts file.", f"{place.address}\t{domain}{name}"]
    lines += [f"{place.localhost}\tlocalhost", "::1\tip6-localhost ip6-loopback"]
    aliases = pod["spec"].get("hostAliases") or ()
    lines += ["\t".join([alias["ip"], *(alias.get("hostnames") or ())]) for alias in aliases]
    text = "\n".join([*lines, *services]) + "\n"
    # write, then truncate, so that a concurrent reader never sees an empty file
    with (folder / "hosts").open("r+b" if (folder / "hosts").exists() else "w+b") as file:
        file.write(text.encode())
        file.truncate()
        os.fchmod(file.fileno(), 0o644)  # whatever our umask is: other users of the pod read it


def host_files(pod: Manifest, folder: Path, place: PodAddress, services: Sequence[str]) -> list[ContainerMount]:
    """Write a pod's /etc/hosts and /etc/hostname and make its shared memory; return their mounts.

    In a network namespace no name server can be reached: names are asked of the pod itself, where nobody listens, so
    that a lookup fails at once and not after the resolver's 10 s.
    """
    name = hostname_of(pod)
    write_hosts(pod, folder, place, services)
    _write(folder / "hostname", name + "\n")
    (folder / "shm").mkdir(exist_ok=True)
    (folder / "shm").chmod(0o1777)
    places = {"hosts": "/etc/hosts", "hostname": "/etc/hostname", "shm": "/dev/shm"}  # noqa: S108 - of the container
    if place.namespace is not None:
        _write(folder / "resolv.conf", "nameserver 127.0.0.1\noptions attempts:1 timeout:1\n")
        places["resolv.conf"] = "/etc/resolv.conf"
    return [ContainerMount(str(folder / name), target) for name, target in places.items()]


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)


def process_spec(
    context: NodeContext,
    pod: Manifest,
    container: Manifest,
    volumes: PodVolumes,
    shared: list[ContainerMount],
    folder: Path,
) -> dict[str, Any]:
    """Return the launcher's ``start`` message for a run with its files in ``folder``."""
    image = find_image(container["image"], context.images) or LocalImage()
    namespace, hostname = pod["metadata"]["namespace"], hostname_of(pod)
    identity = identity_of(pod, container, image)
    lookup: Lookup = functools.partial(context.find, namespace)
    declared = environment(pod, container, context.service_environment(pod), lookup, context.allocatable())
    variables = _image_environment(image, hostname, identity.uid) | _readiness(pod, container["name"]) | declared
    fixed = bool((container.get("securityContext") or {}).get("readOnlyRootFilesystem"))
    own = _own_files(container, folder, writable=not fixed or context.mode == "none")
    mounts = [*shared, *own, *_with_image(image, volumes.mounts(pod, container, declared))]
    argv = command_line(_expanded(container, declared), image)
    message: dict[str, Any] = {
        "mode": context.mode,
        "argv": argv,
        "env": variables,
        "cwd": container.get("workingDir") or image.folder,
        "hostname": hostname,
        "scratch": str(folder / "root"),
        "mounts": [{"source": mount.source, "target": mount.target, "readOnly": mount.read_only} for mount in mounts],
        "log": str(folder / "log"),
        "tty": bool(container.get("tty")),
        "memory": memory_limit(container),
        "readOnlyRoot": fixed,
        **_as_whom(context, image, identity, variables["HOME"], folder),
    }
    if context.mode != "none":
        return message
    places = {image.folder: str(folder / "tmp")} if image.folder != "/" else {}
    return without_mounts(
        message, linked(places | {mount.target: mount.source for mount in mounts}, str(folder / "tmp"))
    )


def _image_environment(image: LocalImage, hostname: str, uid: int) -> dict[str, str]:
    """Return the variables that a container has from its image and its runtime."""
    return {
        "PATH": ":".join([*image.path, *([MACHINE_PATH] if image.machine else [])]),
        "HOME": "/" if uid else "/root",  # as for a user that the image does not know
        **image.environment,
        "HOSTNAME": hostname,
    }


def _expanded(container: Manifest, variables: Mapping[str, str]) -> Manifest:
    """Return a container with its command and arguments expanded; those of its image stay as they are."""
    texts = {key: [expand(part, variables) for part in container.get(key) or ()] for key in ("command", "args")}
    return {**container, **texts}


def _with_image(image: LocalImage, mounted: list[ContainerMount]) -> list[ContainerMount]:
    """Return what an image shows of this machine, and the volumes over it.

    A volume at /tmp, say, must not hide an environment that lies there.
    """
    shown = [ContainerMount(path, path, True) for path in image.visible]
    image_mounts = [ContainerMount(os.path.abspath(source), path, True) for path, source in image.mounts.items()]
    over = tuple(mount.target for mount in mounted)
    return [*shown, *image_mounts, *mounted, *(mount for mount in shown if below(mount.target, over))]


def _as_whom(context: NodeContext, image: LocalImage, identity: Identity, home: str, folder: Path) -> dict[str, Any]:
    """Return the launcher's fields of the user, and the folders that must exist or be passable for that user."""
    parts: dict[str, Any] = {"user": identity.message(context.powers)}
    if identity.uid and image.user:
        parts["owned"] = [image.folder, home]
    if identity.uid and context.powers.identities == "any":
        if context.mode == "none":
            context.make_traversable(folder)
        else:
            parts["reachable"] = [*context.environment_folders, *image.path]
    return parts


def _readiness(pod: Manifest, name: str) -> dict[str, str]:
    """Return the variable that a played sidecar reads, for a container whose annotation sets when it is ready."""
    try:
        seconds = delay_of(pod, READY_DELAY, name)
    except ValueError as problem:
        raise ContainerConfigError(str(problem)) from problem
    return {} if seconds is None else {READY_AFTER: f"{seconds:g}"}


def _own_files(container: Manifest, folder: Path, *, writable: bool) -> list[ContainerMount]:
    """Make the files of one run: a /tmp on disk, an empty termination message, the place for its root.

    Without ``writable`` there is no /tmp of its own: it is a part of the root, which is read-only.
    """
    for name, mode in (("tmp", 0o1777), ("root", 0o755)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name).chmod(mode)
    message = folder / "message"
    message.touch()
    message.chmod(0o666)
    path = container.get("terminationMessagePath") or "/dev/termination-log"
    temporary = [ContainerMount(str(folder / "tmp"), "/tmp")] if writable else []  # noqa: S108 - of the container
    return [*temporary, ContainerMount(str(message), path)]


def memory_limit(container: Manifest) -> int | None:
    """Return a container's memory limit in bytes, or None."""
    limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
    return None if limit is None else ceil(amount(str(limit))) or None


def linked(places: Mapping[str, str], own: str) -> dict[str, str]:
    """Return where paths lie once those below the container's ``own`` folder are links in it.

    A program that joins a directory and a name, as ``$AIRFLOW_HOME/dags``, finds a mount only there. No links go into
    volumes: other pods see these as well.
    """
    resolved_places = dict(places)
    for path, place in places.items():
        above = [root for root, held in places.items() if path.startswith(root + "/") and held == own]
        if not above:
            continue
        link = Path(own, os.path.relpath(path, max(above, key=len)))
        with contextlib.suppress(OSError):
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(place)
            resolved_places[path] = str(link)
    return resolved_places


def without_mounts(message: dict[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """Where nothing can be mounted, name the folders themselves in command, variables and directory."""
    private = {path: place for path, place in places.items() if path != place}
    variables = {name: rewritten(value, private) for name, value in message["env"].items() if name != "PATH"}
    temporary = private["/tmp"]  # noqa: S108
    variables = {**variables, "PATH": message["env"]["PATH"], "HOME": temporary, "TMPDIR": temporary}
    cwd = rewritten(message["cwd"], private)
    return {
        **message,
        "places": private,
        "argv": [rewritten(part, private) for part in message["argv"]],
        "env": variables,
        "cwd": cwd if cwd != message["cwd"] or Path(cwd).is_dir() else temporary,
    }
