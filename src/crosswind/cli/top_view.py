"""What ``crosswind top`` shows and how keys change it. Pure: values in, values out.

Keys are those of k9s where it has one for the purpose.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from crosswind.cli.pod_table import SORTS, reason_words, sorted_pods
from crosswind.pods.pod_summary import PodSummary

__all__ = ["Action", "Page", "View", "press", "selected_pod", "visible_pods"]

_ORDERS = ("state", "age", "task", "reason", "node", "queue", "restarts", "name")
_ORDER_KEYS = {"A": "age", "N": "name", "S": "state", "T": "task", "O": "node", "R": "restarts", "Q": "queue"}
_MOVES: Mapping[str, Callable[[int, int, int], int]] = {
    "up": lambda at, page, last: at - 1,
    "k": lambda at, page, last: at - 1,
    "down": lambda at, page, last: at + 1,
    "j": lambda at, page, last: at + 1,
    "pageup": lambda at, page, last: at - page,
    "ctrl-b": lambda at, page, last: at - page,
    "pagedown": lambda at, page, last: at + page,
    "ctrl-f": lambda at, page, last: at + page,
    " ": lambda at, page, last: at + page,
    "home": lambda at, page, last: 0,
    "g": lambda at, page, last: 0,
    "end": lambda at, page, last: last,
    "G": lambda at, page, last: last,
}


class Action(enum.Enum):
    """The action that a key requests in addition to a change of the view."""

    NONE = enum.auto()
    QUIT = enum.auto()
    DESCRIBE = enum.auto()
    YAML = enum.auto()
    LOGS = enum.auto()
    PREVIOUS_LOGS = enum.auto()
    DELETE = enum.auto()
    NAMESPACES = enum.auto()
    """Show all namespaces, or again the one that was chosen."""
    CLOSE_PAGE = enum.auto()


_ACTIONS = {
    "q": Action.QUIT,
    "enter": Action.DESCRIBE,
    "d": Action.DESCRIBE,
    "y": Action.YAML,
    "l": Action.LOGS,
    "p": Action.PREVIOUS_LOGS,
    "0": Action.NAMESPACES,
}
_DELETE_KEYS = ("ctrl-d", "x", "delete")


@dataclass(frozen=True, slots=True)
class Page:
    """A text over the list of pods: a description, a manifest, a log or the help. Its lines are kept elsewhere."""

    title: str
    at: int = 0
    """The first line that is shown."""
    at_end: bool = False
    """Stays at the end as lines are added."""
    wraps: bool = False
    search: str = ""
    """Only lines with this text are shown."""


@dataclass(frozen=True, slots=True)
class View:
    """The state of the screen."""

    sort: str = "state"
    reverse: bool = False
    search: str = ""
    only_faults: bool = False
    """Only pods that failed, wait for a reason, or are held by a sidecar."""
    selected: str = ""
    """uid of the pod under the cursor."""
    at: int = 0
    """Row of the cursor, which stays there when the pod under it goes."""
    typing: bool = False
    """Keys are the text of the search."""
    marked: frozenset[str] = frozenset()
    """uids of the pods to delete together."""
    confirming: frozenset[str] = frozenset()
    """uids of the pods whose deletion waits for a yes."""
    page: Page | None = None
    help: bool = False
    message: str = ""
    """About the last action; the next key removes it."""


def visible_pods(pods: Iterable[PodSummary], view: View) -> list[PodSummary]:
    """Return the pods of the list in its order."""
    chosen = (pod for pod in pods if _matches(pod, view))
    return sorted_pods(chosen, view.sort, reverse=view.reverse)


def _matches(pod: PodSummary, view: View) -> bool:
    if view.only_faults and not (pod.state in ("failed", "lost", "pending") or pod.sidecars_running):
        return False
    return matches_search(_searched_text(pod), view.search)


def matches_search(text: str, search: str) -> bool:
    """Return whether a text has all words of a search, in any case; a word after ``!`` must not be in it."""
    if not search:
        return True
    text = text.lower()
    return all(
        (word[1:] not in text) if word.startswith("!") and word[1:] else word in text for word in search.lower().split()
    )


def _searched_text(pod: PodSummary) -> str:
    return " ".join(
        (pod.task, pod.run_id, pod.name, pod.namespace, pod.state, reason_words(pod), pod.node, pod.queue, pod.kind)
    )


def selected_pod(pods: Sequence[PodSummary], view: View) -> tuple[int, PodSummary | None]:
    """Return the row of the cursor and its pod: the one that was chosen, else the one that is now in that row."""
    if not pods:
        return 0, None
    for index, pod in enumerate(pods):
        if pod.uid == view.selected:
            return index, pod
    index = min(view.at, len(pods) - 1)
    return index, pods[index]


_Pressed: TypeAlias = tuple[View, Action]


def press(view: View, key: str, pods: Sequence[PodSummary], page_rows: int, page_lines: int = 0) -> _Pressed:
    """Return the view after a key, and what else is to be done.

    ``pods``: the rows of the list. ``page_rows``: rows that fit the screen. ``page_lines``: lines of the open page.
    """
    view = replace(view, message="")
    if key == "ctrl-c":
        return view, Action.QUIT
    if view.typing:
        return _typed(view, key), Action.NONE
    if view.confirming:
        action = Action.DELETE if key in ("y", "Y") else Action.NONE
        if action is Action.NONE:
            view = replace(view, confirming=frozenset(), message="not deleted")
        return view, action
    if view.help:
        return replace(view, help=False), Action.NONE
    if key in ("?", "h"):
        return replace(view, help=True), Action.NONE
    if key == "/":
        return replace(view, typing=True), Action.NONE
    return _in_page(view, view.page, key, page_rows, page_lines) if view.page else _in_list(view, key, pods, page_rows)


def _typed(view: View, key: str) -> View:
    search = view.page.search if view.page else view.search
    if key == "escape":
        return _searching(replace(view, typing=False), "")
    if key == "enter":
        return replace(view, typing=False)
    if key == "ctrl-u":
        return _searching(view, "")
    if key == "backspace":
        return _searching(view, search[:-1])
    return _searching(view, search + key) if len(key) == 1 else view


def _searching(view: View, search: str) -> View:
    if view.page:
        return replace(view, page=replace(view.page, search=search, at=0))
    return replace(view, search=search)


def _in_page(view: View, page: Page, key: str, rows: int, lines: int) -> _Pressed:
    if key in ("escape", "q", "left"):
        if page.search and key == "escape":
            return replace(view, page=replace(page, search="")), Action.NONE
        return replace(view, page=None), Action.CLOSE_PAGE
    if key == "w":
        return replace(view, page=replace(page, wraps=not page.wraps)), Action.NONE
    if key == "s":
        return replace(view, page=replace(page, at_end=not page.at_end)), Action.NONE
    if key in _MOVES:
        last = max(0, lines - rows)
        at = last if page.at_end else page.at
        at = max(0, min(last, _MOVES[key](at, rows - 1, last)))
        return replace(view, page=replace(page, at=at, at_end=key in ("end", "G"))), Action.NONE
    return view, Action.NONE


def _in_list(view: View, key: str, pods: Sequence[PodSummary], rows: int) -> _Pressed:
    at, pod = selected_pod(pods, view)
    if key == " ":
        return _marked(view, pods, at), Action.NONE
    if key in _MOVES:
        at = max(0, min(len(pods) - 1, _MOVES[key](at, rows - 1, len(pods) - 1)))
        return replace(view, at=at, selected=pods[at].uid if pods else ""), Action.NONE
    if key in _DELETE_KEYS:
        pods_to_delete = view.marked & {row.uid for row in pods} or ({pod.uid} if pod else set())
        return replace(view, confirming=frozenset(pods_to_delete)), Action.NONE
    if key in _ACTIONS:
        return (replace(view, selected=pod.uid) if pod else view), _action(_ACTIONS[key], pod)
    if key == "escape":
        return replace(view, search="", only_faults=False, marked=frozenset()), Action.NONE
    if key in ("f", "ctrl-z"):
        return replace(view, only_faults=not view.only_faults), Action.NONE
    return _ordered(view, key), Action.NONE


def _marked(view: View, pods: Sequence[PodSummary], at: int) -> View:
    """Return the view with the pod under the cursor marked, or unmarked, and the cursor on the next one."""
    if not pods:
        return view
    following = min(at + 1, len(pods) - 1)
    return replace(view, marked=view.marked ^ {pods[at].uid}, at=following, selected=pods[following].uid)


def _action(action: Action, pod: PodSummary | None) -> Action:
    return action if pod or action in (Action.QUIT, Action.NAMESPACES) else Action.NONE


def _ordered(view: View, key: str) -> View:
    """Return the view in another order: ``s`` takes the next one, ``r`` reverses, capitals name one."""
    if key == "r":
        return replace(view, reverse=not view.reverse)
    if key == "s":
        following = _ORDERS[(_ORDERS.index(view.sort) + 1) % len(_ORDERS)]
        return replace(view, sort=following, reverse=False)
    sort = _ORDER_KEYS.get(key)
    if sort in SORTS:
        return replace(view, sort=sort, reverse=not view.reverse if sort == view.sort else False)
    return view
