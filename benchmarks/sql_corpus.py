"""How much of a corpus of SQL is read right, by dialect: ours, and sqlglot's own lineage of the same statements.

python -m benchmarks.sql_corpus [--output text|markdown] [--write FILE] [--wrong]

The corpus is ``tests/tasks/corpus``, one file for each dialect, written from the dialects' manuals: each case is a text
of one or more statements, with what it reads and what it makes beside it. *Right*: exactly these tables. *Unknown*: a
statement is reported as not understood, with its line. *Wrong*: another table, or one that is missing, without a word.
Exit code 1 when anything is wrong, or less than 99 % is right. ``--write`` puts the table into a page of the
documentation, between its marks.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.tables import Table, show
from sqlglot import exp, parse
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.scope import traverse_scope

from crosswind.tasks.facts import QueryFacts
from crosswind.tasks.queries import read_query

CORPUS = Path(__file__).parent.parent / "tests" / "tasks" / "corpus"
GOAL = 0.99
_HEAD = re.compile(r"^-- (name|reads|writes|schema|unknown):[ \t]*(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Case:
    """One text of the corpus, and what is right. ``line`` is where its name stands in the dialect's file."""

    dialect: str
    name: str
    sql: str
    reads: list[str]
    writes: list[str]
    schema: str = ""
    unknown: int = 0
    """Line of the statement that nobody can know, 0 if there is none."""
    line: int = 0


def cases(dialect: str) -> Iterator[Case]:
    """Yield the cases of a dialect's file."""
    text = (CORPUS / f"{dialect}.sql").read_text()
    for block in re.split(r"(?=^-- name:)", text, flags=re.MULTILINE)[1:]:
        lines = block.splitlines(keepends=True)
        head = {found[1]: found[2] for line in lines[:5] if (found := _HEAD.match(line))}
        count = next(number for number, line in enumerate(lines) if not _HEAD.match(line))
        yield Case(
            _sqlglots_name(dialect),
            head["name"],
            "".join(lines[count:]).strip() + "\n",
            _listed(head["reads"]),
            _listed(head["writes"]),
            head.get("schema", ""),
            int(head.get("unknown") or 0),
            text[: text.index(block)].count("\n") + 1,
        )


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def dialects() -> list[str]:
    """Return the dialects that have a file."""
    return sorted(path.stem for path in CORPUS.glob("*.sql"))


def _sqlglots_name(dialect: str) -> str:
    return "" if dialect == "generic" else dialect


def expected(case: Case) -> tuple[set[str], set[str]]:
    """Return what a case reads and makes, normalised; its own tables do not count as read, as in the graph."""
    names = read_query("", [*case.reads, *case.writes], case.dialect, case.schema).names
    writes = set(names[len(case.reads) :])
    return set(names[: len(case.reads)]) - writes, writes


def judge(case: Case, facts: QueryFacts) -> str:
    """Return "" if the facts are right, "unknown" if they say that they are not, else what is wrong."""
    reads, writes = expected(case)
    found = set(facts.reads) - set(facts.writes)
    if case.unknown:
        lines = [line for line, _ in facts.unread]
        return "" if lines == [case.unknown] else f"unknown at lines {lines}, not at {case.unknown}"
    if found == reads and set(facts.writes) == writes and not facts.unread and not facts.no_query:
        return ""
    if facts.unread or facts.no_query:
        return f"unknown: {facts.unread or facts.no_query}"
    return f"reads {sorted(found)}, not {sorted(reads)}; writes {sorted(facts.writes)}, not {sorted(writes)}"


def ours(case: Case) -> str:
    """Return the verdict on what Crosswind reads."""
    return judge(case, read_query(case.sql, [], case.dialect, case.schema))


_WRITING = exp.Insert | exp.Create | exp.Merge | exp.Update | exp.Delete


def sqlglots(case: Case) -> str:
    """Return the verdict on what sqlglot's scopes say, statement by statement, with the target that its tree names."""
    reads: dict[str, int] = {}
    writes: list[str] = []
    try:
        trees = [tree for tree in parse(case.sql, dialect=case.dialect) if tree is not None]
    except (SqlglotError, RecursionError):
        return judge(case, QueryFacts(unread=((1, "parse error"),)))
    if any(isinstance(tree, exp.Command) for tree in trees):
        return judge(case, QueryFacts(unread=((1, "command"),)))
    for tree in trees:
        target = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
        if isinstance(tree, _WRITING) and isinstance(target, exp.Table):
            writes.append(_sql(target, case.dialect))
        for query in [tree] if isinstance(tree, exp.Query) else [tree.args.get("expression"), tree.args.get("using")]:
            reads |= dict.fromkeys(_scoped(query, case.dialect), 1)
    names = read_query("", [*reads, *writes], case.dialect, case.schema).names
    return judge(case, QueryFacts(dict.fromkeys(names[: len(reads)], 1), tuple(names[len(reads) :])))


def _scoped(query: object, dialect: str) -> Iterator[str]:
    if isinstance(query, exp.Table):
        yield _sql(query, dialect)
    if isinstance(query, exp.Query):
        for scope in traverse_scope(query):
            yield from (_sql(source, dialect) for source in scope.sources.values() if isinstance(source, exp.Table))


def _sql(table: exp.Table, dialect: str) -> str:
    return ".".join(part.sql(dialect=dialect) for part in table.parts)


@dataclass(slots=True)
class Score:
    """The verdicts on one dialect."""

    right: int = 0
    unknown: int = 0
    wrong: int = 0
    told: list[str] = field(default_factory=list)

    def add(self, case: Case, verdict: str) -> None:
        """Count a verdict."""
        if not verdict:
            self.right += 1
        elif verdict.startswith("unknown"):
            self.unknown += 1
        else:
            self.wrong += 1
        if verdict:
            self.told.append(f"{case.dialect}.sql:{case.line}: {case.name}: {verdict}")


def scores() -> dict[str, tuple[Score, Score]]:
    """Return for each dialect our score and sqlglot's."""
    found: dict[str, tuple[Score, Score]] = {}
    for dialect in dialects():
        mine, theirs = found.setdefault(dialect, (Score(), Score()))
        for case in cases(dialect):
            mine.add(case, ours(case))
            theirs.add(case, sqlglots(case))
    return found


def table(found: dict[str, tuple[Score, Score]]) -> Table:
    """Return the scores as a table, with the sums."""
    result = Table(
        "SQL that is read right",
        ["dialect", "texts", "right", "unknown", "wrong", "sqlglot alone: right", "unknown", "wrong"],
    )
    rows = [(name, *pair) for name, pair in found.items()]
    rows.append(("all", _sum([mine for mine, _ in found.values()]), _sum([theirs for _, theirs in found.values()])))
    for name, mine, theirs in rows:
        total = mine.right + mine.unknown + mine.wrong
        result.rows.append(
            [
                name,
                str(total),
                f"{mine.right} ({mine.right / total:.1%})",
                str(mine.unknown),
                str(mine.wrong),
                f"{theirs.right} ({theirs.right / total:.0%})",
                str(theirs.unknown),
                str(theirs.wrong),
            ]
        )
    return result


def _sum(parts: list[Score]) -> Score:
    return Score(*(sum(getattr(part, name) for part in parts) for name in ("right", "unknown", "wrong")))


def main(arguments: list[str] | None = None) -> int:
    """Judge, and print or write; 1 if the goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sql_corpus")
    parser.add_argument("--output", choices=["text", "markdown"], default="text")
    parser.add_argument("--write", type=Path, help="page whose table between the marks is replaced")
    parser.add_argument("--wrong", action="store_true", help="name each text that is not right")
    options = parser.parse_args(arguments)
    found = scores()
    if options.write:
        write(options.write, markdown(found))
    else:
        show([table(found)], options.output)
    if options.wrong:
        print(*(line for mine, _ in found.values() for line in mine.told), sep="\n")
    total = _sum([mine for mine, _ in found.values()])
    return int(total.wrong > 0 or total.right < GOAL * (total.right + total.unknown + total.wrong))


def markdown(found: dict[str, tuple[Score, Score]]) -> str:
    """Return the table as it stands in the documentation."""
    made = table(found)
    lines = [made.columns, ["---", *["---:"] * (len(made.columns) - 1)], *made.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


MARKS = ("<!-- corpus: made by python -m benchmarks.sql_corpus --write FILE -->", "<!-- corpus ends -->")


def write(page: Path, text: str) -> None:
    """Put the table between the marks of a page."""
    before, rest = page.read_text().split(MARKS[0])
    page.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}")


if __name__ == "__main__":
    sys.exit(main())
