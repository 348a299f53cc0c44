"""The sections of a values file, each a model of its keys with their defaults and rules.

Keys are in camelCase, like those of Kubernetes. Fields of type ``Manifest`` are copied into the rendered objects.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from crosswind.deploy.addresses import Cidr, Host, HostName, HostPort, valid_url
from crosswind.deploy.config_rules import variable_problems
from crosswind.deploy.json_values import json_problems
from crosswind.deploy.python_literals import secret_assignments
from crosswind.deploy.secrecy import secret_variable, urls_with_user
from crosswind.documents import FieldProblem
from crosswind.pods.field_types import FIELD_TYPES
from crosswind.pods.fragment_shape import field_problems, without_nulls
from crosswind.types import Json, Manifest

__all__ = [
    "AdminValues",
    "ApiServerValues",
    "ArchiveLogs",
    "AwsRole",
    "AzureClient",
    "BundleDags",
    "ComponentValues",
    "Dags",
    "DatabaseValues",
    "DnsName",
    "EfsValues",
    "FragmentError",
    "GcpAccount",
    "GitDags",
    "GitSyncDags",
    "IdentityValues",
    "Image",
    "ImageDags",
    "Logs",
    "MeshValues",
    "MetricsValues",
    "Name",
    "Namespace",
    "NamespaceName",
    "NetworkValues",
    "PgBouncerValues",
    "PodLogs",
    "PodValues",
    "ReaperValues",
    "RemoteLogs",
    "SchedulerValues",
    "SecretKey",
    "SecretStore",
    "SecretsValues",
    "Setting",
    "Text",
    "TriggererValues",
    "ValuesSection",
    "VolumeDags",
    "VolumeLogs",
    "VolumeValues",
    "WebValues",
    "WorkersValues",
    "is_ssh",
    "refuse_system_namespace",
    "resources",
]

Name = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", max_length=30)]
"""Short, so that no name or label derived from it exceeds 63 characters, the limit of labels."""

NamespaceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]
"""Any namespace. Names and labels that are limited to 63 characters are not derived from it."""


def refuse_system_namespace(name: str) -> str:
    """Return the namespace; raises ``ValueError`` if it is one of Kubernetes' own, whose pods need more rights."""
    if name.startswith("kube-"):
        raise ValueError(f"has namespace {name}, but kube- is reserved for Kubernetes itself; choose another namespace")
    return name


Namespace = Annotated[NamespaceName, AfterValidator(refuse_system_namespace)]
"""A namespace of the deployment, whose pods must be restricted ones."""

DnsName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$", max_length=253),
]
Text = Annotated[str, StringConstraints(min_length=1)]
Image = Annotated[str, StringConstraints(pattern=r"^\S+$")]
SecretDataKey = Annotated[
    str, StringConstraints(pattern=r"^([-_a-zA-Z0-9]|\.[-_a-zA-Z0-9])[-._a-zA-Z0-9]*$", max_length=253)
]
GcpAccount = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+@[a-z0-9.:-]+\.iam\.gserviceaccount\.com$")]
AzureClient = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]
AwsRole = Annotated[str, StringConstraints(pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/.+$")]
Setting = str | int | float | bool


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"is {str(value).lower()}; write a number")
    return value


Integer = Annotated[int, BeforeValidator(_no_boolean)]
"""A number. pydantic alone reads true as 1."""

_SCP_FORM = re.compile(r"(?:[\w.-]+@)?(?:[\w.-]+|\[[0-9a-fA-F:]+\]):(?!//)")
"""``git@host:path``, the notation of scp, in which a number after the colon is part of the path."""


def is_ssh(repo: str) -> bool:
    """Return whether the address of a Git repository uses SSH."""
    return repo.startswith(("ssh://", "git+ssh://")) or ("://" not in repo and _SCP_FORM.match(repo) is not None)


def _without_dot_segments(path: str) -> str:
    """Refuse a path that an Ingress refuses."""
    if {".", ".."} & {*path.split("/")}:
        raise ValueError(f"is {path!r}, which has a segment of dots; write the path without it")
    return path


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


class ValuesSection(BaseModel):
    """The base of all sections: unknown keys and addresses with a password are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, hide_input_in_errors=True)

    @field_validator("*")
    @classmethod
    def _no_address_with_password(cls, value: object) -> object:
        for url in urls_with_user(value):
            scheme = url.partition("://")[0] + "://"
            raise ValueError(f"has an address {scheme}... with a user or password in it; put it into a Secret")
        return value


class SecretKey(ValuesSection):
    """One key of one Secret. ``remote`` and ``property``: its place in the store of external secrets."""

    name: DnsName
    key: SecretDataKey
    remote: Text | None = None
    property: Text | None = None


class SecretStore(ValuesSection):
    """The store of the External Secrets operator that ``remote`` values come from."""

    name: DnsName
    kind: Literal["SecretStore", "ClusterSecretStore"] = "ClusterSecretStore"
    refresh: Text = "1h"


class SecretsValues(ValuesSection):
    """References to the Secrets. The External Secrets operator fetches those with ``remote`` from ``store``."""

    database: SecretKey = SecretKey(name="airflow-database", key="connection")
    fernet_key: SecretKey = SecretKey(name="airflow-secrets", key="fernet-key")
    api_secret_key: SecretKey = SecretKey(name="airflow-secrets", key="api-secret-key")
    jwt_secret: SecretKey = SecretKey(name="airflow-secrets", key="jwt-secret")
    store: SecretStore | None = None


class DatabaseValues(ValuesSection):
    """The metadata database's address for network policies and the mesh; the connection is in the Secret."""

    host: Host | None = None
    port: Integer = Field(default=5432, ge=1, le=65535)
    cidrs: tuple[Cidr, ...] = ()


class EfsValues(ValuesSection):
    """An Amazon EFS file system. ``dynamic``: the driver creates an access point for each claim."""

    file_system: Annotated[str, StringConstraints(pattern=r"^fs-[0-9a-f]+$")]
    access_point: Annotated[str, StringConstraints(pattern=r"^fsap-[0-9a-f]+$")] | None = None
    dynamic: bool = False

    @model_validator(mode="after")
    def _one_kind(self) -> EfsValues:
        if self.dynamic and self.access_point:
            raise ValueError("has both dynamic and accessPoint; a dynamic volume creates its own access point")
        return self


class VolumeValues(ValuesSection):
    """A volume that many nodes mount: an existing ``claim``, or a new one from a storage class or EFS file system."""

    claim: DnsName | None = None
    size: Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?([KMGTPE]i|[kMGTPE])?$")] = "10Gi"
    storage_class: DnsName | None = None
    efs: EfsValues | None = None

    @model_validator(mode="after")
    def _one_source(self) -> VolumeValues:
        sources = [name for name in ("claim", "storage_class", "efs") if getattr(self, name) is not None]
        if len(sources) > 1:
            raise ValueError(f"has {' and '.join(to_camel(name) for name in sources)}; keep one of them")
        return self


class ImageDags(ValuesSection):
    """The DAG files are in the image."""

    source: Literal["image"] = "image"
    path: Text = "/opt/airflow/dags"


class VolumeDags(ValuesSection):
    """The DAG files are on a volume that the user fills."""

    source: Literal["pvc"]
    volume: VolumeValues = VolumeValues()
    path: Text = "/opt/airflow/dags"


class GitDags(ValuesSection):
    """The keys that git-sync and Git bundles share. ``secret`` is the name of a Secret for private repositories."""

    repo: Annotated[Text, AfterValidator(valid_url)]
    ref: Text = "main"
    subdir: str = "dags"
    secret: DnsName | None = None
    remote: Text | None = None
    """The entry in the store of external secrets that holds all keys of that Secret."""

    @property
    def ssh(self) -> bool:
        """Whether the repository is accessed by SSH, with a key instead of a password."""
        return is_ssh(self.repo)

    @model_validator(mode="after")
    def _remote_has_name(self) -> GitDags:
        if self.remote and not self.secret:
            raise ValueError("has remote but no secret; secret is the name of the Secret that is fetched")
        return self


class GitSyncDags(GitDags):
    """git-sync fetches the DAG files. Secret: keys ``username`` and ``password``, or ``ssh`` and ``known_hosts``."""

    source: Literal["git-sync"]
    period: Text = "60s"
    depth: Integer = Field(default=1, ge=0)
    image: Image = "registry.k8s.io/git-sync/git-sync:v4.4.2"


class BundleDags(GitDags):
    """Airflow's Git bundle: workers check out the commit of their DAG run. Secret: key ``connection``, a URI."""

    source: Literal["bundle"]


Dags = Annotated[ImageDags | VolumeDags | GitSyncDags | BundleDags, Field(discriminator="source")]


class VolumeLogs(ValuesSection):
    """Task logs are on a volume that workers and API servers mount."""

    to: Literal["volume"]
    volume: VolumeValues = VolumeValues()


class RemoteLogs(ValuesSection):
    """Task logs are in an object store: ``s3://bucket/path``, ``gs://...``, ``wasb-...``."""

    to: Literal["remote"]
    url: Annotated[str, StringConstraints(pattern=r"^[a-z0-9+-]+://.+|^wasb.+"), AfterValidator(valid_url)]
    connection: Text | None = None


class ArchiveLogs(ValuesSection):
    """Task logs are in the metadata database."""

    to: Literal["archive"] = "archive"


class PodLogs(ValuesSection):
    """Task logs can be read only while the pod exists."""

    to: Literal["none"]


Logs = Annotated[ArchiveLogs | VolumeLogs | RemoteLogs | PodLogs, Field(discriminator="to")]


class AdminValues(ValuesSection):
    """The first user of the UI, which a Job creates. The password is in a Secret."""

    username: Text = "admin"
    email: Text
    first_name: Text = "Airflow"
    last_name: Text = "Admin"
    password: SecretKey


class FragmentError(ValueError):
    """Problems in a fragment of a Pod, each with its path below the field that holds the fragment."""

    def __init__(self, problems: list[FieldProblem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


_FRAGMENTS = {
    "env": ("Container", "env"),
    "node_selector": ("PodSpec", "nodeSelector"),
    "tolerations": ("PodSpec", "tolerations"),
    "annotations": ("ObjectMeta", "annotations"),
    "volumes": ("PodSpec", "volumes"),
    "volume_mounts": ("Container", "volumeMounts"),
    "resources": ("Container", "resources"),
    "affinity": ("PodSpec", "affinity"),
    "alert_labels": ("ObjectMeta", "labels"),
}
"""The keys that are copied into objects, and the type and field of Kubernetes that they fill."""


def _checked_fragment(key: str, value: Json) -> Json:
    """Return a fragment without nulls; raises ``FragmentError``."""
    kind, field = _FRAGMENTS[key]
    fragment = [*value] if isinstance(value, tuple) else value
    # A field that Crosswind does not know may hold what only YAML has.
    if problems := field_problems(kind, field, fragment) or [*json_problems(fragment)]:
        raise FragmentError(problems)
    clean = without_nulls(FIELD_TYPES[kind][field][0], fragment)
    return tuple(clean) if isinstance(value, tuple) else clean


class WebValues(ValuesSection):
    """Access to the UI. Without ``host`` it is reachable only inside the cluster."""

    host: HostName | None = None
    path: Annotated[str, StringConstraints(pattern=r"^(/[\w.-]+)*$"), AfterValidator(_without_dot_segments)] = ""
    tls_secret: DnsName | None = None
    ingress_class: DnsName | None = None
    annotations: dict[str, str] = {}
    from_namespace: DnsName | None = None
    """Namespace of the ingress controller or gateway; None admits pods of all namespaces."""
    admin: AdminValues | None = None
    """The first user; None: create one by hand."""
    auth: Text = "fab"
    """``fab``, ``simple`` (for trying out only) or the class path of an auth manager."""
    fab_config: str = "AUTH_TYPE = 1  # users and passwords in the database\n"
    """Python file of Flask AppBuilder. It must read secrets from environment variables."""

    @field_validator("annotations")
    @classmethod
    def _keys_are_valid(cls, annotations: dict[str, str]) -> dict[str, str]:
        checked: dict[str, str] = _checked_fragment("annotations", annotations)
        return checked

    @field_validator("fab_config")
    @classmethod
    def _no_literal_secret(cls, text: str) -> str:
        for name in secret_assignments(text):
            raise ValueError(f"has {name} as a literal; read it by os.environ from a variable that a Secret fills")
        return text


class MeshValues(ValuesSection):
    """The service mesh that injects sidecars."""

    kind: Literal["none", "istio", "linkerd"] = "none"
    sidecars: Literal["native", "ordinary"] = "native"
    """native: Kubernetes ends them (1.29 and later; Istio 1.19, Linkerd 2.15); ordinary: Crosswind ends them."""
    workers: bool = True
    """Whether workers get a sidecar."""
    cni: bool = True
    """Whether the mesh's CNI plug-in is installed. Without it, sidecars need rights that restricted pods lack."""
    revision: Name | None = None
    gateway: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+/[a-z0-9.-]+$")] | None = None
    """Istio Gateway (namespace/name) that serves the UI instead of an Ingress."""
    external_hosts: tuple[HostPort, ...] = ()
    """Hosts outside the mesh (name:port) that pods call, for meshes that allow only registered hosts."""
    trust_domain: DnsName = "cluster.local"


class MetricsValues(ValuesSection):
    """Metrics for Prometheus."""

    statsd: bool = True
    image: Image = "quay.io/prometheus/statsd-exporter:v0.30.0"
    from_namespace: DnsName | None = None
    """Namespace of Prometheus; None admits pods of all namespaces."""
    alerts: bool = False
    """Whether to render alert rules for the Prometheus operator (PrometheusRule)."""
    alert_labels: dict[str, str] = {}
    """Labels by which Prometheus selects rules, such as ``release: prometheus``."""

    @field_validator("alert_labels")
    @classmethod
    def _labels_are_valid(cls, labels: dict[str, str]) -> dict[str, str]:
        checked: dict[str, str] = _checked_fragment("alert_labels", labels)
        return checked

    @model_validator(mode="after")
    def _alerts_need_metrics(self) -> MetricsValues:
        if self.alerts and not self.statsd:
            raise ValueError("has alerts without statsd, whose metrics they use; leave statsd on")
        return self


class NetworkValues(ValuesSection):
    """Network policies, and the facts about the cluster that they need."""

    policies: bool = True
    kubernetes_api: tuple[Cidr, ...] = ()
    """Addresses of the Kubernetes API (its Service and its endpoints); () allows any address at ports 443 and 6443."""
    cluster_domain: DnsName = "cluster.local"


def _as_text(value: Json) -> Json:
    return value if value is None or isinstance(value, dict | list) else str(value)


class PodValues(ValuesSection):
    """Settings of the pods of one component, or of all."""

    env: tuple[Manifest, ...] = ()
    """Environment variables. One that is named like a secret must come from a Secret, unless it has ``plain: true``."""
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
            # First, and a number too: the message about its type repeats the value.
            if reason := secret_variable({**variable, "value": _as_text(variable.get("value"))}):
                fix = "refer to a Secret by valueFrom.secretKeyRef, or add plain: true if it is not a secret"
                raise ValueError(f"has {variable.get('name')} with a literal value and {reason}; {fix}")
            for problem in variable_problems(variable):
                raise ValueError(problem)
        env = tuple({key: value for key, value in variable.items() if key != "plain"} for variable in env)
        return tuple(_checked_fragment("env", env))

    @field_validator(*(key for key in _FRAGMENTS if key != "env"), check_fields=False)
    @classmethod
    def _fragment_is_shaped(cls, value: Json, info: ValidationInfo) -> Json:
        return _checked_fragment(str(info.field_name), value)


class IdentityValues(PodValues):
    """The cloud identity of a component's service account: one of three kinds."""

    aws_role: AwsRole | None = None
    """EKS: the role's ARN."""
    gcp_service_account: GcpAccount | None = None
    """GKE, Workload Identity Federation: the Google service account."""
    azure_client: AzureClient | None = None
    """AKS, Workload ID: the client id of the managed identity."""

    @model_validator(mode="after")
    def _one_cloud(self) -> Self:
        identities = [name for name in ("aws_role", "gcp_service_account", "azure_client") if getattr(self, name)]
        if len(identities) > 1:
            raise ValueError(f"has {' and '.join(to_camel(name) for name in identities)}; keep one of them")
        return self

    @property
    def has_identity(self) -> bool:
        """Whether its pods request credentials from a cloud."""
        return bool(self.aws_role or self.gcp_service_account or self.azure_client)


def resources(cpu: str, memory: str) -> Manifest:
    """Return a container's resources, without a CPU limit, which would throttle it even on an idle node."""
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}}


class ComponentValues(IdentityValues):
    """One of Airflow's long-running programs."""

    replicas: Integer = Field(default=1, ge=1)
    resources: Manifest = resources("500m", "1Gi")
    affinity: Manifest = {}


class SchedulerValues(ComponentValues):
    """The schedulers; several share the work."""

    resources: Manifest = resources("500m", "2Gi")


class ApiServerValues(ComponentValues):
    """The API servers: UI, REST API, and the execution API for workers."""

    replicas: Integer = Field(default=2, ge=1)
    resources: Manifest = resources("500m", "2Gi")


class TriggererValues(ComponentValues):
    """The triggerers, for deferred tasks."""

    replicas: Integer = Field(default=1, ge=0)


class ReaperValues(ComponentValues):
    """The reaper, which ends the sidecars of Jobs and other pods whose main container has ended."""

    namespaces: Annotated[tuple[NamespaceName, ...], AfterValidator(_distinct)] = ()
    """Namespaces whose pods it may touch; () leaves the reaper out."""
    selector: Text = "batch.kubernetes.io/job-name"
    """Label selector of those pods."""
    permissions: Literal["A", "B", "C"] = "A"
    """A: calls quit endpoints over port-forward; B: also runs commands in pods; C: also patches and deletes pods
    (docs/guides/reaper.md)."""
    replicas: Integer = Field(default=2, ge=1)
    resources: Manifest = resources("50m", "256Mi")


class PgBouncerValues(ComponentValues):
    """PgBouncer between Airflow and the database, for large deployments, whose programs open many connections.

    ``config`` is a Secret with the files ``pgbouncer.ini`` (``listen_port = 6543``, ``listen_addr = *``) and
    ``users.txt``. The address in ``secrets.database`` must then be that of PgBouncer's Service.
    """

    config: DnsName | None = None
    image: Image = "apache/airflow:airflow-pgbouncer-2025.03.05-1.23.1"
    replicas: Integer = Field(default=2, ge=1)
    resources: Manifest = resources("100m", "128Mi")


class WorkersValues(IdentityValues):
    """The task pods."""

    namespaces: Annotated[tuple[Namespace, ...], AfterValidator(_distinct)] = ()
    """Namespaces of task pods; the first is the default. (): NAMESPACE-workers, apart from Airflow's own Secrets: a
    pod can read every Secret of its namespace."""
    resources: Manifest = resources("250m", "1Gi")
    affinity: Manifest = {}
    launch_pods: bool = False
    """Whether tasks may start pods (KubernetesPodOperator)."""
    read_only_root: bool = True
    """Whether tasks can write only to /tmp and their logs."""
    admission_policy: bool = False
    """Whether the API server refuses task pods that use other Secrets or service accounts than their own."""
    secrets: tuple[DnsName, ...] = ()
    """Further Secrets that task pods may use under that policy."""
    service_accounts: tuple[DnsName, ...] = ()
    """Further service accounts that task pods may use under that policy."""
