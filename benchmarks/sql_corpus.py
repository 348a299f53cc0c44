"""The share of a corpus of SQL that is read correctly, by dialect: by ours, and by sqlglot's own lineage.

python -m benchmarks.sql_corpus [--output text|markdown] [--write FILE] [--wrong]

The corpus is ``tests/tasks/corpus``, one file for each dialect, written from the dialects' manuals: each case is a text
of one or more statements, with the tables that it reads and makes beside it. *Right*: exactly these tables. *Unknown*:
a statement is reported as not understood, with its line. *Wrong*: another table or a missing one without a report.
Exit code 1 when anything is wrong, or less than 99 % is right. ``--write`` puts the table into a page of the
documentation, between its marks.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.tables import ResultTable, show
from sqlglot import exp, parse
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.scope import traverse_scope

from crosswind.tasks.query_analysis import read_query
from crosswind.tasks.query_facts import QueryFacts

CORPUS = Path(__file__).parent.parent / "tests" / "tasks" / "corpus"
GOAL = 0.99
_HEAD = re.compile(r"^-- (name|reads|writes|schema|unknown):[ \t]*(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Case:
    """One text of the corpus with the right answer. ``line``: the line of its name in the dialect's file."""

    dialect: str
    name: str
    sql: str
    reads: list[str]
    writes: list[str]
    schema: str = ""
    unknown: int = 0
    """Line of the statement whose tables are not in the text, 0 if there is none."""
    line: int = 0


def cases(dialect: str) -> Iterator[Case]:
    """Yield the cases of a dialect's file."""
    text = (CORPUS / f"{dialect}.sql").read_text()
    for block in re.split(r"(?=^-- name:)", text, flags=re.MULTILINE)[1:]:
        lines = block.splitlines(keepends=True)
        head = {match[1]: match[2] for line in lines[:5] if (match := _HEAD.match(line))}
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
    """Return the tables that a case reads and makes, normalised. As in the graph, tables that it makes are not read."""
    names = read_query("", [*case.reads, *case.writes], case.dialect, case.schema).names
    writes = set(names[len(case.reads) :])
    return set(names[: len(case.reads)]) - writes, writes


def judge(case: Case, facts: QueryFacts) -> str:
    """Return "" if the facts are right, "unknown" if they report an unread statement, else the difference."""
    reads, writes = expected(case)
    facts_reads = set(facts.reads) - set(facts.writes)
    if case.unknown:
        lines = [line for line, _ in facts.unread]
        return "" if lines == [case.unknown] else f"unknown at lines {lines}, not at {case.unknown}"
    if facts_reads == reads and set(facts.writes) == writes and not facts.unread and not facts.no_query:
        return ""
    if facts.unread or facts.no_query:
        return f"unknown: {facts.unread or facts.no_query}"
    return f"reads {sorted(facts_reads)}, not {sorted(reads)}; writes {sorted(facts.writes)}, not {sorted(writes)}"


def ours(case: Case) -> str:
    """Return the verdict on Crosswind's answer."""
    return judge(case, read_query(case.sql, [], case.dialect, case.schema))


_WRITING = exp.Insert | exp.Create | exp.Merge | exp.Update | exp.Delete


def sqlglots(case: Case) -> str:
    """Return the verdict on the tables of sqlglot's scopes, by statement, with the target that its tree names."""
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
    reports: list[str] = field(default_factory=list)

    def add(self, case: Case, verdict: str) -> None:
        """Count a verdict."""
        if not verdict:
            self.right += 1
        elif verdict.startswith("unknown"):
            self.unknown += 1
        else:
            self.wrong += 1
        if verdict:
            self.reports.append(f"{case.dialect}.sql:{case.line}: {case.name}: {verdict}")


def scores() -> dict[str, tuple[Score, Score]]:
    """Return our score and sqlglot's by dialect."""
    scores_by_dialect: dict[str, tuple[Score, Score]] = {}
    for dialect in dialects():
        our_score, sqlglot_score = scores_by_dialect.setdefault(dialect, (Score(), Score()))
        for case in cases(dialect):
            our_score.add(case, ours(case))
            sqlglot_score.add(case, sqlglots(case))
    return scores_by_dialect


def table(scores_by_dialect: dict[str, tuple[Score, Score]]) -> ResultTable:
    """Return the scores as a table, with the sums."""
    result = ResultTable(
        "SQL that is read right",
        ["dialect", "texts", "right", "unknown", "wrong", "sqlglot alone: right", "unknown", "wrong"],
    )
    rows = [(name, *pair) for name, pair in scores_by_dialect.items()]
    rows.append(
        (
            "all",
            _sum([our_score for our_score, _ in scores_by_dialect.values()]),
            _sum([sqlglot_score for _, sqlglot_score in scores_by_dialect.values()]),
        )
    )
    for name, our_score, sqlglot_score in rows:
        total = our_score.right + our_score.unknown + our_score.wrong
        result.rows.append(
            [
                name,
                str(total),
                f"{our_score.right} ({our_score.right / total:.1%})",
                str(our_score.unknown),
                str(our_score.wrong),
                f"{sqlglot_score.right} ({sqlglot_score.right / total:.0%})",
                str(sqlglot_score.unknown),
                str(sqlglot_score.wrong),
            ]
        )
    return result


def _sum(parts: Sequence[Score]) -> Score:
    return Score(*(sum(getattr(part, name) for part in parts) for name in ("right", "unknown", "wrong")))


def main(arguments: list[str] | None = None) -> int:
    """Judge, and print or write; 1 if the goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sql_corpus")
    parser.add_argument("--output", choices=["text", "markdown"], default="text")
    parser.add_argument("--write", type=Path, help="page whose table between the marks is replaced")
    parser.add_argument("--wrong", action="store_true", help="name each text that is not right")
    options = parser.parse_args(arguments)
    scores_by_dialect = scores()
    if options.write:
        write(options.write, markdown(scores_by_dialect))
    else:
        show([table(scores_by_dialect)], options.output)
    if options.wrong:
        print(*(line for our_score, _ in scores_by_dialect.values() for line in our_score.reports), sep="\n")
    total = _sum([our_score for our_score, _ in scores_by_dialect.values()])
    return int(total.wrong > 0 or total.right < GOAL * (total.right + total.unknown + total.wrong))


def markdown(scores_by_dialect: dict[str, tuple[Score, Score]]) -> str:
    """Return the table as it stands in the documentation."""
    result = table(scores_by_dialect)
    lines = [result.columns, ["---", *["---:"] * (len(result.columns) - 1)], *result.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


MARKS = ("<!-- corpus: made by python -m benchmarks.sql_corpus --write FILE -->", "<!-- corpus ends -->")


def write(page: Path, text: str) -> None:
    """Put the table between the marks of a page."""
    before, rest = page.read_text().split(MARKS[0])
    page.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}")


if __name__ == "__main__":
    sys.exit(main())
