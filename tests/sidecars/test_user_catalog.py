from __future__ import annotations

import pytest

from crosswind.errors import ConfigError
from crosswind.sidecars.catalog import Role, Setting
from crosswind.sidecars.user_catalog import parse_sidecars

WHOLE = """\
sidecars:
  - name: pgbouncer
    containers: [pgbouncer]
    images: ["*/pgbouncer:*"]
    role: shipper
    asks:
      - {port: {default: 6432, annotations: [example.org/port]}, path: /quit, enabled: true}
    wait: 10s
    signal: INT
"""


def test_a_sidecar_is_described_in_the_shape_of_those_that_are_known() -> None:
    (sidecar,) = parse_sidecars(WHOLE.replace("6432", '"6432"'), "own.yaml")
    assert (sidecar.name, sidecar.role, sidecar.wait, sidecar.signal) == (
        "pgbouncer",
        Role.SHIPPER,
        Setting("10s"),
        "INT",
    )
    (ask,) = sidecar.asks
    assert (ask.port, ask.path, ask.method) == (Setting("6432", ("example.org/port",)), Setting("/quit"), "POST")
    assert ask.enabled == Setting("true")


def test_numbers_may_be_written_plainly() -> None:
    (sidecar,) = parse_sidecars(WHOLE, "own.yaml")
    assert sidecar.asks[0].port.default == "6432"


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", None, "the file is empty"),
        ("- a\n", 1, "write a mapping with the one key sidecars"),
        ("sidecars:\n  - name: a\n    images: [b]\n", 2, "sidecars[0].containers is not set"),
        (WHOLE.replace("role: shipper", "role: boss"), 5, "sidecars[0].role is 'boss'"),
        (WHOLE.replace("signal:", "signla:"), 9, "sidecars[0].signla is not a field; there are name, containers"),
        (WHOLE.replace("/quit,", "/quit, verb: GET,"), 7, "asks[0].verb is not a field; there are port, path"),
        (WHOLE.replace("annotations:", "labels:"), 7, "port.labels is not a field; there are default, annotations"),
        (WHOLE.replace("[pgbouncer]", "pgbouncer"), 3, "sidecars[0].containers is 'pgbouncer'"),
        (WHOLE.replace("6432", "admin"), 7, "asks[0].port is 'admin'; give the port's number"),
        (WHOLE + "    name: twice\n", 10, "is given twice"),
        (WHOLE + "  \tx: 1\n", 10, "not readable as YAML"),
    ],
)
def test_a_problem_is_reported_with_its_line(text: str, line: int | None, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_sidecars(text, "own.yaml")
    assert str(raised.value).startswith(f"own.yaml:{line}:" if line else "own.yaml:")
    assert problem in str(raised.value)
