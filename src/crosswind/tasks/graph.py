"""The graph of tasks: which task produces each table, and so which tasks must run before which. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from graphlib import TopologicalSorter

from crosswind.tasks import placeholders
from crosswind.tasks.asset_names import asset_problem
from crosswind.tasks.folder_reader import SETTINGS_FILE, TaskFolder, TaskSource
from crosswind.tasks.model import FolderSettings
from crosswind.tasks.operator_calls import text_too_long_for_a_pod
from crosswind.tasks.problems import TaskFileProblem

__all__ = ["Graph", "TaskNode", "depths", "find_loops", "link", "matches"]


@dataclass(slots=True)
class TaskNode:
    """A task. Where its file is broken, ``problem`` says why, and the task keeps its place in the graph."""

    id: str
    path: str
    folder: str
    settings: FolderSettings
    reads: dict[str, int]
    """Tables that must exist before it runs, with the line in ``path``; 0 if the file does not name the table."""
    writes: tuple[str, ...]
    source: TaskSource | None = None
    problem: str = ""
    appends: tuple[str, ...] = ()
    """Shared tables that it changes and does not create."""


@dataclass(slots=True)
class Graph:
    """Tasks by id, in the order of their files, and the tables between them."""

    nodes: dict[str, TaskNode] = field(default_factory=dict)
    producers: dict[str, str] = field(default_factory=dict)
    """Task id by table."""
    appenders: dict[str, list[str]] = field(default_factory=dict)
    """Ids of the tasks that append to a table, by table."""
    problems: list[TaskFileProblem] = field(default_factory=list)

    def inputs(self, node: TaskNode) -> Iterator[tuple[str, str]]:
        """Yield each table for which this task waits, and the other task's id; a broken task waits for none.

        It waits for the producer of each table that it reads or appends to. A table without a producer is ready after
        all tasks that append to it, and these do not wait for each other.
        """
        for table in () if node.problem else dict.fromkeys([*node.reads, *node.appends]):
            for task in self.makers(table):
                if task != node.id and (table in self.producers or table not in node.appends):
                    yield table, task

    def makers(self, table: str) -> list[str]:
        """Return the ids of the tasks after which a table is ready: its producer, else all that append to it."""
        return [self.producers[table]] if table in self.producers else self.appenders.get(table, [])

    def external(self, node: TaskNode) -> list[str]:
        """Return the tables that it reads and that no task produces or appends to."""
        return [table for table in node.reads if not self.makers(table)] if not node.problem else []

    def fail(self, node: TaskNode, line: int, message: str, *, report: bool = True) -> None:
        """Keep a task from running. ``report`` is False if the problem is reported for another file."""
        node.problem = node.problem or message
        if report:
            self.problems.append(TaskFileProblem(node.path, line, message))


def link(task_folder: TaskFolder) -> Graph:
    """Return the graph of a folder's tasks, with the problems of reading and those between the files."""
    graph = Graph(problems=list(task_folder.problems))
    for node in sorted([*_valid_nodes(task_folder), *_broken_nodes(task_folder)], key=lambda node: node.path):
        _add(graph, node)
    _produce(graph)
    _check_connections(graph)
    for node in graph.nodes.values():
        if node.source is not None:
            _compare(graph, node, node.source)
            _check_external(graph, node)
            _check_followed(graph, node)
            _check_command_line(graph, node, node.source)
    for loop in find_loops({node.id: [by for _, by in graph.inputs(node)] for node in graph.nodes.values()}):
        _refuse_loop(graph, [graph.nodes[task] for task in loop])
    return graph


def _valid_nodes(task_folder: TaskFolder) -> Iterator[TaskNode]:
    for source in task_folder.sources:
        writes, lines = source.writes, source.lines
        reads = dict.fromkeys(source.facts.reads, 0)
        reads |= {table: lines.get(f"tables.{i}", 0) for i, table in enumerate(source.declared)}
        others = {table: line for table, line in sorted(reads.items()) if table not in writes}
        node = TaskNode(source.task.id, source.path, source.folder, source.settings, others, writes, source)
        node.appends = source.appends
        yield node


def _broken_nodes(task_folder: TaskFolder) -> Iterator[TaskNode]:
    for broken in task_folder.broken:
        text = "; ".join(problem.describe() for problem in task_folder.problems if problem.file == broken.path)
        yield TaskNode(broken.id, broken.path, broken.folder, broken.settings, {}, broken.writes, problem=text)


def _add(graph: Graph, node: TaskNode) -> None:
    first = graph.nodes.setdefault(node.id, node)
    if first is node:
        return
    for duplicate, other in ((first, node), (node, first)):
        line = duplicate.source.lines["id"] if duplicate.source else 0
        graph.fail(duplicate, line, f"id {node.id} is also that of {other.path}; ids are unique among all task files")


def _produce(graph: Graph) -> None:
    producers: dict[str, list[TaskNode]] = {}
    for node in graph.nodes.values():
        for table in node.writes:
            producers.setdefault(table, []).append(node)
        for table in node.appends:
            graph.appenders.setdefault(table, []).append(node.id)
    for table, nodes in producers.items():
        graph.producers[table] = nodes[0].id
        for node in nodes if len(nodes) > 1 else ():
            others = ", ".join(other.path for other in nodes if other is not node)
            message = f"table {table} is also made by {others}; one task makes a table. A query that only adds to "
            graph.fail(node, _line_of_output(node), f"{message}it, or cleans it up, says so: appends: [{table}]")


def _line_of_output(node: TaskNode) -> int:
    lines = node.source.lines if node.source else {}
    return lines.get("produces") or lines.get("query", 0)


def _check_connections(graph: Graph) -> None:
    """Keep tasks from running if their operator needs a connection that no crosswind.yaml names.

    The problem is reported once, for the topmost folder of such tasks.
    """
    unconnected = [node for node in graph.nodes.values() if node.source and _lacks_connection(node.settings)]
    for folder in _topmost({node.folder for node in unconnected}):
        path = f"{folder}/{SETTINGS_FILE}" if folder else SETTINGS_FILE
        graph.problems.append(TaskFileProblem(path, 0, _NO_CONNECTION))
    for node in unconnected:
        graph.fail(node, 0, f"{node.folder or 'the top folder'}: {_NO_CONNECTION}", report=False)


def _topmost(folders: set[str]) -> list[str]:
    """Return the folders that are below no other one."""
    topmost: list[str] = []
    for folder in sorted(folders):
        if not any(above == "" or folder.startswith(f"{above}/") for above in topmost):
            topmost.append(folder)
    return topmost


_NO_CONNECTION = (
    "connection is missing, and run needs it (${task.connection}); "
    "write connection: NAME, the id of an Airflow connection"
)


def _lacks_connection(settings: FolderSettings) -> bool:
    run = settings.run
    used = [run.arguments, run.env, run.command, run.image]
    return settings.connection is None and any(placeholders.uses(part, "task.connection") for part in used)


def _compare(graph: Graph, node: TaskNode, source: TaskSource) -> None:
    """Report declared tables that differ from those of the query, as ``inputs`` of the settings says."""
    inputs = node.settings.inputs
    if inputs == "ignore":
        return
    if source.facts.no_query:
        line, reason = source.facts.no_query
        graph.fail(node, source.lines["query"], f"{_query_place(source, line)}: {reason}")
        return
    for line, message in (
        *_unread_statements(source),
        *_missing_tables(node, source),
        *_needless_tables(source),
        *_wrong_appends(node, source),
    ):
        if inputs == "error":
            graph.fail(node, line, message)
        else:
            graph.problems.append(TaskFileProblem(node.path, line, message, fatal=False))


def _unread_statements(source: TaskSource) -> Iterator[tuple[int, str]]:
    for line, reason in source.facts.unread:
        yield (
            source.lines["query"],
            f"{_query_place(source, line)} cannot be read as SQL ({reason}); the tables that the statement reads and "
            "makes are not known, so name them in tables and produces",
        )


def _missing_tables(node: TaskNode, source: TaskSource) -> Iterator[tuple[int, str]]:
    known = {*source.declared, *node.writes, *node.appends}
    for table, line in source.facts.reads.items():
        if table not in known:
            yield source.lines["tables"], f"tables lacks {table}, which {_query_place(source, line)} reads; add it"


def _needless_tables(source: TaskSource) -> Iterator[tuple[int, str]]:
    for index, table in enumerate(source.declared if source.facts.complete else ()):
        if table not in source.facts.reads:
            message = f"tables has {table}, which {source.query_path} does not read; take it out"
            yield source.lines.get(f"tables.{index}", 0), message


def _wrong_appends(node: TaskNode, source: TaskSource) -> Iterator[tuple[int, str]]:
    for table in node.appends:
        if source.facts.complete and table not in source.facts.writes:
            message = f"appends has {table}, which {source.query_path} does not change; take it out"
            yield source.lines["appends"], message
    for table in node.appends:
        if table in node.writes:
            message = f"appends has {table}, which produces has, too; a table is either made or added to"
            yield source.lines["appends"], message


def _query_place(source: TaskSource, line: int) -> str:
    return f"{source.query_path}:{line}" if line else source.query_path


def _check_external(graph: Graph, node: TaskNode) -> None:
    rules, schema = node.settings.external, node.settings.default_schema
    if rules.unknown == "allow" or node.source is None:
        return
    for table in graph.external(node):
        if not matches(table, [*rules.tables, *rules.assets], schema):
            line = node.reads[table] or node.source.lines["tables"]
            message = f"no task file makes table {table}, and external.tables of crosswind.yaml does not list it"
            graph.fail(node, line, f"{message}; check the spelling, or ask the platform team to list it")


def _check_followed(graph: Graph, node: TaskNode) -> None:
    """Keep a task from running whose DAG would follow an asset that Airflow refuses."""
    rules = node.settings.external
    for table in graph.external(node) if rules.assets else ():
        problem = asset_problem(table)
        if problem and matches(table, rules.assets, node.settings.default_schema):
            message = f"external.assets of {SETTINGS_FILE} has {table[:80]!r}, which cannot be an Airflow asset"
            graph.fail(node, node.reads[table], f"{message}, because {problem}; take it out of the patterns")


def _check_command_line(graph: Graph, node: TaskNode, source: TaskSource) -> None:
    """Keep a task from running whose pod no kubelet can start."""
    if text_too_long_for_a_pod(source):
        message = (
            f"query {source.query_path} makes an argument or a variable of the pod longer than 128 KiB, which Linux "
            "cannot pass to a program; shorten the query"
        )
        graph.fail(node, source.lines["query"], message)


def matches(table: str, patterns: Iterable[str], default_schema: str) -> bool:
    """Return whether a pattern matches a table's full name, or its name without the default schema."""
    full, prefix = table.lower(), f"{default_schema.lower()}."
    names = [full, full.removeprefix(prefix)] if default_schema else [full]
    return any(fnmatchcase(name, pattern.lower()) for pattern in patterns for name in names)


def _refuse_loop(graph: Graph, loop: list[TaskNode]) -> None:
    first = min(loop, key=lambda node: node.path)
    turn = loop.index(first)
    names = [node.id for node in (*loop[turn:], *loop[:turn], first)]
    paths = ", ".join(sorted(node.path for node in loop))
    message = (
        f"the tasks wait for each other: {' → '.join(names)} ({paths}); one of them must not read the other's table"
    )
    for node in loop:
        line = node.source.lines["tables"] if node.source else 0
        graph.fail(node, line, message, report=node is first)


def depths(before: Mapping[str, Collection[str]]) -> dict[str, int]:
    """Return for each node the number of nodes before it on the longest path. The graph must have no loops."""
    result: dict[str, int] = {}
    for node in TopologicalSorter(before).static_order():
        result[node] = 1 + max((result[other] for other in before.get(node, ())), default=-1)
    return result


def find_loops(before: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return loops of a graph that is given by the predecessors of each node, each loop in the direction of work.

    Loops do not overlap: a graph without all their nodes has no loops.
    """
    waits = {node: {other for other in others if other in before} for node, others in sorted(before.items())}
    after: dict[str, list[str]] = {node: [] for node in waits}
    for node, others in waits.items():
        for other in sorted(others):
            after[other].append(node)
    loops: list[list[str]] = []
    _free([node for node, others in waits.items() if not others], waits, after)
    while waits:
        loops.append(_walk(waits))
        _free(list(loops[-1]), waits, after)
    return loops


def _free(ready: list[str], waits: dict[str, set[str]], after: Mapping[str, list[str]]) -> None:
    """Remove nodes from ``waits``, and all nodes that then wait for no other one."""
    while ready:
        node = ready.pop()
        if waits.pop(node, None) is None:
            continue
        for next_ in after[node]:
            if next_ in waits:
                waits[next_].discard(node)
                if not waits[next_]:
                    ready.append(next_)


def _walk(waits: Mapping[str, set[str]]) -> list[str]:
    """Return a loop of ``waits``, in which every node waits for another one."""
    node, trail = min(waits), dict[str, int]()
    while node not in trail:
        trail[node] = len(trail)
        node = min(waits[node])
    return list(trail)[trail[node] :][::-1]
