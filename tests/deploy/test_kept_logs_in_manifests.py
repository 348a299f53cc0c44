from __future__ import annotations

from typing import Any

import pytest

from crosswind.deploy.airflow_config import derived_options
from crosswind.deploy.rbac_objects import executor_rules
from crosswind.deploy.values import Values


@pytest.mark.parametrize(
    ("settings", "option", "may_read"),
    [
        ({}, None, True),
        ({"logs": {"to": "archive"}}, None, True),
        ({"logs": {"to": "none"}}, "never", False),
        ({"logs": {"to": "volume"}}, None, False),
        ({"logs": {"to": "remote", "url": "s3://a/b"}}, None, False),
        (
            {"logs": {"to": "remote", "url": "s3://a/b"}, "config": {"crosswind": {"archive_logs": "always"}}},
            "always",
            True,
        ),
        ({"config": {"crosswind": {"archive_logs": "never"}}}, "never", False),
    ],
)
def test_schedulers_may_read_logs_where_they_keep_them(
    settings: dict[str, Any], option: str | None, may_read: bool
) -> None:
    values = Values.model_validate({"image": "x", **settings})
    assert derived_options(values).get("crosswind", {}).get("archive_logs") == option
    assert any(rule["resources"] == ["pods/log"] for rule in executor_rules(values)) is may_read
