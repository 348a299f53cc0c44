"""What all pods of the kubelet share: settings, registry, forker, images, folders, and how containers are set apart."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from kubelocal.codec.status_errors import StatusError
from kubelocal.injection.sidecar_images import sidecar_images
from kubelocal.interfaces import Registry
from kubelocal.kubelet.containers import ContainerProcess, Forker, StartError
from kubelocal.kubelet.environment import service_variables
from kubelocal.kubelet.image_table import image_table
from kubelocal.kubelet.pod_network import Network
from kubelocal.kubelet.rootfs import CONTAINER_PRIVATE_FOLDERS
from kubelocal.kubelet.security_context import Identity, Powers
from kubelocal.owned_paths import Owner, claim_folder, folder_owner, release_folder
from kubelocal.settings import LocalImage, LocalSettings
from kubelocal.types import Manifest

__all__ = ["MACHINE_PATH", "NodeContext", "Tokens", "below", "rewritten"]

NOBODY, AIRFLOW_USER = 65534, 50000
PREFIX = "crosswind-pods-"
COMMAND = "kubelocal up"
MACHINE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
AIRFLOW_ENTRYPOINT = 'case "$1" in bash|sh|python*|airflow|/*) exec "$@";; *) exec airflow "$@";; esac'
_log = logging.getLogger(__name__)


class Tokens(Protocol):
    """What the kubelet needs of the token issuer."""

    def mint(
        self, account: Manifest, audiences: list[str], seconds: int, bound: Manifest | None = None
    ) -> tuple[str, float]:
        """Make a token for a service account, bound to a pod; return it and when it expires."""
        ...


class NodeContext:
    """What this machine gives to containers; opened with ``async with``.

    ``mode``: the isolation of containers, best first:

    * ``root``: mount, pid and UTS namespaces, by a kubelet that runs as root;
    * ``user``: the same in a user namespace, by an ordinary user where the kernel lets them;
    * ``none``: a process group. Mount paths, ``/tmp`` and ``/dev/termination-log`` in commands, arguments and variables
      are replaced by the folders that stand for them. All other files are the machine's, nothing is read-only, and
      process 1 is the machine's own: ``kill 1`` does not mean the container.

    ``powers``: the applicable parts of a security context: as root any user and group; in a user namespace one of each,
    under any number; else those of the kubelet.
    """

    def __init__(
        self,
        registry: Registry,
        settings: LocalSettings,
        tokens: Tokens | None,
        network: Network,
        api_port: int,
        first: NodeContext | None = None,
    ) -> None:
        self._first = first
        self.registry = registry
        self.settings = settings
        self.tokens = tokens
        self.network = network
        self.api_port = api_port
        self.forker = Forker()
        self.mode = "none"
        self.powers = Powers("own", mounts=False)
        self.environment_folders = _environment_folders()
        """The folders of the Python environment, which every user must be able to read."""
        self.names: Callable[[str], list[str]] = lambda namespace: []
        """Lines of a hosts file in a namespace that name the Services."""
        self.images: dict[str, LocalImage] = {}
        self._stack = contextlib.ExitStack()

    async def __aenter__(self) -> NodeContext:
        """Make the folders, start the forker, find out what this machine allows."""
        try:
            await self._open()
        except BaseException:  # cancelled meanwhile: started processes must not stay
            self._stack.close()
            raise
        return self

    async def _open(self) -> None:
        owner = Owner.this_process()
        if self.settings.pods_folder is None:
            await asyncio.to_thread(_sweep)
            temporary = tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", ignore_cleanup_errors=True)
            self.folder = Path(self._stack.enter_context(temporary)).resolve()
            claim_folder(self.folder, COMMAND, owner)
        else:
            claim_folder(self.settings.pods_folder, COMMAND, owner)
            self.folder = self.settings.pods_folder.resolve()
            self._stack.callback(release_folder, self.folder, COMMAND, owner)
        self._stack.callback(self.forker.close)
        self.images = image_table(await asyncio.to_thread(self._builtin_images), self.settings.images)
        for folder in (self.folder / "images", *(self.folder / "images").iterdir()):
            folder.chmod(0o755)  # whatever our umask is: containers run as other users too
        self.mode = await self._best_mode()
        self.powers = await self._powers()

    async def __aexit__(self, *_: object) -> None:
        """Remove the folders, end the forker."""
        self._stack.close()

    async def _best_mode(self) -> str:
        """Return the best mode in which a container that runs ``true`` starts."""
        if self.settings.sandbox == "none" or sys.platform != "linux":
            return "none"
        why = ""
        root = os.geteuid() == 0 and self.settings.sandbox == "auto"
        for mode in ("root", "user") if root else ("user",):
            try:
                if await self._works(mode, {}):
                    return mode
            except StartError as problem:
                why = str(problem)
        _log.warning(
            "containers get no namespaces of their own here (%s): they run as plain processes, and mount paths are "
            "replaced in their commands and variables (see Differences from a real cluster in its documentation)",
            why,
        )
        return "none"

    async def _powers(self) -> Powers:
        """Return the settings that apply here, tested by a container that runs as another user."""
        mounts, own = self.mode != "none", (os.geteuid(), os.getegid(), frozenset(os.getgroups()))
        alone = "" if mounts else "containers get no namespaces here"
        if self.mode == "user":
            best = Powers("one", mounts, 0, 0, why="a user namespace without privileges has one user and one group")
        elif own[0]:
            return Powers("own", mounts, *own, why=f"the kubelet is not root, and {alone}")
        elif not mounts and (closed := _closed_to_others(self.environment_folders)):
            return Powers("own", mounts, *own, why=f"other users may not enter {closed}, and {alone}")
        else:
            best = Powers("any", mounts, *own, why=alone)
        unprivileged = Identity(NOBODY, NOBODY, (NOBODY,), (), no_new_privileges=False)
        with contextlib.suppress(StartError):
            if await self._works(self.mode, unprivileged.message(best)):
                return best
        return replace(best, identities="own", why="this machine does not let the kubelet change users")

    async def _works(self, mode: str, user: dict[str, Any]) -> bool:
        container = ContainerProcess(self.forker)
        scratch = self.folder / "trial" / mode
        scratch.mkdir(parents=True, exist_ok=True)
        spec = {"mode": mode, "argv": ["true"], "env": {"PATH": MACHINE_PATH}, "cwd": "/", "hostname": "trial"}
        spec |= {"user": user, "scratch": str(scratch), "mounts": [], "log": str(scratch.parent / "log")}
        try:
            await container.start(spec)
            return (await container.wait()).code == 0
        finally:
            await container.close()

    def make_traversable(self, folder: Path) -> None:
        """Let other users reach a folder of ours without listing its parents, for systems without mounts."""
        for place in (folder, *folder.parents):
            place.chmod(0o711)
            if place == self.folder:
                return

    # images

    def _builtin_images(self) -> dict[str, LocalImage]:
        commands = self.folder / "images"
        played = sidecar_images(commands / "sidecars", ready_after=self.settings.sidecar_ready_after)
        table = {pattern: replace(image, visible=_hidden(image.visible)) for pattern, image in played.items()}
        plain = LocalImage()
        python = _own_python()
        table |= dict.fromkeys(("debian*", "ubuntu*", "bash*", "*/pause*"), plain)
        table |= {name: _busybox(commands / "busybox") for name in ("busybox*", "*/busybox*", "alpine*", "*/alpine*")}
        table["python*"] = python
        airflow = _airflow(python, commands / "airflow")
        table |= dict.fromkeys(("apache/airflow*", "*/airflow*"), airflow)
        return table

    # lookups

    @property
    def claims(self) -> Path:
        """The folder of the persistent volume claims, which all nodes share."""
        return (self._first or self).folder / "claims"

    def find(self, namespace: str, kind: str, name: str) -> Manifest | None:
        """Return an object of a namespace, or None."""
        try:
            return self.registry.get(kind, namespace, name)
        except StatusError:
            return None

    def allocatable(self) -> Mapping[str, str]:
        """Return the node's allocatable resources."""
        node = self.find("", "Node", self.settings.node_name) or {}
        allocatable: Mapping[str, str] = node.get("status", {}).get("allocatable") or {}
        return allocatable

    def token(self, pod: Manifest, audience: str | None, seconds: int) -> str:
        """Mint a token for a pod's service account."""
        name = pod["spec"].get("serviceAccountName") or "default"
        account = self.find(pod["metadata"]["namespace"], "ServiceAccount", name)
        if self.tokens is None or account is None:
            return ""
        return self.tokens.mint(account, [audience] if audience else list(DEFAULT_AUDIENCES), seconds, pod)[0]

    def service_environment(self, pod: Manifest) -> dict[str, str]:
        """Return the variables that lead to the Services of a pod's namespace and to the API server."""
        linked = pod["spec"].get("enableServiceLinks") is not False
        services = self.registry.list("Service", pod["metadata"]["namespace"]) if linked else []
        port = {"name": "https", "port": self.api_port}
        server = {"clusterIP": self.network.host_address, "ports": [port]}
        api_server: Manifest = {"metadata": {"name": "kubernetes"}, "spec": server}
        return service_variables([*services, api_server])


DEFAULT_AUDIENCES = ("https://kubernetes.default.svc.cluster.local",)


def _environment_folders() -> list[str]:
    """Return the folders of the current virtual environment, with all that its interpreter needs."""
    interpreter = os.path.dirname(os.path.realpath(sys.executable))
    return sorted({sys.prefix, sys.base_prefix, interpreter, *_editable_folders()})


def _editable_folders() -> set[str]:
    """Return the folders of packages that are installed in editable form: ``.pth`` files name them, one a line."""
    libraries = Path(sysconfig.get_paths()["purelib"])
    lines = [line.strip() for file in libraries.glob("*.pth") for line in file.read_text(errors="replace").splitlines()]
    folders = {(libraries / line).resolve() for line in lines if line and not line.startswith(("#", "import"))}
    return {str(folder) for folder in folders if folder.is_dir()}


def _closed_to_others(folders: Iterable[str]) -> str:
    """Return the first folder on the way to these that other users may not pass, or ""."""
    ways = {place for folder in folders for place in (Path(folder), *Path(folder).parents)}
    return next((str(place) for place in sorted(ways) if not place.stat().st_mode & 0o001), "")


def _own_python() -> LocalImage:
    """The current virtual environment."""
    return LocalImage(path=(str(Path(sys.executable).parent),), visible=_hidden(_environment_folders()))


def _hidden(folders: Iterable[str]) -> tuple[str, ...]:
    """Return those folders that a container's own would hide."""
    return tuple(sorted(folder for folder in folders if below(folder, CONTAINER_PRIVATE_FOLDERS)))


def _airflow(python: LocalImage, folder: Path) -> LocalImage:
    folder.mkdir(parents=True, exist_ok=True)
    entrypoint = folder / "entrypoint"
    entrypoint.write_text(f"#!/bin/sh\n{AIRFLOW_ENTRYPOINT}\n")
    entrypoint.chmod(0o755)
    users = folder / "passwd"
    users.touch()
    users.chmod(0o644)
    users.write_text(_passwd() + f"airflow:x:{AIRFLOW_USER}:0:Airflow:/home/airflow:/bin/sh\n")
    variables = {"AIRFLOW_HOME": "/opt/airflow", "HOME": "/home/airflow", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
    return LocalImage(
        path=python.path,
        visible=python.visible,
        environment=variables,
        entrypoint=("/entrypoint",),
        mounts={"/entrypoint": str(entrypoint), "/etc/passwd": str(users)},
        folder="/opt/airflow",
        user=AIRFLOW_USER,
    )


def _passwd() -> str:
    """Return the machine's users, without one that has the name or the number of Airflow's."""
    try:
        lines = Path("/etc/passwd").read_text(errors="replace").splitlines(keepends=True)
    except OSError:
        return "root:x:0:0:root:/root:/bin/sh\n"
    return "".join(line for line in lines if not {"airflow", str(AIRFLOW_USER)} & set(line.split(":")[:3:2]))


def _busybox(folder: Path) -> LocalImage:
    """The machine's busybox with a link per command, else the machine's own commands."""
    binary = shutil.which("busybox")
    if binary is None:
        return LocalImage(command=("sh",))
    if not folder.exists():
        folder.mkdir(parents=True)
        listed = subprocess.run([binary, "--list"], capture_output=True, text=True, timeout=10, check=True)
        for name in listed.stdout.split():
            (folder / name).symlink_to(binary)
    return LocalImage(path=(str(folder),), visible=(str(folder),), command=("sh",))


def _sweep() -> None:
    """Remove the folders of kubelets that crashed: those that carry our mark and the name of a dead process."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = folder_owner(folder, COMMAND)
        if owner is not None and not owner.is_alive:
            shutil.rmtree(folder, ignore_errors=True)


def below(path: str, roots: tuple[str, ...]) -> bool:
    """Whether a path is one of these or lies under one."""
    return any(path == root or path.startswith(root + "/") for root in roots)


def rewritten(text: str, places: Mapping[str, str]) -> str:
    """Replace paths that cannot be mounted by those that stand for them; longer ones first."""
    if not places:
        return text
    options = "|".join(re.escape(path) for path in sorted(places, key=len, reverse=True))
    return re.sub(rf"(?<![\w./-])({options})(?![\w.-])", lambda match: places[match.group(1)], text)
