"""No secret reaches a manifest: the refused options, the accepted ones, and the completeness of Airflow's list."""

from __future__ import annotations

from typing import Any

import pytest

from crosswind.deploy.python_literals import secret_assignments
from crosswind.deploy.secrecy import SENSITIVE_OPTIONS, is_secret_option, urls_with_user
from crosswind.deploy.tree import files, render
from crosswind.deploy.values import Values
from crosswind.deploy.values_file import read_values
from crosswind.errors import ConfigError

SECRET = "hunter2"


def rendered(values: dict[str, Any]) -> str:
    return "\n".join(files(render(Values.model_validate({"image": "x", **values}))).values())


def test_every_option_that_the_installed_airflow_marks_as_sensitive_is_refused() -> None:
    from airflow.configuration import conf

    described = {
        (section, option)
        for section, content in conf.configuration_description.items()
        for option, about in content["options"].items()
        if about.get("sensitive")
    }
    assert len(described) > 10
    assert described <= SENSITIVE_OPTIONS


@pytest.mark.parametrize(("section", "option"), sorted(SENSITIVE_OPTIONS))
def test_a_sensitive_option_is_refused_with_its_name(section: str, option: str) -> None:
    with pytest.raises(ConfigError, match=rf"\[{section}\] {option}, which is secret"):
        read_values(f"image: x\nconfig: {{{section}: {{{option}: {SECRET}}}}}\n", "v.yaml")


@pytest.mark.parametrize(
    ("section", "option", "value", "secret"),
    [
        ("smtp", "smtp_password", "x", True),
        ("mine", "api_token", "x", True),
        ("mine", "client_secret", "x", True),
        ("mine", "private_key", "x", True),
        ("mine", "hook_kwargs", '{"user": "x"}', True),
        ("mine", "hook_kwargs", '{"retries": 3, "fast": true}', False),
        ("kubernetes_executor", "delete_option_kwargs", '{"grace_period_seconds": 10}', False),
        ("database", "sql_alchemy_conn_cmd", "cat /run/conn", False),
        ("core", "fernet_key_secret", "airflow/fernet", False),
        ("api_auth", "jwt_private_key_path", "/run/key", False),
        ("logging", "secret_mask_adapter", "a.b", False),
        ("core", "parallelism", 32, False),
    ],
)
def test_options_are_judged_by_name_and_value(section: str, option: str, value: object, secret: bool) -> None:
    assert is_secret_option(section, option, value) is secret


@pytest.mark.parametrize(
    "values",
    [
        {"dags": {"source": "git-sync", "repo": f"https://robot:{SECRET}@git.example.org/d.git"}},
        {"dags": {"source": "bundle", "repo": f"https://{SECRET}@git.example.org/d.git"}},
        {"logs": {"to": "remote", "url": f"s3://key:{SECRET}@bucket/logs"}},
        {"web": {"annotations": {"a": f"https://u:{SECRET}@example.org"}}},
        {"web": {"fabConfig": f"OAUTH_PROVIDERS = [{{'remote_app': {{'client_secret': '{SECRET}'}}}}]\n"}},
        {"web": {"fabConfig": f'RECAPTCHA_PRIVATE_KEY = "{SECRET}"\n'}},
        {"config": {"core": {"x": f"postgresql://u:{SECRET}@host/db"}}},
        {"config": {"celery": {"broker_url": SECRET}}},
        {"pods": {"env": [{"name": "HTTPS_PROXY", "value": f"http://u:{SECRET}@proxy:3128"}]}},
        {"pods": {"env": [{"name": "DB_PASSWORD", "value": SECRET}]}},
        {"workers": {"env": [{"name": "API_TOKEN", "value": SECRET}]}},
        {"scheduler": {"env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": SECRET}]}},
        {"triggerer": {"env": [{"name": "TOKEN", "value": SECRET}]}},
        {"dagProcessor": {"env": [{"name": "AIRFLOW_CONN_DWH", "value": f'{{"password": "{SECRET}"}}'}]}},
        {"apiServer": {"env": [{"name": "AIRFLOW__CORE__FERNET_KEY", "value": SECRET}]}},
        {"migrations": {"env": [{"name": "AIRFLOW__SMTP__SMTP_PASSWORD", "value": SECRET}]}},
        {"reaper": {"env": [{"name": "X_CREDENTIALS", "value": SECRET}]}},
        {"pods": {"env": [{"name": "DATABASE_URL", "value": f"postgresql://u:{SECRET}/cd@h/db"}]}},
        {"pods": {"env": [{"name": "DATABASE_URL", "value": f"postgresql://u:a'{SECRET}@h/db"}]}},
        {"pods": {"env": [{"name": "PGPASSWORD", "value": SECRET}]}},
        {"pods": {"env": [{"name": "githubToken", "value": SECRET}]}},
        {"pods": {"env": [{"name": "AZURE_STORAGE_CONNECTION_STRING", "value": f"AccountKey={SECRET}"}]}},
        {"pods": {"env": [{"name": "DB_PASSWORD", "literal": SECRET}]}},
        {"pods": {"env": [{"name": "DB_PASSWORD", "valueFrom": SECRET}]}},
        {"pods": {"annotations": {"a": f"see https://u:{SECRET}/x@example.org for it"}}},
        {"dags": {"source": "bundle", "repo": f"https://u:${SECRET}@git.example.org/d.git"}},
        {"config": {"core": {"pgpassword": SECRET}}},
        {"web": {"fabConfig": f"AUTH_LDAP_BIND_PASSWORD = 'p#{SECRET}'"}},
        {"web": {"fabConfig": f"X_PASSWORD: str = '{SECRET}'"}},
        {"web": {"fabConfig": f"SECRET_KEY = ('a'\n  '{SECRET}')"}},
        {"web": {"fabConfig": f"app.config['MAIL_PASSWORD'] = '{SECRET}'"}},
        {"web": {"fabConfig": f"connect(password='{SECRET}')"}},
        {"web": {"fabConfig": f"def connect(password='{SECRET}'): ..."}},
        {"web": {"fabConfig": f"A, API_TOKEN = 1, b'{SECRET}'"}},
        {"web": {"fabConfig": f"API_TOKEN = os.environ.get('API', '{SECRET}')"}},
        {"web": {"fabConfig": f"API_TOKEN = os.environ['API'] or '{SECRET}'.strip()"}},
        {"web": {"fabConfig": f"print 'a'\nX_PASSWORD: str = 'p#{SECRET}'"}},
    ],
    ids=str,
)
def test_a_secret_in_the_values_is_refused_and_not_repeated(values: dict[str, Any]) -> None:
    import yaml

    with pytest.raises(ConfigError) as refused:
        read_values(yaml.safe_dump({"image": "x", **values}), "v.yaml")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "variable",
    [
        {"name": "DB_PASSWORD_FILE", "value": "/run/password"},
        {"name": "SECRET_NAME", "value": "airflow-db"},
        {"name": "TOKEN_URL_KEY", "value": "https://example.org/token"},
        {"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
        {"name": "SORT_KEY", "value": "id", "plain": True},
        {"name": "AIRFLOW__API__SSL_KEYFILE", "value": "/x"},
        {"name": "GIT_REPO", "value": "ssh://git@git.example.org/x.git"},
        {"name": "MONKEY", "value": "banana"},
    ],
    ids=str,
)
def test_a_variable_that_is_no_secret_is_rendered(variable: dict[str, Any]) -> None:
    text = rendered({"pods": {"env": [variable]}})
    assert f"name: {variable['name']}" in text
    assert "plain:" not in text


@pytest.mark.parametrize(
    "url",
    [
        "https://u:${TOKEN}@git.example.org/d.git",
        "https://${TOKEN}@git.example.org/d.git@v1",
        "https://u:$(TOKEN)@git.example.org/d.git",
        "https://u:{token}@git.example.org/d.git",
        "https://git.example.org/d.git@v1",
        "https://git.example.org:8443/d.git@v1",
        "https://git.example.org:${PORT}/d.git@v1",
        "https://[2001:db8::1]:8443/d.git@v1",
        "ssh://git@git.example.org/d.git",
    ],
)
def test_an_address_without_a_literal_secret_is_accepted(url: str) -> None:
    assert not [*urls_with_user([{"url": url}])]


@pytest.mark.parametrize(
    "text",
    [
        "AUTH_LDAP_BIND_PASSWORD = os.environ['AUTH_LDAP_BIND_PASSWORD']\n",
        "OAUTH_PROVIDERS = [{'client_secret': os.getenv('CLIENT_SECRET'), 'token_key': 'access_token'}]",
        "API_TOKEN = open('/run/token').read()  # PASSWORD = 'example'",
        "API_TOKEN = ''",
        r"ACCESS_TOKEN_URL = '\w'",
    ],
)
def test_a_file_of_the_ui_without_a_literal_secret_is_accepted(text: str) -> None:
    assert secret_assignments(text) == []


def test_a_literal_is_found_in_an_expression_of_any_depth() -> None:
    assert secret_assignments("API_TOKEN = 'x'" + " + 'x'" * 5000) == ["API_TOKEN"]


@pytest.mark.parametrize("section", ["core]\n[api", "core\nx = 1", "[core", ""])
def test_a_section_cannot_bring_another(section: str) -> None:
    with pytest.raises(ValueError, match=r"which airflow\.cfg cannot name"):
        Values.model_validate({"image": "x", "config": {section: {"parallelism": 1}}})


@pytest.mark.parametrize("option", ["a = 1\nb", "a=b", "Parallelism", "a:b", "", "[core]"])
def test_an_option_cannot_bring_another(option: str) -> None:
    with pytest.raises(ValueError, match=r"which is not an option name"):
        Values.model_validate({"image": "x", "config": {"core": {option: 1}}})


@pytest.mark.parametrize(
    "value", ["a\r[api]\rworkers = 9", "a\x00", "a\u2028[api]", "first\n# second", "first\n ; second"]
)
def test_a_value_that_the_parser_reads_as_something_else_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"control characters|takes for a comment"):
        Values.model_validate({"image": "x", "config": {"core": {"x": value}}})


@pytest.mark.parametrize(
    "value", ["one\n[api]\nworkers = 9", "100%", "%(home)s", "{{ ds }}", "a = b", '["x"]', "a\n\nb"]
)
def test_a_value_of_many_lines_is_read_back_as_it_was(value: str) -> None:
    import configparser

    from crosswind.deploy.airflow_config import airflow_cfg

    parser = configparser.ConfigParser()
    parser.read_string(airflow_cfg(Values.model_validate({"image": "x", "config": {"core": {"x": value}}})))
    assert parser["core"]["x"] == value
    assert "workers" not in (parser["api"] if parser.has_section("api") else {})
