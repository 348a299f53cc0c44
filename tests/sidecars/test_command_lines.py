from __future__ import annotations

import pytest

from crosswind.sidecars.command_lines import command_line, flag, switch, variables, words

A = {"name": "A", "value": "1"}
INSTANCE = "my-project:europe-west1:db"


@pytest.mark.parametrize(
    ("container", "seen"),
    [
        ({}, []),
        ({"command": ["/proxy"], "args": ["--a", 3]}, ["/proxy", "--a", "3"]),
        ({"args": ["--a=$(A)"], "env": [A]}, ["--a=1"]),
        ({"args": ["--a=$(B)"], "env": [A]}, ["--a=$(B)"]),
        ({"args": ["--a=$$(A)"], "env": [A]}, ["--a=$(A)"]),
        ({"args": ["sh -c 'x y'"]}, ["sh -c 'x y'"]),
        (
            {"command": ["sh", "-c"], "args": ["proxy --a 'b c' & wait"]},
            ["sh", "-c", "proxy", "--a", "b c", "&", "wait"],
        ),
        ({"command": ["/bin/bash", "-euc", "proxy \\\n--a; x"]}, ["/bin/bash", "-euc", "proxy", "--a", ";", "x"]),
        (
            {"command": ["tini", "--", "sh", "-ec", "proxy --a=$A"], "env": [A]},
            ["tini", "--", "sh", "-ec", "proxy", "--a=1"],
        ),
        ({"command": ["sh", "-c", "p ${A} ${B:-2} $C"], "env": [A]}, ["sh", "-c", "p", "1", "2", "$C"]),
        ({"command": ["sh", "-c", "p 'open"]}, ["sh", "-c", "p", "'open"]),
        ({"command": ["sh", "-c", "p --url=http://x#y"]}, ["sh", "-c", "p", "--url=http://x#y"]),
        ({"command": None, "args": [None]}, ["None"]),
    ],
)
def test_the_words_are_those_that_the_container_sees(container: dict[str, object], seen: list[str]) -> None:
    assert words(container) == seen


def test_the_command_line_starts_with_the_programs_name() -> None:
    assert command_line({"command": ["/opt/bin/proxy", "/etc/x"]}) == "proxy /etc/x"


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (["--quit", INSTANCE], "true"),
        (["--quit=false", INSTANCE], "false"),
        (["-quit"], "true"),
        ([INSTANCE], None),
        (["quit"], None),
        (["--quit-at=3"], None),
        (["--quit=false", "--quit"], "true"),
    ],
)
def test_a_switch_takes_no_word_after_it(given: list[str], value: str | None) -> None:
    assert switch(given, "quit") == value


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (["--port", "5"], "5"),
        (["-port=5"], "5"),
        (["--port=5", "--port", "6"], "6"),
        (["--port", "--x"], ""),
        (["--port"], ""),
        (["--ports=5"], None),
    ],
)
def test_a_flag_has_a_value(given: list[str], value: str | None) -> None:
    assert flag(given, "port") == value


def test_only_literal_variables_are_read() -> None:
    env = [A, {"name": "B", "valueFrom": {"secretKeyRef": {}}}, {"name": "C", "value": "$(A)2"}, 3]
    assert variables({"env": env}) == {"A": "1", "C": "12"}
