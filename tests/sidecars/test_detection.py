from __future__ import annotations

import pytest

from crosswind.sidecars.catalog import Setting
from crosswind.sidecars.detection import identify, is_injected, is_on, known_sidecar, seconds, setting_value


@pytest.mark.parametrize(
    ("name", "image", "known"),
    [
        ("istio-proxy", "docker.io/istio/proxyv2:1.27.0-distroless", "istio"),
        ("istio-proxy", "registry.example:5000/mirror/proxyv2@sha256:0", "istio"),
        ("istio-proxy", "my/own:1", None),
        ("proxy", "docker.io/istio/proxyv2:1.27.0", None),
        ("linkerd-proxy", "cr.l5d.io/linkerd/proxy:stable-2.14.0", "linkerd"),
        ("vault-agent", "hashicorp/vault:1.20", "vault"),
        ("db", "gcr.io/cloud-sql-connectors/cloud-sql-proxy:2.25.3-alpine", "cloud-sql"),
        ("db", "gcr.io/cloudsql-docker/gce-proxy:1.33.0", "cloud-sql-v1"),
        ("gke-gcsfuse-sidecar", "gke.gcr.io/gcs-fuse-csi-driver-sidecar-mounter:v1.8.9-gke.1@sha256:0", "gcs-fuse"),
        ("consul-dataplane-web", "hashicorp/consul-dataplane:1.6.0", "consul"),
        ("kuma-sidecar", "docker.io/kumahq/kuma-dp:2.9.0", "kuma"),
        ("daprd", "ghcr.io/dapr/daprd:1.15.0", "dapr"),
        ("envoy", "840364872350.dkr.ecr.eu-west-1.amazonaws.com/aws-appmesh-envoy:v1.29.0-prod", "app-mesh"),
        ("envoy", "envoyproxy/envoy-distroless:v1.24.0", "osm"),
        ("front", "docker.io/envoyproxy/envoy:v1.31.0", "envoy"),
        ("datadog-agent-injected", "gcr.io/datadoghq/agent:7.60.0", "datadog"),
        ("logs", "cr.fluentbit.io/fluent/fluent-bit:3.2", "fluent-bit"),
        ("logs", "fluent/fluentd:v1.17", "fluentd"),
        ("otc-container", "ghcr.io/open-telemetry/opentelemetry-collector:0.110.0", "otel-collector"),
        ("airflow-xcom-sidecar", "alpine:3.24.2", "airflow-xcom"),
        ("git-sync", "registry.k8s.io/git-sync/git-sync:v4.4.0", "git-sync"),
        ("vector", "timberio/vector:0.43.0-alpine", "vector"),
        ("worker-kerberos", "apache/airflow:3.3.2", "airflow-kerberos"),
        ("scheduler-log-groomer", "apache/airflow:3.3.2", "airflow-log-groomer"),
        ("db", "gcr.io/alloydb-connectors/alloydb-auth-proxy:1.14.0", "alloydb"),
        ("db", "mirror.example/gcp/cloud-sql-proxy@sha256:0", "cloud-sql"),
        ("db", "cloud-sql-proxy:2.25.3", "cloud-sql"),
        ("linkerd-proxy", "mirror.example/linkerd-proxy:2.18", "linkerd"),
        ("daprd", "mirror.example/daprd:1.15.0", "dapr"),
        ("front", "mirror.example/envoy:v1.31.0", "envoy"),
        ("istio-proxy", "registry.redhat.io/openshift-service-mesh/proxyv2-rhel8@sha256:0", "istio"),
        ("istio-proxy", "registry.redhat.io/openshift-service-mesh/proxyv2-rhel9:2.6", "istio"),
        ("istio-proxy", "registry.redhat.io/openshift-service-mesh/istio-proxyv2-rhel9@sha256:0", "istio"),
        ("istio-proxy", "quay.io/maistra/proxyv2-ubi8:2.2.2", "istio"),
        ("istio-proxy", "gke.gcr.io/asm/proxyv2:1.20.8-asm.7-distroless", "istio"),
        ("istio-proxy", "mcr.microsoft.com/oss/istio/proxyv2:1.23-distroless", "istio"),
        ("istio-proxy", "containers.istio.tetratelabs.com/proxyv2:1.24.1-tetrate-v0", "istio"),
        ("istio-proxy", "rancher/mirrored-istio-proxyv2:1.24.1-distroless", "istio"),
        ("istio-proxy", "cgr.dev/chainguard/istio-proxy:latest", "istio"),
        ("istio-proxy", "my/proxyv2-of-mine:1", None),
        ("kuma-sidecar", "docker.io/kong/kuma-dp:2.9.0", "kuma"),
        ("linkerd-debug", "cr.l5d.io/linkerd/debug:stable-2.14.0", "linkerd-debug"),
        (
            "gke-gcsfuse-metadata-prefetch",
            "gke.gcr.io/gcs-fuse-csi-driver-metadata-prefetch:v1.8.9-gke.1@sha256:0",
            "gcs-fuse-prefetch",
        ),
        ("ts", "ghcr.io/tailscale/tailscale:v1.90.0", "tailscale"),
        ("azwi-proxy", "mcr.microsoft.com/oss/v2/azure/workload-identity/proxy:v1.5.0", "azure-identity-proxy"),
        ("pool", "bitnami/pgbouncer:1.23.1", "pgbouncer"),
        ("pgbouncer", "apache/airflow:airflow-pgbouncer-2025.03.05-1.23.1", "pgbouncer"),
        ("adot", "public.ecr.aws/aws-observability/aws-otel-collector:v0.43.3", "otel-collector"),
        ("otel", "quay.io/signalfx/splunk-otel-collector:0.120.0", "otel-collector"),
        ("logs", "docker.elastic.co/beats/filebeat:9.1.0", "filebeat"),
        ("traces", "amazon/aws-xray-daemon:3.x", "aws-xray"),
        ("metrics", "public.ecr.aws/cloudwatch-agent/cloudwatch-agent:latest", "aws-cloudwatch"),
        ("base", "apache/airflow:3.3.2", None),
    ],
)
def test_a_product_is_known_by_name_and_image(name: str, image: str, known: str | None) -> None:
    product = known_sidecar({"name": name, "image": image})
    assert (product.name if product else None) == known


MIRRORED = {"name": "istio-proxy", "image": "mirror.example/mesh:1"}


@pytest.mark.parametrize(
    ("mark", "known"),
    [
        ({}, None),
        ({"sidecar.istio.io/status": '{"containers": ["istio-proxy"], "initContainers": ["istio-init"]}'}, "istio"),
        ({"sidecar.istio.io/status": '{"containers": ["other"], "initContainers": null}'}, None),
        ({"sidecar.istio.io/status": "true"}, "istio"),
    ],
)
def test_a_mirrored_image_is_known_by_the_injectors_mark(mark: dict[str, str], known: str | None) -> None:
    product = identify({"metadata": {"annotations": mark}}, MIRRORED)
    assert (product.name if product else None) == known


def test_a_name_that_anybody_may_choose_is_no_proof_of_an_injector() -> None:
    assert is_injected({}, {"name": "istio-proxy", "image": "istio/proxyv2:1.26.4"})
    assert not is_injected({}, {"name": "db", "image": "gcr.io/cloud-sql-connectors/cloud-sql-proxy:2.25"})


PORT = Setting("1", ("port-of",), ("admin-port",), ("ADMIN_PORT", "CONFIG:port"))


@pytest.mark.parametrize(
    ("annotations", "container", "value"),
    [
        ({}, {}, "1"),
        ({"port-of": "2"}, {"args": ["--admin-port=3"]}, "2"),
        ({}, {"command": ["proxy", "--admin-port=3"]}, "3"),
        ({}, {"args": ["-admin-port", "3"]}, "3"),
        ({}, {"args": ["--admin-port"]}, ""),
        ({}, {"args": ["--admin-port=3", "--admin-port=4"]}, "4"),
        (
            {},
            {"command": ["/bin/sh", "-c", "exec proxy --admin-port=$P x:y:z"], "env": [{"name": "P", "value": "8"}]},
            "8",
        ),
        ({}, {"args": ["--admin-port=$(P)"], "env": [{"name": "P", "value": "7"}]}, "7"),
        ({}, {"args": ["--admin-port-range=9"]}, "1"),
        ({}, {"env": [{"name": "ADMIN_PORT", "value": "4"}]}, "4"),
        ({}, {"env": [{"name": "ADMIN_PORT", "valueFrom": {}}, {"name": "CONFIG", "value": '{"port": 5}'}]}, "5"),
        ({}, {"env": [{"name": "CONFIG", "value": "not JSON"}]}, "1"),
    ],
)
def test_a_setting_is_read_from_the_pod(annotations: dict[str, str], container: dict[str, object], value: str) -> None:
    assert setting_value(PORT, {"metadata": {"annotations": annotations}}, container) == value


def test_a_switch_may_be_unknown() -> None:
    switch = Setting("", ("on",))
    states = [
        is_on(switch, {"metadata": {"annotations": annotations}}, {})
        for annotations in ({"on": "enabled"}, {"on": "no"}, {})
    ]
    assert states == [True, False, None]


@pytest.mark.parametrize(
    ("text", "value"), [("30", 30), ("2.5", 2.5), ("120s", 120), ("1m30s", 90), ("100ms", 0.1), ("", 7), ("soon", 7)]
)
def test_durations_are_seconds_or_those_of_go(text: str, value: float) -> None:
    assert seconds(text, 7) == pytest.approx(value)


@pytest.mark.parametrize(
    ("container", "known"),
    [
        ({"name": "db", "command": ["/cloud-sql-proxy", "--port=5432", "p:europe-west1:i"]}, "cloud-sql"),
        ({"name": "db", "args": ["--quitquitquit", "p:europe-west1:i"]}, "cloud-sql"),
        ({"name": "db", "env": [{"name": "CSQL_PROXY_PORT", "value": "5432"}]}, "cloud-sql"),
        ({"name": "db", "command": ["sh", "-c", "sleep 1; exec /alloydb-auth-proxy --port 5432 $DB"]}, "alloydb"),
        ({"name": "db", "args": ["--port=5432", "projects/p/locations/l/clusters/c/instances/i"]}, "alloydb"),
        ({"name": "db", "command": ["/cloud_sql_proxy", "-instances=p:r:i=tcp:5432"]}, "cloud-sql-v1"),
        ({"name": "istio-proxy", "args": ["proxy", "sidecar", "--domain", "x"]}, "istio"),
        ({"name": "linkerd-proxy", "env": [{"name": "LINKERD2_PROXY_LOG", "value": "warn"}]}, "linkerd"),
        ({"name": "vault-agent", "command": ["/bin/sh", "-ec"], "args": ["vault agent -config=/x"]}, "vault"),
        ({"name": "daprd", "command": ["/daprd"], "args": ["--dapr-http-port", "3500"]}, "dapr"),
        ({"name": "front", "command": ["/usr/local/bin/envoy", "-c", "/etc/envoy.yaml"]}, "envoy"),
        ({"name": "logs", "command": ["/fluent-bit/bin/fluent-bit", "-c", "/x"]}, "fluent-bit"),
        ({"name": "otc", "command": ["/otelcol-contrib"], "args": ["--config=/x"]}, "otel-collector"),
        ({"name": "otc", "command": ["/awscollector", "--config=/x"]}, "otel-collector"),
        ({"name": "pool", "command": ["/usr/bin/pgbouncer", "/etc/pgbouncer/pgbouncer.ini"]}, "pgbouncer"),
        ({"name": "azwi-proxy", "args": ["--proxy-port=8000", "--log-level=info"]}, "azure-identity-proxy"),
        ({"name": "ts", "env": [{"name": "TS_KUBE_SECRET", "value": "state"}]}, "tailscale"),
        ({"name": "app", "args": ["--proxy-port=8000"]}, None),
        ({"name": "app", "command": ["python", "-m", "app", "--port=5432"]}, None),
    ],
)
def test_a_mirrored_image_of_another_name_is_known_by_what_its_container_starts(
    container: dict[str, object], known: str | None
) -> None:
    product = known_sidecar({"image": "mirror.example/tools/image:7", **container})
    assert (product.name if product else None) == known
