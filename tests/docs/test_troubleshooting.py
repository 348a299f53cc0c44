"""The troubleshooting page has a line for every error, every reason of a verdict and every cause."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crosswind import errors
from crosswind.pods import causes, verdict

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "troubleshooting.md").read_text()
ROWS = [row.split(" | ") for row in re.findall(r"^\| (.+) \|$", PAGE, re.MULTILINE)]
NAMED = {name for row in ROWS for name in re.findall(r"`([^`]+)`", row[0])}

CROSSWIND = Path(errors.__file__).parent
SOURCES = "".join(Path(module.__file__).read_text() for module in (causes, verdict))
NOT_REASONS = {
    *("True", "False", "Always", "Never", "OnFailure", "Running", "Succeeded"),
    *("PodScheduled", "Ready", "ContainersReady"),
    *verdict.__all__,
}
"""Words of the sources in capitals that are values, conditions or names of Python."""
REASONS = {
    *verdict.FATAL_REASONS,
    *verdict.INFRASTRUCTURE_REASONS,
    *causes._DISRUPTIONS,
    *(set(re.findall(r'"([A-Z][A-Za-z]+)"', SOURCES)) - NOT_REASONS),
}


ERRORS = [name for name in errors.__all__ if isinstance(getattr(errors, name), type)]


@pytest.mark.parametrize("name", ERRORS)
def test_each_error_has_a_line_with_meaning_and_fix(name: str) -> None:
    (row,) = [row for row in ROWS if row[0] == f"`{name}`"]
    assert len(row) == 3
    assert all(cell.strip() for cell in row)


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_each_reason_of_a_verdict_or_cause_has_a_line(reason: str) -> None:
    assert reason in NAMED


@pytest.mark.parametrize("code", sorted(causes._EXIT_CODES))
def test_each_exit_code_has_a_line(code: int) -> None:
    assert [row for row in ROWS if row[0] == str(code)]


@pytest.mark.parametrize("pattern", [pattern for pattern, _ in causes._REFUSALS])
def test_each_refusal_of_the_api_server_has_a_line(pattern: str) -> None:
    # The page quotes the fixed words of the message, with … for what varies.
    fixed = list(re.findall(r"[A-Za-z]{4,}", re.sub(r"\(\?P<\w+>[^)]*\)", " ", pattern)))
    section = PAGE.partition("## The API server refused the pod")[2].partition("\n## ")[0]
    assert any(all(word in row for word in fixed[:2]) for row in section.splitlines()), fixed


def test_each_event_is_described() -> None:
    shown = re.search(r"^POD_EVENTS = \((.*)\)$", (CROSSWIND / "provider" / "pod_page.py").read_text(), re.MULTILINE)
    assert shown is not None
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "executor.md").read_text()
    assert set(re.findall(r"^\| `([a-z ]+)` \|", guide.partition("## Read the event log")[2], re.MULTILINE)) == set(
        re.findall(r'"([^"]+)"', shown[1])
    )


QUOTED = re.findall(
    r'^\| "([^"]+)" \|', PAGE.partition("## The scheduler's log")[2].partition("\n## ")[0], re.MULTILINE
)


@pytest.mark.parametrize("message", QUOTED)
def test_a_line_of_the_schedulers_log_is_one_that_the_executor_writes(message: str) -> None:
    """The page leaves out what varies; each fixed part stands in the sources, in one literal or in neighbours."""
    sources = "\n".join(path.read_text() for path in CROSSWIND.rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", sources)
    for part in message.split("…"):
        assert part.strip(" :") in joined, message


def test_the_log_of_the_scheduler_has_lines() -> None:
    assert len(QUOTED) > 5
