"""The pages in Airflow's own UI, in headless Chromium: each scene in light and dark, wide and narrow."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect
from playwright.sync_api import Error as PlaywrightError
from tests.pages.rig import RUN, PagesServer, of_task

from deadlines import scaled

sys.path.append(str(Path(__file__).parents[2] / "tools"))

from pictures.browser import chromium, open_browser

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not chromium(), reason="Chromium is not installed; continuous integration installs it"),
]

SHOTS = os.environ.get("PAGES_SHOTS", "")
"""A folder for screenshots, to look at."""

LOOKS = [(theme, width) for theme in ("light", "dark") for width in (1440, 800)]

SPILLED = """
() => [...document.querySelectorAll(".cw")].flatMap(root => [...root.querySelectorAll("*")].filter(element => {
    const style = getComputedStyle(element), inside = element.closest(".cw-scroll, pre, .cw-meter, .cw-shares, select");
    if (inside || style.position === "absolute" || !element.getClientRects().length) return false;
    return element.getBoundingClientRect().right > root.getBoundingClientRect().right + 1;
}).map(element => element.className + ": " + element.textContent.slice(0, 60)))
"""
"""What stands out of its page on the right."""

SERIOUS = """
async () => (await axe.run({include: [[".cw"]]})).violations
    .filter(problem => ["serious", "critical"].includes(problem.impact))
    .map(problem => [problem.id, problem.nodes.map(node => node.target.join(" ") + ": " + node.failureSummary)])
"""


class Scene(NamedTuple):
    """An address of Airflow's UI, and texts that its page shows."""

    path: str
    texts: tuple[str, ...]


def tab(task: str, *texts: str, index: int | None = None) -> Scene:
    mapped = "" if index is None else f"/mapped/{index}"
    return Scene(f"/dags/orders/runs/{RUN}/tasks/{task}{mapped}/plugin/crosswind-pod", texts)


SCENES = {
    "success": tab(
        "extract", "Succeeded after", "User code", "largest", "peak 381 MiB, 37% of the limit", "istio-proxy"
    ),
    "failure": tab("clean", "Failed: Error", "exit code 1", "Rest of the worker"),
    "oom": tab("join_all", "Failed: OOMKilled", "raise pod_override", "100% of the limit", "OOMKilling"),
    "pending": tab("load", "Waits in the cluster for", "Unschedulable", "lower the request of 64Gi"),
    "tries": tab("report", "Try 3, launch 2", "OutOfcpu", "Try 2", "Try 1", "Evicted", "Succeeded after"),
    "running": tab("publish", "Running for", "worker-3"),
    "mapped": tab("partition", "Failed: Error", index=2),
    "without-pod": Scene(
        f"/dags/secret_plans/runs/{RUN}/tasks/hidden/plugin/crosswind-pod", ("No pod yet", "has not queued the task")
    ),
    "fleet": Scene(
        "/plugin/crosswind-pods",
        (
            "5,000 in flight",
            "10Warm, 1 starting",
            "Unschedulable",
            "QuotaExceeded",
            "1–50 of 5,000",
            "etl_",
        ),
    ),
    "dashboard": Scene("/", ("All pods", "failed or lost in 24 hours")),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


@pytest.fixture(scope="module")
def tokens(server: PagesServer) -> dict[str, str]:
    return {user: server.token(user) for user in ("admin", "reader")}


Open = Callable[..., Page]


def fetch_outside_chromium(context: BrowserContext) -> None:
    """Have Playwright make the requests of a context's pages.

    Chromium ends all its connections, also those to 127.0.0.1, when the addresses of the machine change
    (ERR_NETWORK_CHANGED), and clusters of other tests add and remove the interfaces of pods.
    """

    def fetch(route: Route) -> None:
        with suppress(PlaywrightError):  # the page was closed meanwhile
            try:
                route.fulfill(response=route.fetch(max_redirects=0))
            except PlaywrightError as error:
                print(route.request.url, error.message)
                route.abort()

    context.route("**/*", fetch)


@pytest.fixture
def visit(browser: Browser, server: PagesServer, tokens: dict[str, str]) -> Iterator[Open]:
    """Open a page of Airflow's UI; a script's error fails the test."""
    errors: list[str] = []
    contexts = []

    def visit(path: str, theme: str = "light", width: int = 1440, user: str = "admin") -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)  # type: ignore[arg-type]
        context.add_cookies([{"name": "_token", "value": tokens[user], "url": server.url}])
        context.add_init_script(f'localStorage.setItem("theme", "{theme}")')
        context.set_default_timeout(scaled(15) * 1000)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        # Airflow's UI shows its page 404 where a plug-in's script does not load; the test's output names the cause.
        page.on("requestfailed", lambda request: print(request.url, request.failure))
        page.on("console", lambda message: print(message.text) if message.type == "error" else None)
        fetch_outside_chromium(context)
        contexts.append(context)
        page.goto(server.url + path)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert errors == []


@contextmanager
def looked_at(page: Page, name: str) -> Iterator[None]:
    """Take a screenshot, also of a page that fails the test."""
    try:
        yield
    finally:
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=Path(SHOTS) / f"{name}.png")


@pytest.mark.parametrize(("theme", "width"), LOOKS)
@pytest.mark.parametrize("name", SCENES)
def test_each_page_shows_what_it_promises_in_every_look(
    visit: Open, axe: str, name: str, theme: str, width: int
) -> None:
    scene = SCENES[name]
    page = visit(scene.path, theme, width)
    with looked_at(page, f"{name}-{theme}-{width}"):
        for text in scene.texts:
            expect(page.locator(".cw").first).to_contain_text(text, timeout=scaled(15) * 1000)
        page.wait_for_function("() => document.querySelector('.cw').getAnimations().length === 0")
        assert page.evaluate(SPILLED) == []
        page.evaluate(axe)
        assert page.evaluate(SERIOUS) == []
        text_color = page.evaluate("() => getComputedStyle(document.querySelector('.cw')).color")
        assert is_dark(page, text_color) is (theme == "light")


def is_dark(page: Page, color: str) -> bool:
    """Return whether a colour of CSS, in any notation, is dark."""
    paint = """color => {
        const canvas = new OffscreenCanvas(1, 1).getContext("2d");
        canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    }"""
    red, green, blue, _ = page.evaluate(paint, color)
    return bool(red + green + blue < 3 * 128)


def test_every_try_and_launch_can_be_chosen(visit: Open) -> None:
    page = visit(SCENES["tries"].path)
    page.get_by_role("button", name=re.compile("Try 1")).click()
    expect(page.locator(".cw-status")).to_contain_text("Lost: Evicted")
    expect(page.locator(".cw-status")).to_contain_text("the node worker-3 was low on memory")
    page.get_by_role("button", name=re.compile("Try 3, launch 1")).click()
    expect(page.locator(".cw")).to_contain_text("Until it was given up")
    expect(page.locator(".cw").get_by_text("pod relaunched")).to_be_visible()


def test_the_manifest_is_folded_and_marks_what_was_injected(visit: Open) -> None:
    page = visit(SCENES["success"].path)
    assert page.locator("pre").count() == 0
    page.get_by_text("Manifest (YAML)").click()
    expect(page.locator("pre")).to_contain_text("kind: Pod")
    marks = page.locator("pre mark")
    expect(marks).to_have_count(6)
    shown = "".join(marks.all_text_contents())
    for name in ("istio-init", "istio-proxy", "istio.io/rev:", "sidecar.istio.io/status:", "kube-api-access-7xk2p"):
        assert name in shown
    assert "mountPath: /var/run/secrets/kubernetes.io/serviceaccount" in shown
    assert "hunter2" not in page.content()


def test_the_log_of_the_try_is_one_click_away(visit: Open) -> None:
    page = visit(SCENES["failure"].path)
    page.get_by_role("link", name="Log of try 1").click()
    page.wait_for_url(re.compile(r"/tasks/clean\?try_number=1"))


def test_a_living_pod_is_shown_anew_as_time_passes(visit: Open) -> None:
    page = visit(SCENES["running"].path)
    status = page.locator(".cw-status strong")
    before = status.text_content() or ""
    expect(status).not_to_have_text(before, timeout=scaled(15) * 1000)


def test_the_fleet_is_filtered_sorted_and_paged_by_address(visit: Open) -> None:
    page = visit("/plugin/crosswind-pods?queue=gpu&sort=-since")
    expect(page.locator(".cw tbody tr").first).to_contain_text("gpu")
    expect(page.locator(".cw")).to_contain_text("of 1,249")
    page.get_by_role("button", name="Next").click()
    expect(page.locator(".cw")).to_contain_text("51–100 of 1,249")
    page.get_by_role("button", name="Remove the filter queue gpu").click()
    expect(page.locator(".cw")).to_contain_text("of 5,000")
    page.get_by_role("searchbox", name="Search by task").fill("publish")
    expect(page.locator(".cw tbody tr").first).to_contain_text("orders.publish")
    page.wait_for_url(re.compile("search=publish"))


def test_a_pod_of_the_fleet_leads_to_its_tab(visit: Open) -> None:
    page = visit("/plugin/crosswind-pods?search=publish")
    page.get_by_role("link", name="orders.publish").click()
    expect(page.locator(".cw-status")).to_contain_text("Running for")


def test_the_page_of_the_fleet_is_under_browse(visit: Open) -> None:
    page = visit("/")
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="Pods", exact=True).click()
    expect(page.locator(".cw h1")).to_have_text("Pods")


def test_a_reader_of_one_dag_sees_the_pods_of_that_dag_alone(visit: Open) -> None:
    page = visit("/plugin/crosswind-pods", user="reader")
    expect(page.locator(".cw")).to_contain_text("3 in flight")
    assert "etl_" not in page.locator(".cw").inner_text()


@pytest.mark.parametrize(("theme", "width"), LOOKS)
@pytest.mark.parametrize("name", ["tab", "fleet"])
def test_the_same_without_scripts(
    browser: Browser, server: PagesServer, tokens: dict[str, str], axe: str, name: str, theme: str, width: int
) -> None:
    query = "&".join(f"{key}={value}" for key, value in of_task("report").items())
    path, texts = {
        "tab": (f"pod?{query}", ("Try 3, launch 2", "Lost: Evicted", "User code", "Manifest (YAML)")),
        "fleet": ("fleet", ("5,000 in flight", "Unschedulable", "1–50 of 5,000", "etl_")),
    }[name]
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=theme,  # type: ignore[arg-type]
        java_script_enabled=False,
    )
    context.add_cookies([{"name": "_token", "value": tokens["admin"], "url": server.url}])
    fetch_outside_chromium(context)
    page = context.new_page()
    page.goto(f"{server.url}/crosswind/{path}")
    with looked_at(page, f"plain-{name}-{theme}-{width}"):
        for text in texts:
            expect(page.locator("body")).to_contain_text(text)
    content = page.content()
    context.close()
    assert "<script" not in content
    checked = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)  # type: ignore[arg-type]
    checked.set_content(content)
    assert checked.evaluate(SPILLED) == []
    checked.evaluate(axe)
    assert checked.evaluate(SERIOUS) == []
    checked.close()
