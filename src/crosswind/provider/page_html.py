"""The tab of a pod and the page of the fleet as plain HTML, for browsers and frames that run no scripts. Pure.

The pages have the classes of ``pages/crosswind.css``, which is written into them: a frame without scripts has an origin
of its own, so that it loads nothing with the reader's rights.
"""

from __future__ import annotations

import datetime
import html
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence

from crosswind.pods.injected_lines import YamlLine
from crosswind.provider.page_content import (
    ExecutorRow,
    FleetPage,
    GroupRow,
    MemoryFitRow,
    PodInFlightRow,
    StatusRow,
    TabEvent,
    TabPart,
    TabPod,
    TaskTab,
)
from crosswind.types import Json

__all__ = ["fleet_html", "tab_html"]

_KINDS = {"ordinary": "sidecar", "native": "native sidecar", "init": "init container"}
_FRAME = """
:root { color-scheme: light dark; font-family: system-ui, sans-serif; }
body { margin: 0; background: light-dark(#fff, #101825); }
"""
_PHASES = {
    "waiting": "To be created",
    "pending": "Pending in the cluster",
    "running": "Running",
    "ending": "Ending",
    "adopting": "Being adopted",
}


_NO_REASON = {"waiting": "their turn", "pending": "to start", "adopting": "to be adopted"}


def tab_html(tab: TaskTab, lines: Sequence[YamlLine], note: str, style: str) -> str:
    """Return the tab with the lines of the manifest and a remark on them."""
    pods = tab["pods"]
    newest = pods[0] if pods and pods[0]["status"] == tab["status"] else None
    name = _name(newest, pods) if newest and len(pods) > 1 else ""
    body = [_note(tab["stale"]), _status(tab["status"], newest["name"] if newest else "", name)]
    if newest:
        body.append(_life(newest, tab["events"]))
    elif not pods:
        body.append(_events((), tab["events"]))
    for pod in pods[1:] if newest else pods:
        body.append(
            f"<details><summary>{_dot(pod['status']['tone'])} {_e(_name(pod, pods))}: "
            f"{_e(pod['status']['title'])}</summary>"
        )
        body.append(_status(pod["status"], pod["name"]) + _life(pod, tab["events"]) + "</details>")
    yaml = "".join(f"<mark>{_e(line.text)}</mark>\n" if line.injected else f"{_e(line.text)}\n" for line in lines)
    manifest = f"<p class=cw-muted>{_e(note)}</p>" + (f"<pre tabindex=0>{yaml}</pre>" if lines else "")
    body.append(f"<details><summary>Manifest (YAML)</summary>{manifest}</details>")
    return _document("Pod", style, "cw-narrow", body)


def fleet_html(fleet: FleetPage, query: Mapping[str, str], style: str) -> str:
    """Return the page of the fleet. ``query``: the filters in use."""
    tiles = "".join(
        f"<div class='cw-panel cw-tile'><strong>{phase['pods']:,}</strong>"
        f"<span><i class='cw-dot cw-phase-{phase['phase']}'></i>{_PHASES[phase['phase']]}</span></div>"
        for phase in fleet["phases"]
    )
    if warm := fleet["warm"]:
        tiles += (
            f"<div class='cw-panel cw-tile'><strong>{warm['ready']:,}</strong>"
            f"<span><i class='cw-dot cw-warm'></i>Warm</span></div>"
        )
    waits = [
        (wait["reason"] or _NO_REASON[wait["phase"]], f"{wait['pods']:,} · {wait['shown']}") for wait in fleet["waits"]
    ]
    failures = [(failure["reason"], f"{failure['pods']:,}") for failure in fleet["failures"]]
    by = {"queue": "By queue", "namespace": "By namespace", "dag_id": "By DAG"}
    groups = "".join(_panel(title, _ranks(fleet["by"][name]), "No pods.") for name, title in by.items())
    body = [
        f"<div class='cw-row cw-spread'><h1>Pods</h1><span class=cw-muted>{fleet['total']:,} in flight at "
        f"{_clock(fleet['now'])} UTC</span></div>{_note(fleet['stale'])}",
        f"<div class=cw-tiles>{tiles}</div><div class=cw-panels>",
        _panel("What pods wait for, longest first", waits, "No pod waits."),
        _panel("Failed or lost in the last 24 hours", failures, "No pod failed or was lost."),
        _panel("Schedulers", [_executor(executor) for executor in fleet["executors"]], "No scheduler reports."),
        f"</div><div class=cw-panels>{groups}</div>",
        _filters(query),
        _pod_table(fleet["pods"]["rows"]),
        _paging(fleet["pods"]["total"], len(fleet["pods"]["rows"]), query),
        _fits(fleet["fits"]),
    ]
    return _document("Pods", style, "", body)


def _document(title: str, style: str, kind: str, body: Iterable[str]) -> str:
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{title}</title><style>{style}{_FRAME}</style>"
        f"<body><main class='cw cw-page'><div class='{kind}'>{''.join(body)}</div></main>"
    )


def _e(value: object) -> str:
    return html.escape(str(value))


def _clock(moment: float | None) -> str:
    return f"{datetime.datetime.fromtimestamp(moment, datetime.UTC):%Y-%m-%d %H:%M:%S}" if moment else ""


def _dot(tone: str) -> str:
    return f"<span class='cw-dot cw-{tone}'></span>"


def _note(text: str) -> str:
    return f"<p class=cw-note role=status>{_e(text)}</p>" if text else ""


def _table(headings: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the cells are HTML."""
    head = "".join(f"<th scope=col>{heading}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=cw-scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


# --- the tab ----------------------------------------------------------------------------------------------------------


def _name(pod: TabPod, pods: Iterable[TabPod]) -> str:
    launches = any(other["launch"] for other in pods if other["try_number"] == pod["try_number"])
    return f"Try {pod['try_number']}" + (f", launch {pod['launch'] + 1}" if launches else "")


def _status(status: StatusRow, name: str, attempt: str = "") -> str:
    text = f"<p>{_e(status['text'])}</p>" if status["text"] else ""
    pod = f"<code class=cw-muted>{_e(name)}</code>" if name else ""
    badge = f"<span class=cw-badge>{attempt}</span>" if attempt else ""
    return (
        f"<section class='cw-status cw-tone-{status['tone']}'><div class=cw-row>{_dot(status['tone'])}"
        f"<strong>{_e(status['title'])}</strong>{badge}{pod}</div>{text}</section>"
    )


def _life(pod: TabPod, events: Iterable[TabEvent]) -> str:
    reported = [event for event in events if event["try"] == pod["try_number"]]
    shown = f"{_timeline(pod['parts'])}<h2>Pod</h2>{_facts(pod)}{_containers(pod['containers'])}"
    return shown + _events(pod["events"], reported)


def _timeline(parts: Sequence[TabPart]) -> str:
    if not parts:
        return ""
    started_at = parts[0]["start"]
    total = max(part["start"] + part["seconds"] for part in parts) - started_at or 1.0
    rows = []
    for part in parts:
        kinds = "cw-bar" + (" cw-is-task" if part["is_task"] else "") + (" cw-is-open" if part["is_open"] else "")
        place = f"left:{100 * (part['start'] - started_at) / total:.2f}%;width:{100 * part['seconds'] / total:.2f}%"
        largest = "<span class='cw-badge cw-strong'>largest</span> " if part["is_largest"] and len(parts) > 1 else ""
        rows.append(
            f"<li class='{'cw-largest' if part['is_largest'] else ''}'><span>{_e(part['label'])}</span>"
            f"<span class=cw-track><span class='{kinds}' style='{place}'></span></span>"
            f"<span class=cw-right>{largest}{_e(part['shown'])}{'…' if part['is_open'] else ''}</span></li>"
        )
    return f"<h2>Timeline</h2><ol class=cw-timeline>{''.join(rows)}</ol>"


def _facts(pod: TabPod) -> str:
    memory, cpu = pod["memory"], pod["cpu"]
    facts = {
        "Namespace": _e(pod["namespace"]),
        "Node": _e(pod["node"]),
        "Queue": _e(pod["queue"]),
        "Image": f"<code>{_e(pod['image'])}</code>" if pod["image"] else "",
        "Memory": _meter(memory["share"]) + _e(memory["text"]) if memory else "",
        "CPU": f"{cpu:.1f} s" if cpu else "",
        "Warm": f"waited {pod['waited']} for this task" if pod["waited"] else "",
        "Exit code": "" if pod["exit_code"] is None else str(pod["exit_code"]),
        "Queued": _clock(pod["times"].get("queued")),
        "Ended": _clock(pod["times"].get("ended")),
        "Cluster": _e(pod["cluster"]),
    }
    return (
        "<dl class=cw-facts>"
        + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items() if value)
        + "</dl>"
    )


def _meter(share: float | None) -> str:
    if share is None:
        return ""
    tight = "class=cw-tight " if share >= 0.9 else ""
    return f"<span class=cw-meter><span {tight}style='width:{min(100.0, share * 100):.0f}%'></span></span>"


def _containers(containers: Sequence[Mapping[str, Json]]) -> str:
    if not containers:
        return ""
    badge = " <span class=cw-badge>injected</span>"
    rows = (
        (
            _e(container.get("name", "")) + (badge if container.get("injected") else ""),
            _e(_KINDS.get(container.get("kind", ""), container.get("kind", ""))),
            _e(container.get("state", "")),
            _e(container.get("exit_code", "")),
        )
        for container in containers
    )
    return "<h2>Containers beside base</h2>" + _table(("Name", "Kind", "State", "Exit code"), rows)


def _events(of_pod: Iterable[Mapping[str, Json]], reported: Iterable[TabEvent]) -> str:
    rows = [(event["at"], event["event"], event["text"]) for event in reported]
    rows += [(event.get("at"), event.get("reason", ""), event["message"]) for event in of_pod]
    if not rows:
        return ""
    rows.sort(key=lambda row: row[0] or 0.0)
    cells = ((_clock(at), _e(name), _e(text)) for at, name, text in rows)
    return "<h2>Events</h2>" + _table(("Time (UTC)", "Event", "Message"), cells)


# --- the fleet --------------------------------------------------------------------------------------------------------


def _panel(title: str, rows: Sequence[tuple[str, str]], empty: str) -> str:
    lines = "".join(
        f"<li class=cw-line><span>{_e(name)}</span><span class=cw-right>{_e(value)}</span></li>" for name, value in rows
    )
    content = f"<ul>{lines}</ul>" if rows else f"<p class=cw-muted>{empty}</p>"
    return f"<section class=cw-panel><h2>{title}</h2>{content}</section>"


def _ranks(rows: Iterable[GroupRow]) -> list[tuple[str, str]]:
    return [
        (row["value"] if row["value"] is not None else f"{row['others']} others", f"{row['pods']:,}") for row in rows
    ]


def _executor(executor: ExecutorRow) -> tuple[str, str]:
    if executor["stale"]:
        return f"Executor {executor['executor']}", f"silent for {executor['age']:.0f} s"
    return f"Executor {executor['executor']}", f"watch: {executor['watch_silence']:.0f} s ago"


def _filters(query: Mapping[str, str]) -> str:
    inputs = "".join(
        f"<label>{label} <input type=search name={name} value='{_e(query.get(name, ''))}' style='width:130px'></label>"
        for name, label in (
            ("phase", "Phase"),
            ("queue", "Queue"),
            ("dag_id", "DAG"),
            ("reason", "Reason"),
            ("search", "Search"),
        )
    )
    return f"<h2>Pods in flight</h2><form class=cw-row>{inputs}<button>Show</button></form>"


def _pod_table(pods: Iterable[PodInFlightRow]) -> str:
    rows = (
        (
            f"{_e(pod['dag_id'])}.{_e(pod['task_id'])}{'' if pod['map_index'] < 0 else [pod['map_index']]}"
            f"<br><small class=cw-muted>{_e(pod['run_id'])}</small>",
            f"<span class=cw-row><i class='cw-dot cw-phase-{_e(pod['phase'])}'></i>{_e(pod['phase'])}</span>",
            *map(_e, (pod["reason"], pod["shown"], pod["queue"], pod["namespace"], pod["node"])),
        )
        for pod in pods
    )
    return _table(("Task", "Phase", "Waits for", "For", "Queue", "Namespace", "Node"), rows)


def _paging(total: int, shown: int, query: Mapping[str, str]) -> str:
    offset = int(query.get("offset") or 0)
    text = f"{offset + 1:,}–{offset + shown:,} of {total:,}" if shown else "No pod matches."
    if offset + shown >= total:
        return f"<p class=cw-muted>{text}</p>"
    following = urllib.parse.urlencode({**query, "offset": offset + shown})
    return f"<p class=cw-muted>{text} <a href='?{_e(following)}'>Next</a></p>"


def _fits(fits: Sequence[MemoryFitRow]) -> str:
    if not fits:
        return ""
    rows = (
        (
            _e(f"{fit['dag_id']}.{fit['task_id']}"),
            *map(_e, (fit["peak"], fit["request"], fit["limit"], fit["pods"], fit["text"])),
        )
        for fit in fits
    )
    heading = "<h2>Largest memory mismatches of the last 24 hours</h2>"
    return heading + _table(("Task", "Peak", "Request", "Limit", "Pods", "Verdict"), rows)
