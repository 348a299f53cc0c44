"""Lets the tests run on any cluster: pods get the images that were named, and sidecars come where nobody injects any.

Tests say ``busybox``, ``istio/proxyv2`` or a label that asks for a mesh, as they would on a cluster that has all that.
On the local cluster they mean what they say. Before any other one stands a proxy that rewrites pods on their way:

* images with a shell become the one of --cluster-image, images with Python or Airflow that of --cluster-airflow-image;
* labels and annotations of known injectors are answered as the injector would;
* sidecars are played by the local cluster's programs, in the Airflow image, which has the Python that they need;
* ``crosswind`` in a pod is this checkout's, whatever the image holds;
* every container that runs has the pull policy of --cluster-pull-policy.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from benchmarks.chaos.proxying import Proxy

import crosswind
import kubelocal
from crosswind.sidecars.detection import known_sidecar
from crosswind.testing import Cluster
from crosswind.types import Manifest
from kubelocal.injection import injectors
from kubelocal.injection.sidecar_images import PLAYED
from kubelocal.settings import LocalSettings

SHELL_IMAGES = ("busybox*", "*/busybox*", "alpine*", "*/alpine*", "debian*", "ubuntu*", "bash*")
PYTHON_IMAGES = ("python*", "apache/airflow*", "*/airflow*")
FOLDER, VOLUME, PLAYERS, SOURCE = "/crosswind-played", "crosswind-played", "crosswind-played", "crosswind-source"
PATH = (
    f"{FOLDER}/linkerd-await:/home/airflow/.local/bin:/usr/python/bin"
    ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)
REAL_NAMES = {
    "appmesh-envoy": "envoy",
    "cloud-sql-proxy-v1": "cloud_sql_proxy",
    "osm-envoy": "envoy",
    "otel-collector": "otelcol",
}
"""Programs that are called otherwise than their player."""

NO_SHELL = "/this-image-has-no-shell/"
LEFT_OUT = ("demo", "deploy", "_examples")
"""Parts of the package that no pod of the tests runs: a ConfigMap holds a mebibyte."""

_CREATED = re.compile(
    r"/(?:api|apis/[a-z.]+)/v\d[a-z0-9]*/namespaces/(?P<namespace>[^/?]+)/(?P<resource>[a-z]+)(?:\?.*)?"
)
_PATCHED = re.compile(r"/api/v1/namespaces/[^/?]+/pods/[^/?]+(?:\?.*)?")
_EXEC = re.compile(r"/api/v1/namespaces/(?P<namespace>[^/?]+)/pods/[^/?]+/exec\?(?P<query>.*)")
_TEMPLATES = {
    "jobs": ("spec", "template"),
    "cronjobs": ("spec", "jobTemplate", "spec", "template"),
    "deployments": ("spec", "template"),
    "statefulsets": ("spec", "template"),
    "replicasets": ("spec", "template"),
}


@dataclass(frozen=True)
class Player:
    """The program that plays a sidecar's image, and whether that image has a shell."""

    command: str
    shell: bool

    @property
    def program(self) -> str:
        """Where the program is, under its real name: products are known by that, too."""
        return f"{FOLDER}/{self.command}/{REAL_NAMES.get(self.command, self.command)}"


def player_of(image: str) -> Player | None:
    """Return who plays an image; None for those that are what they say."""
    matching = [pattern for pattern in PLAYED if fnmatchcase(image, pattern)]
    return Player(*PLAYED[max(matching, key=len)]) if matching else None


@dataclass
class Rewriter:
    """Fits pods to a cluster that has two images. ``shell_less``: namespaces and containers without a shell."""

    image: str
    airflow_image: str
    pull_policy: str

    def __post_init__(self) -> None:
        self._injectors = injectors(LocalSettings())
        self._furnished: set[str] = set()
        self.shell_less: set[tuple[str, str]] = set()

    async def __call__(self, proxy: Proxy, method: str, path: str, body: bytes) -> tuple[str, bytes]:
        """Rewrite one request."""
        if found := _EXEC.fullmatch(path):
            return self._without_shell(path, found), body
        if method == "PATCH" and _PATCHED.fullmatch(path):
            return path, self._patched(body)
        created = _CREATED.fullmatch(path) if method == "POST" else None
        if created is None or created["resource"] not in ("pods", *_TEMPLATES):
            return path, body
        try:
            manifest = json.loads(body)
        except ValueError:
            return path, body
        namespace = created["namespace"]
        status, home = await proxy.ask("GET", f"/api/v1/namespaces/{namespace}")
        if status == 200 and isinstance(manifest, dict):
            await self._furnish(proxy, namespace)
            body = json.dumps(self.rewritten(manifest, created["resource"], home)).encode()
        return path, body

    def rewritten(self, manifest: Manifest, resource: str, home: Manifest) -> Manifest:
        """Return a pod, or an object with a template of pods, as the cluster can run it in the namespace ``home``."""
        changed: Manifest = json.loads(json.dumps(manifest))
        if resource == "pods":
            return self._pod(changed, home)
        *above, last = _TEMPLATES[resource]
        holder: Any = changed
        for key in above:
            holder = holder.get(key) or {}
        template = holder.get(last)
        if isinstance(template, dict):
            name = changed.get("metadata", {}).get("name", "x")
            metadata = dict(template.get("metadata") or {})
            pod = self._pod({**template, "metadata": {**metadata, "generateName": f"{name}-"}}, home)
            pod["metadata"].pop("generateName")
            holder[last] = pod
        return changed

    def _pod(self, pod: Manifest, home: Manifest) -> Manifest:
        namespace = home["metadata"]["name"]
        if not isinstance(pod.get("spec"), dict) or not _is_whole(pod["spec"]):
            return pod  # what is wrong with it, the API server says
        pod.setdefault("metadata", {})
        own = pod["metadata"].pop("namespace", None)
        pod["metadata"]["namespace"] = own or namespace
        for inject in self._injectors:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                pod = inject(pod, home)
        pod = json.loads(json.dumps(pod))
        containers = [one for kind in ("initContainers", "containers") for one in pod["spec"].get(kind) or []]
        _mark(pod, containers)
        helped = [self._container(one, namespace) for one in containers]
        if any(helped):
            pod["spec"].setdefault("volumes", []).append(_volume())
        return pod

    def _container(self, container: Manifest, namespace: str) -> bool:
        """Fit a container in place; return whether it needs our volume."""
        image = str(container.get("image", ""))
        player = player_of(image)
        if player is not None:
            container["image"] = self.airflow_image
            if not container.get("command"):
                container["command"] = [player.program]
                container["args"] = container.get("args") or ["--played"]
            path = {"name": "PATH", "value": f"{FOLDER}/{player.command}:{PATH}"}
            container["env"] = [*(container.get("env") or []), path]
            if not player.shell:
                self.shell_less.add((namespace, str(container.get("name"))))
        elif any(fnmatchcase(image, pattern) for pattern in PYTHON_IMAGES):
            container["image"] = self.airflow_image
        elif any(fnmatchcase(image, pattern) for pattern in SHELL_IMAGES):
            container["image"] = self.image
        named = container.get("image") in (self.image, self.airflow_image)
        if image:  # one that is not there is looked for, so that it fails as such images do
            container["imagePullPolicy"] = self.pull_policy if named else "IfNotPresent"
        ours = (container.get("command") or [""])[0] == "crosswind"
        if ours:
            container["command"] = ["python3", "-m", "crosswind", *container["command"][1:]]
            source = {"name": "PYTHONPATH", "value": f"{FOLDER}/crosswind.zip"}
            container["env"] = [*(container.get("env") or []), source]
        if player is not None or ours:
            mounts = [{"name": VOLUME, "mountPath": FOLDER, "readOnly": True}]
            if player is not None and player.command == "cloud-sql-proxy":  # its own client is called by its path
                inside = player.program.removeprefix(f"{FOLDER}/")
                mounts.append({"name": VOLUME, "mountPath": "/cloud-sql-proxy", "subPath": inside, "readOnly": True})
            container["volumeMounts"] = [*(container.get("volumeMounts") or []), *mounts]
        return player is not None or ours

    def _patched(self, body: bytes) -> bytes:
        """Fit the images of a patch, as of a sidecar that is swapped for another image."""
        try:
            patch = json.loads(body)
        except ValueError:
            return body
        spec = patch.get("spec") if isinstance(patch, dict) else None
        for container in (spec or {}).get("containers") or []:
            image = str(container.get("image", ""))
            if player_of(image) or any(fnmatchcase(image, pattern) for pattern in SHELL_IMAGES):
                container["image"] = self.image
        return json.dumps(patch).encode()

    def _without_shell(self, path: str, found: re.Match[str]) -> str:
        """Let a shell that the real image would not have be looked for in vain."""
        query = parse_qsl(found["query"], keep_blank_values=True)
        container = dict(query).get("container", "")
        first = next((place for place, (key, _) in enumerate(query) if key == "command"), None)
        if first is None or (found["namespace"], container) not in self.shell_less:
            return path
        if query[first][1].rpartition("/")[2] not in ("sh", "ash", "bash", "dash", "busybox"):
            return path
        query[first] = ("command", NO_SHELL + query[first][1])
        return f"{path.partition('?')[0]}?{urlencode(query)}"

    async def _furnish(self, proxy: Proxy, namespace: str) -> None:
        """Put the programs into a namespace, once."""
        if namespace in self._furnished:
            return
        self._furnished.add(namespace)
        for manifest in (players(), source()):
            await proxy.ask("POST", f"/api/v1/namespaces/{namespace}/configmaps", manifest)


def _mark(pod: Manifest, containers: list[Manifest]) -> None:
    """Say of declared sidecars what their injector would: the images that tell them apart are about to go."""
    for container in containers:
        product = known_sidecar(container)
        if product is not None and product.marks and player_of(str(container.get("image", ""))):
            annotations = pod["metadata"].setdefault("annotations", {})
            if not any(mark in annotations or mark in pod["metadata"].get("labels", {}) for mark in product.marks):
                annotations[product.marks[0]] = "true"


def _is_whole(spec: Manifest) -> bool:
    containers = [one for kind in ("initContainers", "containers") for one in spec.get(kind) or []]
    return bool(spec.get("containers")) and all(isinstance(one, dict) for one in containers)


def _volume() -> Manifest:
    items = [{"key": "program.py", "path": "program.py"}]
    items += [{"key": one.command, "path": one.program.removeprefix(f"{FOLDER}/")} for one in _every_player()]
    sources = [{"configMap": {"name": PLAYERS, "items": items}}, {"configMap": {"name": SOURCE}}]
    return {"name": VOLUME, "projected": {"defaultMode": 0o755, "sources": sources}}


def _every_player() -> list[Player]:
    commands = {command for command, _ in PLAYED.values()} | {"linkerd-await"}
    return [Player(command, True) for command in sorted(commands)]


def players() -> Manifest:
    """Return the ConfigMap with a program for each sidecar that is played."""
    program = Path(kubelocal.__file__).parent / "injection" / "sidecar_program.py"
    names = [player.command for player in _every_player()]
    scripts = {name: f'#!/bin/sh\nexec python3 -I -S {FOLDER}/program.py {name} "$@"\n' for name in names}
    return {"metadata": {"name": PLAYERS}, "data": {**scripts, "program.py": program.read_text()}}


def source() -> Manifest:
    """Return the ConfigMap with the package, as Python imports it."""
    root = Path(crosswind.__file__).parent
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*")):
            inside = path.relative_to(root)
            if path.is_file() and path.suffix != ".pyc" and inside.parts[0] not in LEFT_OUT:
                archive.write(path, Path("crosswind") / inside)
    content = base64.b64encode(written.getvalue()).decode()
    return {"metadata": {"name": SOURCE}, "binaryData": {"crosswind.zip": content}}


@dataclass(frozen=True)
class FittedCluster(Cluster):
    """A cluster behind the proxy; ``direct`` is the same without it."""

    direct: Cluster | None = None


@contextlib.contextmanager
def fitted(cluster: Cluster, folder: Path) -> Iterator[Cluster]:
    """Return the cluster to test against: the local one as it is, any other one behind a proxy."""
    if cluster.local or "image" not in cluster.images:
        yield cluster
        return
    airflow = cluster.images.get("airflow-image", cluster.images["image"])
    with Proxy(cluster.kubeconfig, folder, Rewriter(cluster.images["image"], airflow, cluster.pull_policy)) as proxy:
        shown = {name: getattr(cluster, name) for name in ("local", "host", "pull_policy", "images")}
        yield FittedCluster(kubeconfig=proxy.kubeconfig, url=proxy.server, direct=cluster, **shown)
