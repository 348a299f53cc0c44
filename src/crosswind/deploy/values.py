"""The values that describe one deployment: what may be said, and what holds when nothing is said.

Keys are written in camelCase, as Kubernetes writes its own. Fields typed as manifests are passed on as they are.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StringConstraints, field_validator, model_validator
from pydantic.alias_generators import to_camel

from crosswind.deploy.config_rules import config_problems, variable_problems
from crosswind.deploy.secrecy import secret_assignments, secret_variable, urls_with_user
from crosswind.pods.queues import parse_queues
from crosswind.types import Manifest

__all__ = [
    "Admin",
    "ArchiveLogs",
    "BundleDags",
    "Component",
    "Database",
    "Efs",
    "GitDags",
    "GitSyncDags",
    "Identity",
    "ImageDags",
    "Logs",
    "Mesh",
    "Metrics",
    "Network",
    "PgBouncer",
    "PodLogs",
    "Reaper",
    "RemoteLogs",
    "SecretKey",
    "SecretStore",
    "Secrets",
    "Values",
    "Volume",
    "VolumeDags",
    "VolumeLogs",
    "Web",
    "Workers",
]

Name = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", max_length=30)]
"""Short, so that no name or label made of it is longer than 63 characters, which meshes refuse."""

DnsName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]
Text = Annotated[str, StringConstraints(min_length=1)]
Cidr = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F.:]+/\d{1,3}$")]
GcpAccount = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+@[a-z0-9.:-]+\.iam\.gserviceaccount\.com$")]
AzureClient = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]
AwsRole = Annotated[str, StringConstraints(pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/.+$")]
Setting = str | int | float | bool

_SCP_FORM = re.compile(r"(?:[\w.-]+@)?(?:[\w.-]+|\[[0-9a-fA-F:]+\]):(?!//)")
"""``git@host:path``, as scp writes it; a number behind the colon is the begin of the path."""


def is_ssh(repo: str) -> bool:
    """Return whether a Git repository's address is one of SSH."""
    return repo.startswith(("ssh://", "git+ssh://")) or ("://" not in repo and _SCP_FORM.match(repo) is not None)


class Part(BaseModel):
    """What all parts of the values have in common: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)

    @field_validator("*")
    @classmethod
    def _no_address_with_password(cls, value: object) -> object:
        for url in urls_with_user(value):
            place = url.partition("://")[0] + "://"
            raise ValueError(f"has an address {place}... with a user or password in it; put it into a Secret")
        return value


class SecretKey(Part):
    """One value of one Secret. ``remote`` and ``property``: where the store of external secrets has it."""

    name: DnsName
    key: Text
    remote: Text | None = None
    property: Text | None = None


class SecretStore(Part):
    """The store of the External Secrets operator that ``remote`` values come from."""

    name: DnsName
    kind: Literal["SecretStore", "ClusterSecretStore"] = "ClusterSecretStore"
    refresh: Text = "1h"


class Secrets(Part):
    """Where the secrets are. They are referred to, never contained; those with ``remote`` come from ``store``."""

    database: SecretKey = SecretKey(name="airflow-database", key="connection")
    fernet_key: SecretKey = SecretKey(name="airflow-secrets", key="fernet-key")
    api_secret_key: SecretKey = SecretKey(name="airflow-secrets", key="api-secret-key")
    jwt_secret: SecretKey = SecretKey(name="airflow-secrets", key="jwt-secret")
    store: SecretStore | None = None


class Database(Part):
    """The metadata database, for network policies and the mesh; its address with password is in the Secret."""

    host: DnsName | None = None
    port: int = Field(default=5432, ge=1, le=65535)
    cidrs: tuple[Cidr, ...] = ()


class Efs(Part):
    """An Amazon EFS file system. ``dynamic``: the driver makes an access point for each claim."""

    file_system: Annotated[str, StringConstraints(pattern=r"^fs-[0-9a-f]+$")]
    access_point: Annotated[str, StringConstraints(pattern=r"^fsap-[0-9a-f]+$")] | None = None
    dynamic: bool = False

    @model_validator(mode="after")
    def _one_kind(self) -> Efs:
        if self.dynamic and self.access_point:
            raise ValueError("has both dynamic and accessPoint; a dynamic volume makes its own access point")
        return self


class Volume(Part):
    """A volume that many nodes mount: an existing ``claim``, or a new one of a storage class or EFS file system."""

    claim: DnsName | None = None
    size: Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?([KMGTPE]i?)?$")] = "10Gi"
    storage_class: DnsName | None = None
    efs: Efs | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Volume:
        given = [name for name in ("claim", "storage_class", "efs") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"has {' and '.join(to_camel(name) for name in given)}; keep one of them")
        return self


class ImageDags(Part):
    """The DAG files are in the image."""

    source: Literal["image"] = "image"
    path: Text = "/opt/airflow/dags"


class VolumeDags(Part):
    """The DAG files are on a volume that somebody else fills."""

    source: Literal["pvc"]
    volume: Volume = Volume()
    path: Text = "/opt/airflow/dags"


class GitDags(Part):
    """What git-sync and git bundles have in common. ``secret`` is the name of a Secret for private repositories."""

    repo: Text
    ref: Text = "main"
    subdir: str = "dags"
    secret: DnsName | None = None
    remote: Text | None = None
    """Where the store of external secrets has that Secret, all keys of it."""

    @property
    def ssh(self) -> bool:
        """Whether the repository is reached by SSH, with a key instead of a password."""
        return is_ssh(self.repo)

    @model_validator(mode="after")
    def _remote_has_name(self) -> GitDags:
        if self.remote and not self.secret:
            raise ValueError("has remote but no secret; secret is the name that the fetched Secret gets")
        return self


class GitSyncDags(GitDags):
    """git-sync fetches the DAG files. Secret: keys ``username`` and ``password``, or ``ssh`` and ``known_hosts``."""

    source: Literal["git-sync"]
    period: Text = "60s"
    depth: int = Field(default=1, ge=0)
    image: Text = "registry.k8s.io/git-sync/git-sync:v4.4.2"


class BundleDags(GitDags):
    """Airflow's own Git bundle: workers check out the commit of their DAG run. Secret: key ``connection``, a URI."""

    source: Literal["bundle"]


Dags = Annotated[ImageDags | VolumeDags | GitSyncDags | BundleDags, Field(discriminator="source")]


class VolumeLogs(Part):
    """Task logs are kept on a volume that workers and API servers mount."""

    to: Literal["volume"]
    volume: Volume = Volume()


class RemoteLogs(Part):
    """Task logs are kept in an object store: ``s3://bucket/path``, ``gs://...``, ``wasb-...``."""

    to: Literal["remote"]
    url: Annotated[str, StringConstraints(pattern=r"^[a-z0-9+-]+://.+|^wasb.+")]
    connection: Text | None = None


class ArchiveLogs(Part):
    """Task logs are kept in the metadata database."""

    to: Literal["archive"] = "archive"


class PodLogs(Part):
    """Task logs can be read as long as the pod exists."""

    to: Literal["none"]


Logs = Annotated[ArchiveLogs | VolumeLogs | RemoteLogs | PodLogs, Field(discriminator="to")]


class Admin(Part):
    """The first user of the UI, made by a Job. The password is in a Secret."""

    username: Text = "admin"
    email: Text
    first_name: Text = "Airflow"
    last_name: Text = "Admin"
    password: SecretKey


class Web(Part):
    """How people reach the UI. Without ``host`` only from within the cluster."""

    host: DnsName | None = None
    path: Annotated[str, StringConstraints(pattern=r"^(/[\w.-]+)*$")] = ""
    tls_secret: DnsName | None = None
    ingress_class: DnsName | None = None
    annotations: dict[str, str] = {}
    from_namespace: DnsName | None = None
    """Namespace of the ingress controller or gateway; None lets pods of all namespaces in."""
    admin: Admin | None = None
    """The first user; None: make one by hand."""
    auth: Text = "fab"
    """``fab``, ``simple`` (for trying out only) or the class path of an auth manager."""
    fab_config: str = "AUTH_TYPE = 1  # users and passwords in the database\n"
    """Python file of Flask AppBuilder; secrets in it belong into environment variables."""

    @field_validator("fab_config")
    @classmethod
    def _no_literal_secret(cls, text: str) -> str:
        for name in secret_assignments(text):
            raise ValueError(f"has {name} as a literal; read it by os.environ from a variable that a Secret fills")
        return text


class Mesh(Part):
    """The service mesh that injects sidecars."""

    kind: Literal["none", "istio", "linkerd"] = "none"
    sidecars: Literal["native", "ordinary"] = "native"
    """native: ended by Kubernetes (1.29 and later; Istio 1.19, Linkerd 2.15); ordinary: by Crosswind."""
    workers: bool = True
    """Whether workers get a sidecar."""
    cni: bool = True
    """Whether the mesh's CNI plug-in is installed. Without it sidecars need rights that restricted pods do not have."""
    revision: Name | None = None
    gateway: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+/[a-z0-9.-]+$")] | None = None
    """Istio Gateway (namespace/name) that serves the UI in place of an Ingress."""
    external_hosts: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+:\d+$")], ...] = ()
    """Hosts outside the mesh (name:port) that are called, for meshes that let only registered ones through."""
    trust_domain: DnsName = "cluster.local"


class Metrics(Part):
    """Metrics for Prometheus."""

    statsd: bool = True
    image: Text = "quay.io/prometheus/statsd-exporter:v0.30.0"
    from_namespace: DnsName | None = None
    """Namespace of Prometheus; None lets pods of all namespaces in."""
    alerts: bool = False
    """Whether the Prometheus operator gets alert rules (PrometheusRule)."""
    alert_labels: dict[str, str] = {}
    """Labels by which that Prometheus finds rules, such as ``release: prometheus``."""

    @model_validator(mode="after")
    def _alerts_need_metrics(self) -> Metrics:
        if self.alerts and not self.statsd:
            raise ValueError("has alerts without statsd, whose metrics they are about; leave statsd on")
        return self


class Network(Part):
    """Network policies, and what they cannot know by themselves."""

    policies: bool = True
    kubernetes_api: tuple[Cidr, ...] = ()
    """Addresses of the Kubernetes API (its Service's and its endpoints'); () is any address at ports 443 and 6443."""
    cluster_domain: DnsName = "cluster.local"


class PodValues(Part):
    """What can be said about the pods of one component, or of all."""

    env: tuple[Manifest, ...] = ()
    """Variables. One whose name is that of a secret comes from a Secret; ``plain: true`` says that it is none."""
    node_selector: dict[str, str] = {}
    tolerations: tuple[Manifest, ...] = ()
    annotations: dict[str, str] = {}
    volumes: tuple[Manifest, ...] = ()
    volume_mounts: tuple[Manifest, ...] = ()
    priority_class: DnsName | None = None

    @field_validator("env")
    @classmethod
    def _env_is_safe(cls, env: tuple[Manifest, ...]) -> tuple[Manifest, ...]:
        for variable in env:
            if why := secret_variable(variable):
                fix = "refer to a Secret by valueFrom.secretKeyRef, or add plain: true if it is no secret"
                raise ValueError(f"has {variable.get('name')} with a literal value and {why}; {fix}")
            for problem in variable_problems(variable):
                raise ValueError(problem)
        return tuple({key: value for key, value in variable.items() if key != "plain"} for variable in env)


class Identity(PodValues):
    """The identity at a cloud that a component's service account stands for: one of three kinds."""

    aws_role: AwsRole | None = None
    """EKS: the role's ARN."""
    gcp_service_account: GcpAccount | None = None
    """GKE, Workload Identity Federation: the Google service account."""
    azure_client: AzureClient | None = None
    """AKS, Workload ID: the client id of the managed identity."""

    @model_validator(mode="after")
    def _one_cloud(self) -> Self:
        given = [name for name in ("aws_role", "gcp_service_account", "azure_client") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"has {' and '.join(to_camel(name) for name in given)}; keep one of them")
        return self

    @property
    def has_identity(self) -> bool:
        """Whether its pods ask a cloud for credentials."""
        return bool(self.aws_role or self.gcp_service_account or self.azure_client)


def resources(cpu: str, memory: str) -> Manifest:
    """Return what a container asks for. No CPU limit: it would slow down even where CPUs are idle."""
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}}


class Component(Identity):
    """One of Airflow's long-running programs."""

    replicas: int = Field(default=1, ge=1)
    resources: Manifest = resources("500m", "1Gi")
    affinity: Manifest = {}


class Scheduler(Component):
    """The schedulers; more than one share the work."""

    resources: Manifest = resources("500m", "2Gi")


class ApiServer(Component):
    """The API servers: UI, REST API, and all that workers talk to."""

    replicas: int = Field(default=2, ge=1)
    resources: Manifest = resources("500m", "2Gi")


class Triggerer(Component):
    """The triggerers, for deferred tasks."""

    replicas: int = Field(default=1, ge=0)


class Reaper(Component):
    """The reaper, which ends the sidecars of Jobs and others whose work is done."""

    namespaces: tuple[Name, ...] = ()
    """Where it may touch pods; () leaves it out."""
    selector: Text = "batch.kubernetes.io/job-name"
    """Label selector of those pods."""
    permissions: Literal["A", "B", "C"] = "A"
    """A: asks over port-forward; B: also runs commands in pods; C: also changes and deletes them (docs/reaper.md)."""
    replicas: int = Field(default=2, ge=1)
    resources: Manifest = resources("50m", "256Mi")


class PgBouncer(Component):
    """PgBouncer in front of the database: schedulers and API servers of a large deployment open many connections.

    ``config`` is a Secret with the files ``pgbouncer.ini`` (``listen_port = 6543``, ``listen_addr = *``) and
    ``users.txt``; the address in ``secrets.database`` is then that of PgBouncer's Service.
    """

    config: DnsName | None = None
    image: Text = "apache/airflow:airflow-pgbouncer-2025.03.05-1.23.1"
    replicas: int = Field(default=2, ge=1)
    resources: Manifest = resources("100m", "128Mi")


class Workers(Identity):
    """The pods of tasks."""

    namespaces: tuple[Name, ...] = ()
    """Where they run; the first is the default. (): NAMESPACE-workers, for a pod may read all Secrets of its own."""
    resources: Manifest = resources("250m", "1Gi")
    affinity: Manifest = {}
    launch_pods: bool = False
    """Whether tasks start pods themselves (KubernetesPodOperator)."""
    read_only_root: bool = True
    """Whether tasks can write to /tmp and their logs only."""
    admission_policy: bool = False
    """Whether the API server refuses pods of tasks that ask for other Secrets or service accounts than their own."""
    secrets: tuple[DnsName, ...] = ()
    """Further Secrets that pods of tasks may ask for under that policy."""
    service_accounts: tuple[DnsName, ...] = ()
    """Further service accounts that pods of tasks may have under that policy."""


class Values(Part):
    """One deployment of Airflow."""

    name: Name = "airflow"
    namespace: Name = "airflow"
    create_namespaces: bool = True
    platform: Literal["kubernetes", "openshift"] = "kubernetes"
    """openshift: users and groups of pods come from the namespace's range."""
    delivery: Literal["kubectl", "argocd", "flux"] = "kubectl"
    """What applies the manifests: Argo CD gets waves and a hook for the migrations, Flux a Job that stays."""
    image: Text
    """An image of Airflow 3.3 that has crosswind; best with a digest."""
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[DnsName, ...] = ()
    airflow_version: Annotated[str, StringConstraints(pattern=r"^3\.\d+\.\d+[a-z0-9.]*$")] = "3.3.2"
    executor: Text = "crosswind.executor.KubernetesExecutor"
    config: dict[str, dict[str, Setting]] = {}
    """Further options of airflow.cfg, by section."""
    database: Database = Database()
    secrets: Secrets = Secrets()
    dags: Dags = ImageDags()
    logs: Logs = ArchiveLogs()
    web: Web = Web()
    mesh: Mesh = Mesh()
    metrics: Metrics = Metrics()
    network: Network = Network()
    pods: PodValues = PodValues()
    """For all pods of Airflow, beside what their component says."""
    scheduler: Scheduler = Scheduler()
    api_server: ApiServer = ApiServer()
    dag_processor: Component = Component()
    triggerer: Triggerer = Triggerer()
    migrations: Component = Component()
    workers: Workers = Workers()
    reaper: Reaper = Reaper()
    pgbouncer: PgBouncer = PgBouncer()

    _workers_apart: bool = PrivateAttr(default=False)

    @property
    def worker_namespaces(self) -> tuple[str, ...]:
        """Where workers run: by default, and those whose queue says so."""
        default = f"{self.namespace}-workers" if self._workers_apart else self.namespace
        return tuple(dict.fromkeys((*(self.workers.namespaces or (default,)), *self._queue_namespaces())))

    def with_workers_apart(self, apart: bool) -> Values:
        """Return the same with workers in NAMESPACE-workers where ``workers.namespaces`` does not say otherwise.

        Without it they are in the namespace of everything else, as in releases up to 0.1. A volume that only one
        namespace can have keeps them there.
        """
        values = self.model_copy()
        values._workers_apart = apart and not self._volume_for_one_namespace() and len(self.namespace) <= 55
        return values

    @property
    def namespaces(self) -> tuple[str, ...]:
        """All namespaces of the deployment, the main one first."""
        return tuple(dict.fromkeys((self.namespace, *self.worker_namespaces)))

    @property
    def in_main_wait(self) -> bool:
        """Whether init containers have no network, because ordinary sidecars start after them."""
        return self.mesh.kind != "none" and self.mesh.sidecars == "ordinary"

    def _queue_namespaces(self) -> list[str]:
        """Return the namespaces that ``[crosswind] queues`` names. ``ValueError``: the executor refuses it."""
        given = self.config.get("crosswind", {}).get("queues") or "{}"
        try:
            read = json.loads(str(given))
        except ValueError as problem:
            raise ValueError(f"has [crosswind] queues that are no JSON: {problem}") from None
        if not isinstance(read, dict):
            raise ValueError("has [crosswind] queues that are no JSON object; write queues by name")
        queues, problems = parse_queues(read)
        if problems:
            raise ValueError(f"has [crosswind] queues that the executor refuses: {problems[0]}")
        return [queue.namespace for queue in queues.values() if queue.namespace]

    @model_validator(mode="after")
    def _queues_are_taken(self) -> Values:
        self._queue_namespaces()
        return self

    @field_validator("config")
    @classmethod
    def _config_is_safe(cls, config: dict[str, dict[str, Setting]]) -> dict[str, dict[str, Setting]]:
        if problems := [*config_problems(config)]:
            raise ValueError("; it ".join(problems))
        return config

    @model_validator(mode="after")
    def _config_fits(self) -> Values:
        metrics = self.config.get("metrics", {})
        if self.metrics.statsd and ("statsd_host" in metrics or str(metrics.get("statsd_on", True)).lower() == "false"):
            raise ValueError("has [metrics] options that need no exporter of its own; write metrics: {statsd: false}")
        if "dag_bundle_config_list" in self.config.get("dag_processor", {}) and self.dags.source != "image":
            fix = "leave dags out, or write that repository into dags alone"
            raise ValueError(
                f"has [dag_processor] dag_bundle_config_list beside dags of source {self.dags.source}; {fix}"
            )
        base_url = str(self.config.get("api", {}).get("base_url", ""))
        if base_url and urlsplit(base_url).path.rstrip("/") != self.web.path:
            raise ValueError("has [api] base_url with another path than web.path; write web.host and web.path")
        return self

    @model_validator(mode="after")
    def _remote_has_store(self) -> Values:
        keys = [getattr(self.secrets, name) for name in type(self.secrets).model_fields if name != "store"]
        remote = any(key.remote for key in keys) or bool(getattr(self.dags, "remote", None))
        if remote and self.secrets.store is None:
            raise ValueError("names remote secrets but no secrets.store; say which store has them")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Values:
        if self.mesh.gateway and (self.mesh.kind != "istio" or not self.web.host):
            raise ValueError("has mesh.gateway, which needs mesh.kind istio and web.host")
        if self.web.admin and self.web.auth != "fab":
            raise ValueError("has web.admin, which is a user of web.auth fab; leave it out")
        if self.web.auth == "simple" and self.api_server.replicas > 1:
            raise ValueError("has web.auth simple, whose passwords each API server makes; say apiServer.replicas 1")
        return self

    def _volume_for_one_namespace(self) -> bool:
        volume = getattr(self.logs, "volume", None) or getattr(self.dags, "volume", None)
        return volume is not None and volume.claim is None and (volume.efs is None or volume.efs.dynamic)

    @model_validator(mode="after")
    def _volumes_are_shared(self) -> Values:
        if self._volume_for_one_namespace() and len(self.namespaces) > 1:
            raise ValueError(
                "wants one volume in several namespaces, which a storage class cannot give; name an EFS file system, "
                "or a claim that you make in each namespace"
            )
        return self
