"""The sidecars of Airflow's pods and of Jobs, as data: how each product is recognised and how it ends.

``KNOWN`` is the table, more specific rows first. A row states only what its product does; ``shutdown_plan`` derives the
steps and their order. The module imports the standard library alone, because ``crosswind wrap`` loads it at its start.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

__all__ = ["KNOWN", "Endpoint", "KnownSidecar", "Role", "Setting"]


class Role(enum.StrEnum):
    """The service of a sidecar to its pod. Sidecars end in this order, so that none loses what it still needs."""

    SHIPPER = "shipper"
    """Ships logs or metrics: it flushes over the network, so it ends first."""
    HELPER = "helper"
    """Provides secrets, connections, files."""
    MESH = "mesh"
    """The network of the others: the last that is ended."""
    LAST = "last"
    """Exits by itself when all others have exited."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A default, and the places where a pod may set another value: the first place that does counts."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    default: str = ""
    annotations: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    """Options of the command line, without dashes: ``admin-port`` is ``--admin-port=N`` or ``-admin-port N``."""
    env: tuple[str, ...] = ()
    """Variables of the container; ``NAME:key`` is a key of the JSON in it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An HTTP endpoint of a sidecar that accepts requests from inside its pod."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    port: Setting
    path: Setting
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    enabled: Setting | None = None
    """The switch of an endpoint that is off by default: ``true``, ``enabled`` or a bare flag."""
    numbered: bool = False
    """The port of the product's second container in a pod is one higher, and so on."""


@dataclass(frozen=True, slots=True)
class KnownSidecar:
    """A product that runs as a sidecar. Patterns are shell-style (``*``)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: str
    """Short name, as in settings."""
    containers: tuple[str, ...]
    """Patterns of the container's name; ``*`` alone when users choose it."""
    images: tuple[str, ...]
    """Patterns of the image, registry and tag included."""
    role: Role = Role.HELPER
    like: str = ""
    """Another product with the same endpoints: from inside the pod, without its spec, the two look alike."""
    commands: tuple[str, ...] = ()
    """Patterns of the command line without the program's folder: they recognise a mirrored image with another name."""
    variables: tuple[str, ...] = ()
    """Patterns of variables that only this product reads."""
    marks: tuple[str, ...] = ()
    """Annotations or labels that the injector sets on a pod that it changed."""
    native: Mapping[str, str] = field(default_factory=dict)
    """Annotations that request a native sidecar of the injector; several where the name changed between versions."""
    helps: Mapping[str, str] = field(default_factory=dict)
    """Annotations by which the sidecar accepts a request to quit, or is not injected."""
    asks: tuple[Endpoint, ...] = ()
    """Requests that end it, best first."""
    client: tuple[str, ...] = ()
    """Command in its image that ends it, run without a shell; ``{port}`` is the port of the first of ``asks``."""
    signal: str = "TERM"
    shells: tuple[str, ...] = ("*",)
    """Patterns of its images that have a shell."""
    wait: Setting = field(default_factory=Setting)
    """Time that it may take to end once requested, as seconds or a Go duration; "" is the pod's grace period."""
    asked_code: int | None = 0
    """Exit code after a request; None is unknown."""
    signal_code: int | None = None
    """Exit code after the signal; None is unknown."""
    signal_zero: Setting | None = None
    """The switch that makes the signal's exit code 0."""
    owner: str = ""
    """The component that ends it, if another one does: the first step is then to wait."""
    owner_wait: float = 0.0
    """Seconds to wait for the owner, once all others have ended."""
    owner_in_jobs: bool = False
    """Whether the owner ends it in Jobs only."""
    ready: Endpoint | None = None
    """A GET that answers 2xx once it is ready."""
    note: str = ""
    """Versions and other facts that decide how it ends."""
    sources: tuple[str, ...] = ()


def _image(*names: str) -> tuple[str, ...]:
    """Return patterns of an image in any registry, with and without tag or digest."""
    return tuple(folder + name + end for name in names for folder in ("", "*/") for end in ("", ":*", "@*"))


def _endpoint(port: Setting | str, path: Setting | str, method: str = "POST") -> Endpoint:
    return Endpoint(_setting(port), _setting(path), method)


def _setting(value: Setting | str) -> Setting:
    return Setting(value) if isinstance(value, str) else value


_QUIT = Setting("/quitquitquit")
_ISTIO_PORT = Setting(
    "15020", ("status.sidecar.istio.io/port",), ("statusPort", "status-port"), ("PROXY_CONFIG:statusPort",)
)
_LINKERD_PORT = Setting("4191", ("config.linkerd.io/admin-port",), (), ("LINKERD2_PROXY_ADMIN_LISTEN_ADDR",))
_SQL_PORT = Setting("9091", (), ("admin-port",), ("CSQL_PROXY_ADMIN_PORT",))
_DAPR_PORT = Setting("3500", (), ("dapr-http-port",))

KNOWN: tuple[KnownSidecar, ...] = (
    KnownSidecar(
        "istio",
        ("istio-proxy",),
        _image("proxyv2", "*-proxyv2", "*proxyv2-rhel*", "*proxyv2-ubi*", "istio-proxy"),
        Role.MESH,
        commands=("proxy sidecar*", "pilot-agent proxy *"),
        variables=("ISTIO_META_*", "PROXY_CONFIG"),
        marks=("sidecar.istio.io/status",),
        native={"sidecar.istio.io/nativeSidecar": "true"},
        asks=(Endpoint(_ISTIO_PORT, _QUIT), _endpoint("15000", "/quitquitquit")),
        client=("pilot-agent", "request", "--debug-port={port}", "POST", "quitquitquit"),
        shells=("*-debug", "*/proxyv2:[0-9]*[0-9]", "*proxyv2-ubi[0-9]*"),
        wait=Setting("7", env=("PROXY_CONFIG:terminationDrainDuration",)),
        signal_code=0,
        ready=_endpoint("15021", "/healthz/ready", "GET"),
        note="Agent's endpoint since 1.3, POST from loopback only; from 1.26 it leaves at once, before it drains 5 s."
        " Native by default since 1.27 where all kubelets are 1.33 or newer.",
        sources=(
            "istio/istio pilot/cmd/pilot-agent/status/server.go",
            "istio/api annotation/annotations.yaml",
            "DataDog/integrations-core pull request 11662 (images of OpenShift Service Mesh)",
            "maistra/istio maistra/Dockerfile.proxyv2",
            "chainguard-images/images images/istio-proxy/README.md",
        ),
    ),
    KnownSidecar(
        "linkerd",
        ("linkerd-proxy",),
        _image("linkerd/proxy", "linkerd-proxy"),
        Role.MESH,
        variables=("LINKERD2_PROXY_*",),
        marks=("linkerd.io/proxy-version",),
        native={
            "config.linkerd.io/proxy-enable-native-sidecar": "true",
            "config.beta.linkerd.io/proxy-enable-native-sidecar": "true",
            "config.alpha.linkerd.io/proxy-enable-native-sidecar": "true",
        },
        helps={"config.linkerd.io/proxy-admin-shutdown": "enabled"},
        asks=(
            Endpoint(
                _LINKERD_PORT,
                Setting("/shutdown"),
                enabled=Setting(
                    "", ("config.linkerd.io/proxy-admin-shutdown",), (), ("LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED",)
                ),
            ),
        ),
        client=("/usr/lib/linkerd/linkerd-await", "--shutdown", "--", "/bin/sleep", "0"),
        shells=(),
        wait=Setting(
            "120", ("config.linkerd.io/shutdown-grace-period",), (), ("LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD",)
        ),
        signal_code=0,
        ready=_endpoint("4191", "/ready", "GET"),
        note="Endpoint since 2.10; from 2.16 it answers 404 unless enabled. No shell since 2.11. Native by default"
        " since 2.20.",
        sources=("linkerd/linkerd2-proxy linkerd/app/admin/src/server.rs", "linkerd/linkerd2 pkg/k8s/labels.go"),
    ),
    KnownSidecar(
        "linkerd-debug",
        ("linkerd-debug",),
        _image("linkerd/debug", "linkerd-io/debug"),
        commands=("tshark *",),
        marks=("config.linkerd.io/enable-debug-sidecar",),
        note="Linkerd's debug container, asked for by an annotation. It runs tshark and has no endpoint.",
        sources=("linkerd/linkerd2 Dockerfile-debug, pkg/k8s/labels.go",),
    ),
    KnownSidecar(
        "vault",
        ("vault-agent",),
        ("*vault*",),
        commands=("*vault agent *",),
        marks=("vault.hashicorp.com/agent-inject-status",),
        helps={
            "vault.hashicorp.com/agent-pre-populate-only": "true",
            "vault.hashicorp.com/agent-enable-quit": "true",
        },
        asks=(
            Endpoint(
                Setting("8200", ("vault.hashicorp.com/agent-cache-listener-port",)),
                Setting("/agent/v1/quit"),
                headers={"X-Vault-Request": "true"},
                enabled=Setting("false", ("vault.hashicorp.com/agent-enable-quit",)),
            ),
        ),
        wait=Setting("10"),
        signal_code=0,
        note="Endpoint since Vault 1.10 with vault-k8s 0.16, off by default. Process 1 may be the shell that started"
        " it. A preStop hook that revokes the token runs only when the kubelet ends the container.",
        sources=("hashicorp/vault-k8s agent-inject/agent/annotations.go",),
    ),
    KnownSidecar(
        "alloydb",
        ("*",),
        _image("alloydb-auth-proxy"),
        like="cloud-sql",
        commands=("*alloydb-auth-proxy *", "*projects/*/locations/*/clusters/*/instances/*", "*-exit-zero-sigterm*"),
        variables=("ALLOYDB_PROXY_*",),
        asks=(
            Endpoint(
                Setting("9091", (), ("admin-port",), ("ALLOYDB_PROXY_ADMIN_PORT",)),
                _QUIT,
                enabled=Setting("false", (), ("quitquitquit",), ("ALLOYDB_PROXY_QUITQUITQUIT",)),
            ),
        ),
        client=("/alloydb-auth-proxy", "shutdown", "--admin-port={port}"),
        shells=("*-alpine*", "*-bookworm*", "*-bullseye*", "*-buster*"),
        wait=Setting("10", (), ("max-sigterm-delay",), ("ALLOYDB_PROXY_MAX_SIGTERM_DELAY",)),
        signal_code=143,
        signal_zero=Setting("false", (), ("exit-zero-sigterm",), ("ALLOYDB_PROXY_EXIT_ZERO_SIGTERM",)),
        ready=_endpoint(Setting("9090", (), ("http-port",), ("ALLOYDB_PROXY_HTTP_PORT",)), "/startup", "GET"),
        note="By the authors of Cloud SQL's proxy, with the same endpoint (GET as well since 1.12). Its own command"
        " since 1.14; exit code 0 on TERM by --exit-zero-sigterm since 1.11.",
        sources=(
            "GoogleCloudPlatform/alloydb-auth-proxy docs/cmd/alloydb-auth-proxy.md, alloydb-auth-proxy_shutdown.md",
            "GoogleCloudPlatform/alloydb-auth-proxy CHANGELOG.md",
        ),
    ),
    KnownSidecar(
        "cloud-sql",
        ("*",),
        _image("cloud-sql-proxy", "cloudsql-proxy"),
        commands=("*cloud-sql-proxy *", "*-quitquitquit*", "*-exit-zero-on-sigterm*"),
        variables=("CSQL_PROXY_*",),
        asks=(
            Endpoint(
                _SQL_PORT,
                _QUIT,
                enabled=Setting("false", (), ("quitquitquit",), ("CSQL_PROXY_QUITQUITQUIT",)),
            ),
        ),
        client=("/cloud-sql-proxy", "shutdown", "--admin-port={port}"),
        shells=("*-alpine*", "*-bookworm*", "*-bullseye*", "*-buster*"),
        wait=Setting("10", (), ("max-sigterm-delay",), ("CSQL_PROXY_MAX_SIGTERM_DELAY",)),
        signal_code=143,
        signal_zero=Setting("false", (), ("exit-zero-on-sigterm",), ("CSQL_PROXY_EXIT_ZERO_ON_SIGTERM",)),
        ready=_endpoint(Setting("9090", (), ("http-port",), ("CSQL_PROXY_HTTP_PORT",)), "/startup", "GET"),
        note="Version 2. Endpoint since 2.1 (GET as well since 2.7), its own command since 2.20; exit code 0 on TERM by"
        " --exit-zero-on-sigterm since 2.6.",
        sources=("GoogleCloudPlatform/cloud-sql-proxy cmd/root.go, cmd/errors.go",),
    ),
    KnownSidecar(
        "cloud-sql-v1",
        ("*",),
        _image("gce-proxy"),
        commands=("*cloud_sql_proxy *", "*-instances=*:*:*"),
        shells=("*-alpine*", "*-buster*"),
        wait=Setting("10", (), ("term_timeout",)),
        signal_code=0,
        note="Version 1 has no endpoint. Exit code 2 when connections did not close in time.",
        sources=("GoogleCloudPlatform/cloud-sql-proxy v1 cmd/cloud_sql_proxy/cloud_sql_proxy.go",),
    ),
    KnownSidecar(
        "gcs-fuse",
        ("gke-gcsfuse-sidecar",),
        ("*gcs-fuse-csi-driver-sidecar-mounter*",),
        Role.LAST,
        marks=("gke-gcsfuse/volumes",),
        shells=(),
        owner="the CSI driver of the node, when all other regular containers have ended",
        owner_wait=60.0,
        note=(
            "Polls for the driver's exit file every 5 s, then flushes. If it ends early, users of the mount get "
            "'Transport endpoint is not connected'. Native since GKE 1.29.3-gke.1093000."
        ),
        sources=("GoogleCloudPlatform/gcs-fuse-csi-driver pkg/csi_driver/utils.go",),
    ),
    KnownSidecar(
        "gcs-fuse-prefetch",
        ("gke-gcsfuse-metadata-prefetch",),
        ("*gcs-fuse-csi-driver-metadata-prefetch*",),
        marks=("gke-gcsfuse/volumes",),
        shells=(),
        wait=Setting("5"),
        signal_code=0,
        note="Fills the mount's metadata cache once, then sleeps. The driver waits for it before it ends the mounter."
        " Native where the mounter is.",
        sources=("GoogleCloudPlatform/gcs-fuse-csi-driver cmd/metadata_prefetch, pkg/webhook/sidecar_spec.go",),
    ),
    KnownSidecar(
        "consul",
        ("consul-dataplane", "consul-dataplane-*"),
        _image("consul-dataplane", "consul-dataplane-*"),
        Role.MESH,
        commands=("*consul-dataplane *", "*-graceful-port*"),
        variables=("DP_*",),
        marks=("consul.hashicorp.com/connect-inject-status",),
        native={"consul.hashicorp.com/enable-consul-dataplane-as-sidecar": "true"},
        asks=(
            Endpoint(
                Setting("20600", ("consul.hashicorp.com/sidecar-proxy-lifecycle-graceful-port",), ("graceful-port",)),
                Setting(
                    "/graceful_shutdown",
                    ("consul.hashicorp.com/sidecar-proxy-lifecycle-graceful-shutdown-path",),
                    ("graceful-shutdown-path",),
                ),
                numbered=True,
            ),
        ),
        shells=("*-ubi*",),
        wait=Setting(
            "30",
            ("consul.hashicorp.com/sidecar-proxy-lifecycle-shutdown-grace-period-seconds",),
            ("shutdown-grace-period-seconds",),
        ),
        signal_code=0,
        ready=_endpoint("21000", "/ready", "GET"),
        note="Endpoint since consul-k8s 1.0.8, 1.1.3, 1.2.1; it waits out its grace period first. The bare binary's"
        " port is 20300.",
        sources=(
            "hashicorp/consul-dataplane pkg/consuldp/lifecycle.go",
            "hashicorp/consul-k8s charts/consul/values.yaml",
        ),
    ),
    KnownSidecar(
        "kuma",
        ("kuma-sidecar",),
        _image("kuma-dp"),
        Role.LAST,
        commands=("kuma-dp *", "run *"),
        variables=("KUMA_*",),
        marks=("kuma.io/sidecar-injected",),
        asks=(_endpoint("9901", "/quitquitquit"),),
        shells=(),
        wait=Setting("10"),
        owner="Kuma's control plane, when it is the last (under OnFailure: and the others ended with 0)",
        owner_wait=30.0,
        ready=_endpoint("9902", "/ready", "GET"),
        note="Envoy's admin port is a Unix socket in newer versions. Native by experimental.sidecarContainers since"
        " 2.7, always since 3.0. The shell in its image is /busybox/sh.",
        sources=("kumahq/kuma pkg/plugins/runtime/k8s/controllers/pod_status_controller.go",),
    ),
    KnownSidecar(
        "dapr",
        ("daprd",),
        _image("daprd"),
        commands=("*daprd *", "*-dapr-http-port*"),
        marks=("dapr.io/sidecar-injected",),
        native={"dapr.io/enable-native-sidecar": "true"},
        asks=(Endpoint(_DAPR_PORT, Setting("/v1.0/shutdown")),),
        shells=(),
        wait=Setting("5", ("dapr.io/graceful-shutdown-seconds",), ("dapr-graceful-shutdown-seconds",)),
        ready=_endpoint(_DAPR_PORT, "/v1.0/healthz", "GET"),
        note="POST only since 1.4. Refused without the token when dapr.io/api-token-secret is set, and when an API"
        " allow list leaves shutdown out. Native by annotation since 1.18.",
        sources=("dapr/dapr pkg/api/http/shutdown.go", "dapr/docs kubernetes-job.md"),
    ),
    KnownSidecar(
        "envoy",
        ("*",),
        _image("envoy"),
        Role.MESH,
        commands=("envoy *", "*/envoy *"),
        asks=(_endpoint(Setting("9901", (), ("admin-port",), ("ENVOY_ADMIN_PORT",)), "/quitquitquit"),),
        shells=("*:v[0-9]*[0-9]", "*-dev", "*-debug"),
        wait=Setting("10"),
        signal_code=0,
        ready=_endpoint(Setting("9901", (), ("admin-port",), ("ENVOY_ADMIN_PORT",)), "/ready", "GET"),
        note="The admin listener must be in its configuration; GET is answered 400.",
        sources=("envoyproxy/envoy docs/root/operations/admin.rst",),
    ),
    KnownSidecar(
        "app-mesh",
        ("envoy",),
        _image("aws-appmesh-envoy"),
        Role.MESH,
        variables=("APPMESH_*",),
        asks=(_endpoint(Setting("9901", (), (), ("ENVOY_ADMIN_ACCESS_PORT",)), "/quitquitquit"),),
        wait=Setting("25"),
        asked_code=None,
        ready=_endpoint(Setting("9901", (), (), ("ENVOY_ADMIN_ACCESS_PORT",)), "/ready", "GET"),
        note="The service ends on 2026-09-30. Its preStop hook sleeps 20 s.",
        sources=("aws/aws-app-mesh-controller-for-k8s pkg/inject/envoy.go",),
    ),
    KnownSidecar(
        "osm",
        ("envoy",),
        _image("envoy-distroless"),
        Role.MESH,
        asks=(_endpoint("15000", "/quitquitquit"),),
        shells=(),
        wait=Setting("10"),
        note="Open Service Mesh; archived, last changed in 2023.",
        sources=("openservicemesh/osm pkg/constants/constants.go",),
    ),
    KnownSidecar(
        "tailscale",
        ("*",),
        _image("tailscale"),
        Role.MESH,
        commands=("containerboot*",),
        variables=("TS_KUBE_SECRET", "TS_USERSPACE"),
        wait=Setting("30"),
        signal_code=0,
        note="Has no endpoint. On TERM it withdraws its services for up to 25 s; up to 1.52 it exits with an"
        " error then.",
        sources=("tailscale/tailscale cmd/containerboot/main.go, Dockerfile, issue 10090",),
    ),
    KnownSidecar(
        "azure-identity-proxy",
        ("azwi-proxy",),
        _image("workload-identity/proxy"),
        commands=("*--proxy-port=*",),
        marks=("azure.workload.identity/inject-proxy-sidecar",),
        shells=(),
        note="Azure Workload Identity's proxy of the metadata service. Has no endpoint, and no shell in its image."
        " Newer webhooks inject a native sidecar where the API server is 1.32 or newer.",
        sources=("Azure/azure-workload-identity pkg/webhook/webhook.go, consts.go, docker/proxy.Dockerfile",),
    ),
    KnownSidecar(
        "pgbouncer",
        ("*",),
        (*_image("pgbouncer"), "*:airflow-pgbouncer-*"),
        commands=("pgbouncer *",),
        signal="INT",
        wait=Setting("10"),
        signal_code=0,
        note="Has no endpoint. INT waits while a server connection is in use; since 1.23 TERM waits until every"
        " client has left.",
        sources=(
            "pgbouncer/pgbouncer doc/usage.md, src/main.c",
            "apache/airflow chart/dockerfiles/pgbouncer/Dockerfile",
        ),
    ),
    KnownSidecar(
        "datadog",
        ("datadog-agent-injected",),
        ("*/agent:*", "*/agent@*"),
        Role.SHIPPER,
        owner="the agent itself, when no other process is left",
        owner_wait=30.0,
        owner_in_jobs=True,
        note="Has no endpoint. Exits by itself in Jobs since the end of 2024 if it can see the other processes.",
        sources=("DataDog/datadog-agent pull request 31543",),
    ),
    KnownSidecar(
        "fluent-bit",
        ("*",),
        (*_image("fluent-bit"), "*/aws-for-fluent-bit*"),
        Role.SHIPPER,
        commands=("fluent-bit*",),
        shells=("*-debug", "*aws-for-fluent-bit*"),
        wait=Setting("8"),
        signal_code=0,
        note="Has no endpoint. After TERM it waits for pending chunks, 5 s by default (grace).",
        sources=("fluent/fluent-bit src/flb_config.c",),
    ),
    KnownSidecar(
        "fluentd",
        ("*",),
        (*_image("fluentd"), "*/fluentd-*"),
        Role.SHIPPER,
        commands=("fluentd*",),
        signal_code=143,
        note="Has no endpoint.",
        sources=("fluent/fluentd-docker-image issue 86",),
    ),
    KnownSidecar(
        "otel-collector",
        ("*",),
        (
            "*/opentelemetry-collector*",
            *_image("otelcol", "otelcol-*", "aws-otel-collector", "splunk-otel-collector"),
        ),
        Role.SHIPPER,
        commands=("otelcol*", "awscollector*"),
        shells=(),
        signal_code=0,
        note="Has no endpoint, and no shell in its image; AWS's and Splunk's builds are the same. Injected as a native"
        " sidecar since operator 0.132.",
        sources=(
            "open-telemetry/opentelemetry-operator CHANGELOG.md",
            "open-telemetry/opentelemetry-collector otelcol/collector.go",
            "aws-observability/aws-otel-collector cmd/awscollector/Dockerfile",
            "signalfx/splunk-otel-collector cmd/otelcol/Dockerfile",
        ),
    ),
    KnownSidecar(
        "filebeat",
        ("*",),
        _image("filebeat", "filebeat-*"),
        Role.SHIPPER,
        commands=("filebeat *",),
        note="Has no endpoint. Lines that it has not read when TERM comes are lost.",
        sources=("elastic/beats libbeat/service/service.go, dev-tools/packaging/templates/docker, issue 13647",),
    ),
    KnownSidecar(
        "aws-xray",
        ("*",),
        _image("aws-xray-daemon"),
        Role.SHIPPER,
        shells=(),
        signal_code=0,
        note="Has no endpoint; its image contains only its own binary.",
        sources=("aws/aws-xray-daemon cmd/tracing/tracing.go, Dockerfile",),
    ),
    KnownSidecar(
        "aws-cloudwatch",
        ("*",),
        _image("cloudwatch-agent"),
        Role.SHIPPER,
        commands=("start-amazon-cloudwatch-agent*",),
        shells=(),
        note="Has no endpoint, and no shell in its image. It does not flush its metrics when it is ended, and may exit"
        " with 2 soon after its start.",
        sources=(
            "aws/amazon-cloudwatch-agent amazon-cloudwatch-container-insights/cloudwatch-agent-dockerfile/source",
            "aws/amazon-cloudwatch-agent issues 170, 770, 961",
        ),
    ),
    KnownSidecar(
        "airflow-xcom",
        ("airflow-xcom-sidecar",),
        ("*",),
        Role.LAST,
        signal="INT",
        wait=Setting("5"),
        signal_code=0,
        owner="stock's KubernetesPodOperator, when it has read the result",
        owner_wait=60.0,
        note="Its shell traps INT and ignores TERM.",
        sources=("apache-airflow-providers-cncf-kubernetes 10.25 utils/xcom_sidecar.py",),
    ),
    KnownSidecar(
        "git-sync",
        ("git-sync", "git-sync-*", "gitsync*"),
        ("*git-sync*",),
        commands=("git-sync *",),
        note="Has no endpoint. Its image has a shell; process 1 is a small init that passes signals on. In worker"
        " pods it belongs among the init containers, with --one-time.",
        sources=("kubernetes/git-sync README, Dockerfile.in, pkg/pid1/pid1.go",),
    ),
    KnownSidecar(
        "vector",
        ("vector",),
        ("*vector*",),
        Role.SHIPPER,
        commands=("vector *",),
        shells=("*-alpine*", "*-debian*"),
        signal_code=0,
        note="Ships logs in the pods of some Airflow operators. Has no endpoint.",
        sources=("stackabletech/airflow-operator issue 379",),
    ),
    KnownSidecar(
        "airflow-kerberos",
        ("worker-kerberos",),
        ("*",),
        note="The chart's ticket renewer, an ordinary container of worker pods before the chart made it a native one.",
        sources=("apache/airflow pull request 72555",),
    ),
    KnownSidecar(
        "airflow-log-groomer",
        ("*-log-groomer",),
        ("*",),
        Role.SHIPPER,
        note="A shell script of the chart that sleeps between its rounds.",
        sources=("apache/airflow chart",),
    ),
)
"""Every known product. Versions and details as of August 2026."""
