from __future__ import annotations

import json
import time
from typing import Any

import pytest
from airflow._shared.secrets_masker import DEFAULT_SENSITIVE_FIELDS, should_hide_value_for_key

from crosswind.pods.masking import is_sensitive, mask_pod, mask_text

SECRET = "s3cr3t-v4lue"


def hides(name: str) -> bool:
    return is_sensitive(name) or bool(should_hide_value_for_key(name))


def pod(**container: Any) -> dict[str, Any]:
    return {"metadata": {"name": "pod"}, "spec": {"containers": [{"name": "base", **container}]}}


NAMES = [
    *sorted(DEFAULT_SENSITIVE_FIELDS),
    "DB_PASSWORD",
    "GPG_PASSPHRASE",
    "apiKey",
    "accessKey",
    "privateKey",
    "connectionString",
    "AIRFLOW_CONN_MY_DB",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__CELERY__BROKER_URL",
    "AIRFLOW__CORE__FERNET_KEY",
    "AccountKey",
    "PGPWD",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_secret_by_its_name_is_shown_nowhere(name: str) -> None:
    made = pod(
        env=[{"name": name, "value": SECRET}],
        command=["sh", "-c", f"export {name}={SECRET}; run --{name} {SECRET} --x y"],
        args=[f"--{name}={SECRET}", f"--{name}", SECRET, f"{name}={SECRET}", json.dumps({name: SECRET, "a": 1})],
        livenessProbe={"httpGet": {"httpHeaders": [{"name": name, "value": SECRET}]}},
    )
    made["metadata"]["annotations"] = {f"example.com/{name}": SECRET, "config": f"{name}: '{SECRET}'\nother: 1\n"}
    made["spec"]["volumes"] = [{"csi": {"driver": "d", "volumeAttributes": {name: SECRET}}}]
    masked = mask_pod(made, hides)
    assert SECRET not in json.dumps(masked)
    assert SECRET in json.dumps(made), "the pod itself stays"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql+psycopg://airflow:s3cr3t@db:5432/x", "postgresql+psycopg://airflow:***@db:5432/x"),
        ("redis://:s3cr3t@redis:6379/0", "redis://:***@redis:6379/0"),
        ("postgresql://app:ab/cd+ef==@db:5432/app", "postgresql://app:***@db:5432/app"),
        ("redis://:se/cret@r:6379/0", "redis://:***@r:6379/0"),
        ("postgresql://app:p@ss@db/app", "postgresql://app:***@db/app"),
        ("A='x://a:b/c@d' B=\"y://e:f@g\"", "A='x://a:***@d' B=\"y://e:***@g\""),
        ("https://example.com:8443/a@b and https://host/c:d@e", "https://example.com:8443/a@b and https://host/c:d@e"),
        ("curl -H 'Authorization: Bearer abcdef.123456' u", "curl -H 'Authorization: *** ***' u"),
        ("curl -H 'X: Basic dXNlcjpwYXNz' u", "curl -H 'X: Basic ***' u"),
        ("AccountName=x;AccountKey=abc==;End=core", "AccountName=x;AccountKey=***;End=core"),
        ("Server=db;Uid=me;Pwd=abc;", "Server=db;Uid=me;Pwd=***;"),
        ("run --password abc --verbose", "run --password *** --verbose"),
        ("run --password --verbose", "run --password --verbose"),
        ("key -----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY----- end", "key *** end"),
        ('{"password": "a\\"b", "user": "c"}', '{"password": ***, "user": "c"}'),
    ],
)
def test_secrets_within_a_text_are_replaced_and_the_rest_stays(text: str, masked: str) -> None:
    assert mask_text(text) == masked


def test_names_and_paths_stay_readable() -> None:
    made = pod(
        image="registry.example/token-service:1",
        env=[
            {"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
            {"name": "LEVEL", "value": "debug"},
            {"name": "URL", "value": "https://example.com:8443/a?b=c"},
        ],
        args=["--config", "/etc/app.yaml", "a=b", "SELECT 1", "2026-01-01T00:00:00"],
    )
    made["spec"] |= {
        "serviceAccountName": "worker",
        "automountServiceAccountToken": False,
        "imagePullSecrets": [{"name": "registry"}],
        "volumes": [{"name": "s", "secret": {"secretName": "db", "items": [{"key": "password", "path": "p"}]}}],
    }
    assert mask_pod(made, hides) == made


@pytest.mark.parametrize("unit", ["x", "x.", "a=", "--a ", "a://", '"a":"', "bearer "])
def test_a_long_text_is_masked_in_the_time_of_its_length(unit: str) -> None:
    began = time.process_time()
    mask_text(unit * (300_000 // len(unit)))
    assert time.process_time() - began < 5
