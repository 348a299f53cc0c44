"""Addresses that Kubernetes, Istio or Git refuses are errors in the values, and the others are rendered."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from crosswind.deploy.tree import files, render
from crosswind.deploy.values_file import read_values
from crosswind.errors import ConfigError

IMAGE = "image: example.com/airflow:1\n"


def rendered(text: str) -> dict[str, Any]:
    """Return the objects by path."""
    return {path: yaml.safe_load(text) for path, text in files(render(read_values(IMAGE + text, "v.yaml"))).items()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("database: {cidrs: [10.0.0.1/8]}", "database.cidrs[0] is '10.0.0.1/8', whose address has bits beyond"),
        ("database: {cidrs: [10.0.0.1/8]}", "write 10.0.0.0/8"),
        ("network: {kubernetesApi: ['2001:db8::1/32']}", "write 2001:db8::/32"),
        ("database: {cidrs: ['::ffff:10.0.0.0/104']}", "which writes IPv4 addresses as IPv6; write 10.0.0.0/8"),
        ("database: {cidrs: [10.0.0.0/08]}", "whose length has a leading zero; write 10.0.0.0/8"),
        ("database: {cidrs: [010.0.0.0/8]}", "which is not a range of addresses"),
        ("database: {host: 10.0.0}", "database.host is '10.0.0', which is not a host name"),
        ("database: {host: 10.0.0.256}", "database.host is '10.0.0.256', which is not a host name"),
        ("web: {host: 10.0.0.1}", "web.host is '10.0.0.1', which is not a host name"),
        ("web: {path: /..}", "web.path is '/..', which has a segment of dots"),
        ("web: {path: /a/./b}", "web.path is '/a/./b', which has a segment of dots"),
        ("mesh: {externalHosts: ['a.b.com:99999']}", "mesh.externalHosts[0] is 'a.b.com:99999', which has no port"),
        ("mesh: {externalHosts: ['a.b.com:0443']}", "which has no port from 1 to 65535; write one such as"),
        ("mesh: {externalHosts: ['a.b.com:٤٤٣']}", "which has no port from 1 to 65535"),
        ("mesh: {externalHosts: ['a..com:443']}", "mesh.externalHosts[0] is 'a..com', which is not a host name"),
        ("config: {smtp: {smtp_host: m, smtp_port: 99999}}", "config has [smtp] smtp_port with a port that is none"),
        ("config: {smtp: {smtp_host: m, smtp_port: '²'}}", "config has [smtp] smtp_port with a port that is none"),
        ("config: {api: {port: '²'}}", "config has [api] port = ², which is not a usable port"),
        ("config: {elasticsearch: {host: 'm:99999'}}", "config has [elasticsearch] host with a port that is none"),
        ("config: {api: {base_url: 'http://[x'}}", "the file has [api] base_url with another path than web.path"),
        ("logs: {to: remote, url: 's3://[b/x'}", "logs.url has a bracket that is not part of an IPv6 address"),
        ("dags: {source: bundle, repo: 'https://[::1/x'}", "dags.repo has a bracket that is not part of an IPv6"),
        ("dags: {source: git-sync, repo: 'https://h:99999/x'}", "dags.repo has a port that is none"),
        ("dags: {source: git-sync, repo: 'ssh://git@github.com:org/x'}", "dags.repo has a port that is none"),
    ],
)
def test_an_address_that_others_refuse_is_an_error_with_its_fix(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_values(f"{IMAGE}{text}\n", "v.yaml")
    (line,) = str(refused.value).splitlines()
    assert message in line


@pytest.mark.parametrize(
    "text",
    [
        "database: {host: 3com.example.com, cidrs: [10.0.0.0/8, '2001:DB8::/32', '::/0', 10.1.2.3/32]}",
        "web: {host: airflow, path: /a..b}",
        "mesh: {kind: istio, externalHosts: ['a.b.com:443', 'a.b.com:8443']}",
        "config: {smtp: {smtp_host: m, smtp_port: '587'}, elasticsearch: {host: 'https://m:9200'}}",
        'config: {dag_processor: {dag_bundle_config_list: \'[{"kwargs": null}, {"kwargs": {"repo_url": 1}}]\'}}',
        "pods: {env: [{name: A, value: 'http://[::1'}, {name: B, value: 'http://h:99999'}]}",
        "dags: {source: git-sync, repo: 'https://[::1]:8443/x'}",
        "dags: {source: git-sync, repo: 'git@github.com:7999/x'}",
    ],
)
def test_an_address_that_others_accept_is_rendered(text: str) -> None:
    assert rendered(text)


def test_a_database_at_an_ip_address_is_registered_with_istio_by_its_address() -> None:
    entry = rendered("mesh: {kind: istio}\ndatabase: {host: 10.0.0.5}\n")["istio/airflow-10-0-0-5-5432.yaml"]["spec"]
    assert entry["resolution"] == "STATIC"
    assert (entry["addresses"], entry["endpoints"]) == (["10.0.0.5"], [{"address": "10.0.0.5"}])
    assert entry["hosts"] == ["10-0-0-5.invalid"]


def test_hosts_whose_names_differ_in_a_dot_alone_are_both_registered() -> None:
    objects = rendered("mesh: {kind: istio, externalHosts: ['a.b.com:443', 'a-b.com:443', 'c.com:443']}\n")
    entries = [manifest for manifest in objects.values() if manifest["kind"] == "ServiceEntry"]
    assert sorted(entry["spec"]["hosts"][0] for entry in entries) == ["a-b.com", "a.b.com", "c.com"]
    assert len({entry["metadata"]["name"] for entry in entries}) == 3
    assert "istio/airflow-c-com-443.yaml" in objects
