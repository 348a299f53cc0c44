"""The values that describe one deployment: all sections, and the rules between them."""

from __future__ import annotations

import hashlib
from itertools import combinations
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, StringConstraints, field_validator, model_validator

from crosswind.deploy.addresses import port_problems, split_url
from crosswind.deploy.config_rules import config_problems
from crosswind.deploy.json_values import parse_json
from crosswind.deploy.value_sections import (
    ApiServerValues,
    ArchiveLogs,
    ComponentValues,
    Dags,
    DatabaseValues,
    DnsName,
    GitDags,
    Image,
    ImageDags,
    Logs,
    MeshValues,
    MetricsValues,
    Name,
    Namespace,
    NetworkValues,
    PgBouncerValues,
    PodValues,
    ReaperValues,
    SchedulerValues,
    SecretKey,
    SecretsValues,
    Setting,
    Text,
    TriggererValues,
    ValuesSection,
    VolumeDags,
    VolumeLogs,
    WebValues,
    WorkersValues,
    refuse_system_namespace,
)
from crosswind.engine.queues import parse_queues
from crosswind.errors import ConfigError

__all__ = ["Values"]

_NAMESPACE_LIMIT = 63
"""The longest name that Kubernetes allows a namespace."""


class Values(ValuesSection):
    """One deployment of Airflow."""

    name: Name = "airflow"
    namespace: Namespace = "airflow"
    create_namespaces: bool = True
    platform: Literal["kubernetes", "openshift"] = "kubernetes"
    """openshift: the namespace's range determines users and groups of pods."""
    delivery: Literal["kubectl", "argocd", "flux"] = "kubectl"
    """The tool that applies the manifests. Argo CD gets sync waves and hooks, Flux a Job without a TTL."""
    image: Image
    """An image of Airflow 3.3 with crosswind installed; best with a digest."""
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[DnsName, ...] = ()
    airflow_version: Annotated[str, StringConstraints(pattern=r"^3\.\d+\.\d+([a-z0-9.]*[a-z0-9])?$")] = "3.3.2"
    executor: Text = "crosswind.executor.KubernetesExecutor"
    config: dict[str, dict[str, Setting]] = Field(default_factory=dict)
    """Further options of airflow.cfg, by section."""
    database: DatabaseValues = DatabaseValues()
    secrets: SecretsValues = SecretsValues()
    dags: Dags = ImageDags()
    logs: Logs = ArchiveLogs()
    web: WebValues = WebValues()
    mesh: MeshValues = MeshValues()
    metrics: MetricsValues = MetricsValues()
    network: NetworkValues = NetworkValues()
    pods: PodValues = PodValues()
    """Settings of all pods, in addition to those of their component."""
    scheduler: SchedulerValues = SchedulerValues()
    api_server: ApiServerValues = ApiServerValues()
    dag_processor: ComponentValues = ComponentValues()
    triggerer: TriggererValues = TriggererValues()
    migrations: ComponentValues = ComponentValues()
    workers: WorkersValues = WorkersValues()
    reaper: ReaperValues = ReaperValues()
    pgbouncer: PgBouncerValues = PgBouncerValues()

    _workers_apart: bool = PrivateAttr(default=False)

    @property
    def worker_namespaces(self) -> tuple[str, ...]:
        """The namespaces of workers: the configured or default ones, then those of queues."""
        default = self.separate_namespace if self._workers_apart else self.namespace
        return tuple(dict.fromkeys((*(self.workers.namespaces or (default,)), *self._queue_namespaces())))

    def with_workers_apart(self, apart: bool) -> Values:
        """Return a copy whose workers are in NAMESPACE-workers, unless ``workers.namespaces`` is set.

        With ``apart`` False they share the namespace of all other objects, as in releases up to 0.1. They also do
        if they mount a volume that only one namespace can have.

        Raises ``ConfigError`` if ``workers.admissionPolicy`` would then apply to the namespace of Airflow's own pods.
        """
        values = self.model_copy()
        values._workers_apart = apart and not self._volume_for_one_namespace()
        # Only here is the layout final: a validator does not know yet whether workers are apart.
        values._refuse_policy_for_own_pods()
        return values

    @property
    def separate_namespace(self) -> str:
        """A namespace for the workers alone: NAMESPACE-workers.

        A name that would be too long is shortened, with a digest that keeps it apart from those of other deployments.
        """
        name = self.namespace
        if len(name) > _NAMESPACE_LIMIT - len("-workers"):
            digest = hashlib.sha256(name.encode()).hexdigest()[:8]
            name = f"{name[: _NAMESPACE_LIMIT - len(f'-{digest}-workers')]}-{digest}"
        return f"{name}-workers"

    @property
    def namespaces(self) -> tuple[str, ...]:
        """All namespaces of the deployment, the main one first."""
        return tuple(dict.fromkeys((self.namespace, *self.worker_namespaces)))

    @property
    def in_main_wait(self) -> bool:
        """Whether programs wait for the migrations in the main container.

        With ordinary sidecars, init containers have no network, because the sidecars start after them.
        """
        return self.mesh.kind != "none" and self.mesh.sidecars == "ordinary"

    def _refuse_policy_for_own_pods(self) -> None:
        """Raise ``ConfigError`` if the admission policy demands the workers' service account of Airflow's programs."""
        if not self.workers.admission_policy or self.namespace not in self.worker_namespaces:
            return
        others = [name for name in self.workers.namespaces if name != self.namespace]
        fix = f"write workers: {{namespaces: [{', '.join(others or [self.separate_namespace])}]}}"
        if self._volume_for_one_namespace():
            fix += ", and for dags and logs an EFS file system, or a claim that you create in each namespace"
        elif others == [*self.workers.namespaces] and self.namespace in self._queue_namespaces():
            fix = "name another namespace for that queue in [crosswind] queues"
        raise ConfigError(
            f"workers.admissionPolicy would refuse Airflow's own pods in namespace {self.namespace}; {fix}"
        )

    def _queue_namespaces(self) -> list[str]:
        """Return the namespaces of ``[crosswind] queues``. Raises ``ValueError`` if the executor would refuse it."""
        text = self.config.get("crosswind", {}).get("queues") or "{}"
        try:
            settings_by_queue = parse_json(str(text))
        except ValueError as problem:
            raise ValueError(f"has [crosswind] queues that are not valid JSON: {problem}") from None
        if not isinstance(settings_by_queue, dict):
            raise ValueError("has [crosswind] queues that are not a JSON object; write queues by name")
        queues, problems = parse_queues(settings_by_queue)
        if problems:
            raise ValueError(f"has [crosswind] queues that the executor refuses: {problems[0]}")
        return [refuse_system_namespace(queue.namespace) for queue in queues.values() if queue.namespace]

    @model_validator(mode="after")
    def _queues_are_valid(self) -> Values:
        self._queue_namespaces()
        return self

    @field_validator("config")
    @classmethod
    def _config_is_safe(cls, config: dict[str, dict[str, Setting]]) -> dict[str, dict[str, Setting]]:
        if problems := [*config_problems(config), *port_problems(config)]:
            raise ValueError("; it ".join(problems))
        return config

    @model_validator(mode="after")
    def _config_fits(self) -> Values:
        metrics = self.config.get("metrics", {})
        if self.metrics.statsd and ("statsd_host" in metrics or str(metrics.get("statsd_on", True)).lower() == "false"):
            raise ValueError(
                "has [metrics] options for another exporter; write metrics: {statsd: false} to leave out this one"
            )
        if "dag_bundle_config_list" in self.config.get("dag_processor", {}) and self.dags.source != "image":
            fix = "leave dags out, or write that repository into dags alone"
            raise ValueError(
                f"has [dag_processor] dag_bundle_config_list beside dags of source {self.dags.source}; {fix}"
            )
        base_url = str(self.config.get("api", {}).get("base_url", ""))
        parts = split_url(base_url)
        if base_url and (parts is None or parts.path.rstrip("/") != self.web.path):
            raise ValueError("has [api] base_url with another path than web.path; write web.host and web.path")
        return self

    @model_validator(mode="after")
    def _remote_has_store(self) -> Values:
        if self.secrets.store is None and (self._remote_keys() or getattr(self.dags, "remote", None)):
            raise ValueError("names remote secrets but no secrets.store; name the store that has them")
        return self

    def _remote_keys(self) -> dict[str, SecretKey]:
        """Return the keys that are fetched from the store, by their names in the values file."""
        fields = type(self.secrets).model_fields.items()
        keys = {f"secrets.{field.alias}": getattr(self.secrets, name) for name, field in fields if name != "store"}
        return {name: key for name, key in keys.items() if key.remote}

    @model_validator(mode="after")
    def _remote_secrets_are_distinct(self) -> Values:
        keys = self._remote_keys()
        for (name, key), (other_name, other) in combinations(keys.items(), 2):
            if (key.name, key.key) == (other.name, other.key) and key != other:
                raise ValueError(
                    f"fetches {name} and {other_name} into one key of one Secret; write another key for one"
                )
        if isinstance(self.dags, GitDags) and self.dags.remote:
            for name, key in keys.items():
                if key.name == self.dags.secret:
                    raise ValueError(
                        f"fetches {name} and dags.secret into one Secret; write another name for one of them"
                    )
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Values:
        if self.mesh.gateway and (self.mesh.kind != "istio" or not self.web.host):
            raise ValueError("has mesh.gateway, which needs mesh.kind istio and web.host")
        if self.web.admin and self.web.auth != "fab":
            raise ValueError("has web.admin, which is a user of web.auth fab; leave it out")
        if self.web.auth == "simple" and self.api_server.replicas > 1:
            raise ValueError(
                "has web.auth simple, whose passwords each API server generates for itself; write apiServer.replicas: 1"
            )
        return self

    def _volume_for_one_namespace(self) -> bool:
        parts = (self.dags, self.logs)
        volumes = [part.volume for part in parts if isinstance(part, VolumeDags | VolumeLogs)]
        return any(volume.claim is None and (volume.efs is None or volume.efs.dynamic) for volume in volumes)

    @model_validator(mode="after")
    def _volumes_are_shared(self) -> Values:
        if self._volume_for_one_namespace() and len(self.namespaces) > 1:
            raise ValueError(
                "needs one volume in several namespaces, which a storage class cannot provide;"
                " name an EFS file system, or a claim that you create in each namespace"
            )
        return self
