"""The options by which commands choose a cluster and a namespace, as kubectl does."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from crosswind.settings import KubeSettings

__all__ = ["ClusterChoice", "choose_cluster", "cluster_options", "kube_settings", "own_namespace"]

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ClusterChoice:
    """The cluster and the namespace of a command."""

    settings: KubeSettings
    namespace: str | None
    """None: all namespaces."""
    context: str
    """Name of the kubeconfig's context; "in cluster" for a service account."""

    @property
    def title(self) -> str:
        """The namespace, for headings."""
        return "all namespaces" if self.namespace is None else self.place

    @property
    def place(self) -> str:
        """The namespace, for messages."""
        return "any namespace" if self.namespace is None else f"namespace {self.namespace}"


def cluster_options(command: F) -> F:
    """Add ``--namespace``, ``--all-namespaces``, ``--context`` and ``--kubeconfig``."""
    options = (
        click.option("-n", "--namespace", help="Namespace of the pods; by default that of the context."),
        click.option("-A", "--all-namespaces", is_flag=True, help="Pods of all namespaces."),
        click.option("--context", shell_complete=_contexts, help="Context of the kubeconfig."),
        click.option("--kubeconfig", help="Path of the kubeconfig. By default a pod uses its service account."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _contexts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the kubeconfig's contexts, for shells; none where it cannot be read."""
    from crosswind.errors import KubeconfigError
    from crosswind.kube.kubeconfigs import context_names

    try:
        return [name for name in context_names(ctx.params.get("kubeconfig")) if name.startswith(incomplete)]
    except KubeconfigError:
        return []


def kube_settings(kubeconfig: str | None, context: str | None) -> KubeSettings:
    """Return how to reach the cluster: by the options, else this pod's service account, else the user's kubeconfig."""
    names_kubeconfig = kubeconfig or context or os.environ.get("KUBECONFIG")
    if not names_kubeconfig and os.environ.get("KUBERNETES_SERVICE_HOST"):
        return KubeSettings(in_cluster=True)
    return KubeSettings(kubeconfig=kubeconfig, context=context)


def own_namespace() -> str:
    """Return the namespace of the pod that this process runs in, "" outside a cluster."""
    return _NAMESPACE_FILE.read_text(encoding="utf-8").strip() if _NAMESPACE_FILE.exists() else ""


def choose_cluster(options: dict[str, Any]) -> ClusterChoice:
    """Return the choice that the options of ``cluster_options`` make; raise ``KubeconfigError`` for a wrong one."""
    namespace, everywhere = options["namespace"], options["all_namespaces"]
    if namespace and everywhere:
        raise click.UsageError("give --namespace or --all-namespaces, not both")
    settings = kube_settings(options["kubeconfig"], options["context"])
    if settings.in_cluster:
        return ClusterChoice(settings, None if everywhere else namespace or own_namespace() or "default", "in cluster")
    from crosswind.kube.kubeconfigs import read

    context = read(settings.kubeconfig, settings.context)
    return ClusterChoice(settings, None if everywhere else namespace or context.namespace, context.context)
