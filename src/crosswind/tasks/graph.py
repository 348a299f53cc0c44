"""Who makes which table, and who therefore comes before whom. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from crosswind.tasks import placeholders
from crosswind.tasks.model import FolderSettings
from crosswind.tasks.problems import Problem
from crosswind.tasks.reading import SETTINGS_FILE, Source, Tree

__all__ = ["Graph", "Node", "find_loops", "link", "matches"]


@dataclass(slots=True)
class Node:
    """A task, or the place of one whose file is broken (``problem`` says why)."""

    id: str
    path: str
    folder: str
    settings: FolderSettings
    reads: dict[str, int]
    """Tables that must be there before, without those it makes; the line in ``path``, 0 if it is not written there."""
    writes: tuple[str, ...]
    source: Source | None = None
    problem: str = ""
    appends: tuple[str, ...] = ()
    """Shared tables that it changes and does not make."""


@dataclass(slots=True)
class Graph:
    """Tasks by id, in the order of their files, and the tables between them."""

    nodes: dict[str, Node] = field(default_factory=dict)
    producers: dict[str, str] = field(default_factory=dict)
    """Task id by table."""
    appenders: dict[str, list[str]] = field(default_factory=dict)
    """Ids of the tasks that append to a table, by table."""
    problems: list[Problem] = field(default_factory=list)

    def inputs(self, node: Node) -> Iterator[tuple[str, str]]:
        """Yield each table for which this task waits, and the other task's id; a broken task waits for none.

        It waits for whoever makes a table that it reads or appends to. A table that nobody makes is there after all
        who append to it; one of these does not wait for the others.
        """
        for table in () if node.problem else dict.fromkeys([*node.reads, *node.appends]):
            for task in self.makers(table):
                if task != node.id and (table in self.producers or table not in node.appends):
                    yield table, task

    def makers(self, table: str) -> list[str]:
        """Return the ids of the tasks after which a table is there: of its maker, else of all that append to it."""
        return [self.producers[table]] if table in self.producers else self.appenders.get(table, [])

    def external(self, node: Node) -> list[str]:
        """Return the tables that it reads and no task makes or appends to."""
        return [table for table in node.reads if not self.makers(table)] if not node.problem else []

    def fail(self, node: Node, line: int, message: str, *, told: bool = True) -> None:
        """Keep a task from running; ``told``: it is this file's problem, not one that another file has told."""
        node.problem = node.problem or message
        if told:
            self.problems.append(Problem(node.path, line, message))


def link(tree: Tree) -> Graph:
    """Return the graph of what was read, with the problems of reading and those between the files."""
    graph = Graph(problems=list(tree.problems))
    for node in sorted([*_good(tree), *_broken(tree)], key=lambda node: node.path):
        _add(graph, node)
    _produce(graph)
    _check_connections(graph)
    for node in graph.nodes.values():
        if node.source is not None:
            _compare(graph, node, node.source)
            _check_external(graph, node)
    for loop in find_loops({node.id: [by for _, by in graph.inputs(node)] for node in graph.nodes.values()}):
        _refuse_loop(graph, [graph.nodes[task] for task in loop])
    return graph


def _good(tree: Tree) -> Iterator[Node]:
    for source in tree.sources:
        writes, lines = source.writes, source.lines
        reads = dict.fromkeys(source.facts.reads, 0)
        reads |= {table: lines.get(f"tables.{i}", 0) for i, table in enumerate(source.declared)}
        others = {table: line for table, line in sorted(reads.items()) if table not in writes}
        node = Node(source.task.id, source.path, source.folder, source.settings, others, writes, source)
        node.appends = source.appends
        yield node


def _broken(tree: Tree) -> Iterator[Node]:
    for broken in tree.broken:
        told = "; ".join(problem.told() for problem in tree.problems if problem.file == broken.path)
        yield Node(broken.id, broken.path, broken.folder, broken.settings, {}, broken.writes, problem=told)


def _add(graph: Graph, node: Node) -> None:
    first = graph.nodes.setdefault(node.id, node)
    if first is node:
        return
    for one, other in ((first, node), (node, first)):
        line = one.source.lines["id"] if one.source else 0
        graph.fail(one, line, f"id {node.id} is also that of {other.path}; ids are unique among all task files")


def _produce(graph: Graph) -> None:
    makers: dict[str, list[Node]] = {}
    for node in graph.nodes.values():
        for table in node.writes:
            makers.setdefault(table, []).append(node)
        for table in node.appends:
            graph.appenders.setdefault(table, []).append(node.id)
    for table, nodes in makers.items():
        graph.producers[table] = nodes[0].id
        for node in nodes if len(nodes) > 1 else ():
            others = ", ".join(other.path for other in nodes if other is not node)
            message = f"table {table} is also made by {others}; one task makes a table. A query that only adds to "
            graph.fail(node, _line_of_output(node), f"{message}it, or cleans it up, says so: appends: [{table}]")


def _line_of_output(node: Node) -> int:
    lines = node.source.lines if node.source else {}
    return lines.get("produces") or lines.get("query", 0)


def _check_connections(graph: Graph) -> None:
    """Keep tasks from running whose operator needs a connection that no crosswind.yaml names; once for each folder."""
    lacking = [node for node in graph.nodes.values() if node.source and _lacks_connection(node.settings)]
    told: list[str] = []
    for folder in sorted({node.folder for node in lacking}):
        if not any(above == "" or folder.startswith(f"{above}/") for above in told):
            told.append(folder)
            path = f"{folder}/{SETTINGS_FILE}" if folder else SETTINGS_FILE
            graph.problems.append(Problem(path, 0, _NO_CONNECTION))
    for node in lacking:
        graph.fail(node, 0, f"{node.folder or 'the top folder'}: {_NO_CONNECTION}", told=False)


_NO_CONNECTION = (
    "connection is missing, and run needs it (${task.connection}); "
    "write connection: NAME, the id of an Airflow connection"
)


def _lacks_connection(settings: FolderSettings) -> bool:
    run = settings.run
    used = [run.arguments, run.env, run.command, run.image]
    return settings.connection is None and any(placeholders.uses(part, "task.connection") for part in used)


def _compare(graph: Graph, node: Node, source: Source) -> None:
    """Compare the declared tables with those that the query reads."""
    how = node.settings.inputs
    if how == "ignore":
        return
    if source.facts.no_query:
        line, reason = source.facts.no_query
        graph.fail(node, source.lines["query"], f"{_query_place(source, line)}: {reason}")
        return
    found = _differences(node, source)
    for line, message in found:
        if how == "error":
            graph.fail(node, line, message)
        else:
            graph.problems.append(Problem(node.path, line, message, fatal=False))


def _differences(node: Node, source: Source) -> list[tuple[int, str]]:
    """Return the lines where what is declared differs from what the query reads."""
    facts, declared = source.facts, source.declared
    unread = [
        (
            source.lines["query"],
            f"{_query_place(source, line)} cannot be read as SQL ({reason}); what that statement reads and makes is "
            "not known, so name it in tables and produces",
        )
        for line, reason in facts.unread
    ]
    missing = [
        (source.lines["tables"], f"tables lacks {table}, which {_query_place(source, line)} reads; add it")
        for table, line in facts.reads.items()
        if table not in declared and table not in node.writes and table not in node.appends
    ]
    needless = [
        (
            source.lines.get(f"tables.{index}", 0),
            f"tables has {table}, which {source.query_path} does not read; take it out",
        )
        for index, table in enumerate(declared)
        if facts.complete and table not in facts.reads
    ]
    unchanged = [
        (source.lines["appends"], f"appends has {table}, which {source.query_path} does not change; take it out")
        for table in node.appends
        if facts.complete and table not in facts.writes
    ]
    both = [
        (source.lines["appends"], f"appends has {table}, which produces has, too; a table is either made or added to")
        for table in node.appends
        if table in node.writes
    ]
    return unread + missing + needless + unchanged + both


def _query_place(source: Source, line: int) -> str:
    return f"{source.query_path}:{line}" if line else source.query_path


def _check_external(graph: Graph, node: Node) -> None:
    rules, schema = node.settings.external, node.settings.default_schema
    if rules.unknown == "allow" or node.source is None:
        return
    for table in graph.external(node):
        if not matches(table, [*rules.tables, *rules.assets], schema):
            line = node.reads[table] or node.source.lines["tables"]
            message = f"no task file makes table {table}, and external.tables of crosswind.yaml does not list it"
            graph.fail(node, line, f"{message}; look at the spelling, or ask the platform team to list it")


def matches(table: str, patterns: Iterable[str], default_schema: str) -> bool:
    """Whether a table is meant by one of the patterns, by its full name or without the default schema."""
    full, prefix = table.lower(), f"{default_schema.lower()}."
    names = [full, full.removeprefix(prefix)] if default_schema else [full]
    return any(fnmatchcase(name, pattern.lower()) for pattern in patterns for name in names)


def _refuse_loop(graph: Graph, loop: list[Node]) -> None:
    first = min(loop, key=lambda node: node.path)
    turn = loop.index(first)
    names = [node.id for node in (*loop[turn:], *loop[:turn], first)]
    paths = ", ".join(sorted(node.path for node in loop))
    message = (
        f"the tasks wait for each other: {' → '.join(names)} ({paths}); one of them must not read the other's table"
    )
    for node in loop:
        line = node.source.lines["tables"] if node.source else 0
        graph.fail(node, line, message, told=node is first)


def find_loops(before: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return loops in a graph given by what comes before each node, in the direction of work; one of each knot.

    Loops do not overlap: taking all their nodes out leaves a graph without any.
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
    """Take nodes out of ``waits``, and all that then wait for nothing."""
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
    """Return a loop where every node waits for another one of ``waits``."""
    node, trail = min(waits), dict[str, int]()
    while node not in trail:
        trail[node] = len(trail)
        node = min(waits[node])
    return list(trail)[trail[node] :][::-1]
