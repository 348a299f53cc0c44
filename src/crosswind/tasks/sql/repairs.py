"""Rewrites syntax that sqlglot does not parse to syntax with the same tables. Lines stay.

Tried only on a statement that sqlglot cannot parse as it is: first all repairs of the dialect together, then with the
holes of a template left out, or replaced by a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from crosswind.tasks.sql.names import HOLE
from crosswind.tasks.sql.phrases import NAME

__all__ = ["repaired"]


@dataclass(frozen=True, slots=True)
class _Repair:
    dialects: frozenset[str]
    pattern: str
    replacement: str


def _repair(dialects: str, pattern: str, replacement: str) -> _Repair:
    return _Repair(frozenset(dialects.split()), pattern, replacement)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a repair, compiled when a statement needs it, because few do."""
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)


_REPAIRS = [
    # MySQL, SQLite: REPLACE is an INSERT; Teradata: REPLACE VIEW is CREATE OR REPLACE
    _repair("", r"\A(\s*)REPLACE(\s+)VIEW\b", r"\1CREATE OR REPLACE\2VIEW"),
    _repair("", r"\A(\s*)REPLACE\b(?!\s*\()(\s+(?:LOW_PRIORITY|DELAYED))?(\s+INTO\b)?", r"\1INSERT INTO "),
    _repair("", r"\A(\s*)UPSERT\b(\s+INTO\b)?", r"\1INSERT INTO"),
    _repair("mysql", r"\A(\s*INSERT)\s+(?:LOW_PRIORITY|DELAYED|HIGH_PRIORITY)\b", r"\1"),
    _repair(
        "mysql", r"\A(\s*(?:INSERT|REPLACE)\b(?:\s+IGNORE)?(?:\s+INTO)?\s+" + NAME + r")\s+SET\b.*", r"\1 SELECT 1"
    ),
    _repair("mysql doris starrocks", r"\bINTO\s+(?:OUTFILE|DUMPFILE)\s+'[^']*'(?:(?!\bFROM\b).)*", " "),
    # Oracle: clauses of MERGE, of errors, of rows that come back
    _repair("oracle", r"\bDELETE\s+WHERE\b(?:(?!\bWHEN\b|\bLOG\b).)*", " "),
    _repair("oracle", r"\bLOG\s+ERRORS\b.*", " "),
    _repair("oracle postgres redshift", r"\bRETURNING\b.*?\bINTO\b.*", " "),
    _repair(
        "oracle",
        r"\bMODEL\b(?=.*\bDIMENSION\s+BY\b).*?\bRULES\b[^()]*\((?:[^()]|\([^()]*\))*\)",
        " ",
    ),
    _repair("oracle", r"\bPARTITION\s+FOR\s*\([^()]*\)", " "),
    # PL/pgSQL: several variables, or a condition for one
    _repair(
        "postgres redshift",
        rf"\bINTO\s+(?:STRICT\s+{NAME}(?:\s*,\s*{NAME})*|{NAME}(?:\s*,\s*{NAME})+)(?=\s+FROM\b|\s*\Z)",
        " ",
    ),
    # T-SQL: DELETE with two FROM, files as tables, hints
    _repair("tsql fabric", r"\A(\s*DELETE\s+)FROM\s+(" + NAME + r"\s+FROM\b)", r"\1\2"),
    _repair(
        "tsql fabric", r"\bOPENROWSET\s*\(\s*BULK\b(?:[^()]|\([^()]*\))*\)(\s*WITH\s*\((?:[^()]|\([^()]*\))*\))?", "f()"
    ),
    _repair("tsql fabric", r"\bOPTION\s*\((?:[^()]|\([^()]*\))*\)\s*\Z", " "),
    _repair("tsql fabric", r"\bFOR\s+(?:XML|JSON)\b[^()]*(?:\([^()]*\)[^()]*)*\Z", " "),
    _repair(
        "tsql fabric",
        r"\A(\s*INSERT\s+(?:INTO\s+)?" + NAME + r"(?:\s*\([^()]*\))?)\s+WITH\s*\((?:[^()]|\([^()]*\))*\)",
        r"\1",
    ),
    # Clauses after a query that defines a view or a table
    _repair("", r"\bWITH\s+(?:(?:LOCAL|CASCADED)\s+)?CHECK\s+OPTION\s*\Z", " "),
    _repair("", r"\bWITH\s+(?:READ\s+ONLY|(?:NO\s+)?DATA|NO\s+SCHEMA\s+BINDING)\s*\Z", " "),
    _repair("", r"\bWITH\s+TIES\b", " "),
    _repair("", r"\A(\s*)TABLE\s+(" + NAME + r")\s*\Z", r"\1SELECT * FROM \2"),
    # MySQL: words and stars of DELETE and UPDATE
    _repair("mysql", r"\A(\s*(?:DELETE|UPDATE))(?:\s+(?:LOW_PRIORITY|QUICK|IGNORE)\b)+", r"\1"),
    _repair("mysql", r"\.\*(?=\s*(?:,\s*[\w`.]+(?:\.\*)?\s*)*\b(?:FROM|USING)\b)", ""),
    # Redshift: MERGE without WHEN
    _repair("redshift", r"\bREMOVE\s+DUPLICATES\s*\Z", "WHEN MATCHED THEN DELETE"),
    # ClickHouse: files and rows of the client, FINAL before an alias
    _repair("clickhouse", r"\A(\s*INSERT\s+INTO\b(?:(?!\bSELECT\b|\bVALUES\b).)*?)\bFORMAT\s+\w+.*", r"\1 SELECT 1"),
    _repair("clickhouse", r"\bFORMAT\s+\w+\s*\Z", " "),
    _repair("clickhouse", r"\bWITH\s+(?:ROLLUP|CUBE|TOTALS)\b", " "),
    _repair("clickhouse", r"\bFINAL\b", " "),
    _repair("clickhouse", r"\bFROM\s+INFILE\s+'[^']*'.*", "SELECT 1"),
    _repair("clickhouse duckdb", r"\bINTO\s+OUTFILE\s+'[^']*'.*", " "),
    # Databricks, Spark: words of MERGE, directories
    _repair("databricks spark", r"\bWITH\s+SCHEMA\s+EVOLUTION\b", " "),
    _repair(
        "hive spark databricks",
        r"\A(\s*)INSERT\s+OVERWRITE\s+(?:LOCAL\s+)?DIRECTORY\b.*?(?=\bSELECT\b|\bWITH\s+\w+\s+AS\b|\bFROM\b|\bVALUES\b)",
        r"\1",
    ),
    # Teradata: a table right before SET, which sqlglot takes for its alias; locks before a statement
    _repair(
        "teradata",
        r"\A(\s*UPD(?:ATE)?\b.*?)(,\s*|\bFROM\s+)(" + NAME + r")(\s+SET\b)",
        r"\1\2(SELECT * FROM \3) AS last_one\4",
    ),
    _repair(
        "teradata",
        r"\bLOCK(?:ING)?\s+(?:ROW|(?:TABLE|VIEW|DATABASE)?\s*"
        + NAME
        + r")\s+(?:FOR|IN)\s+\w+(?:\s+MODE)?(?:\s+NOWAIT|\s+OVERRIDE)?",
        " ",
    ),
    # A table as an argument: f(TABLE a.b, …)
    _repair("", r"(?<=[(,])(\s*)(?:TABLE|MODEL)\s+(" + NAME + r")(?=\s*[,)])", r"\1(SELECT * FROM \2)"),
    _repair("", r"(=>\s*)TABLE\s*\(\s*(" + NAME + r")\s*\)[^,()]*(?=[,)])", r"\1(SELECT * FROM \2)"),
    _repair("", r"(=>\s*)TABLE\s+(" + NAME + r")[^,()]*(?=[,)])", r"\1(SELECT * FROM \2)"),
    _repair("duckdb", r"\bBY\s+POSITION\b", " "),
    # DuckDB: statements that stand for queries
    _repair("duckdb", r"\bAS(\s+)((?:PIVOT|UNPIVOT|SUMMARIZE)\b.*)", r"AS\1SELECT * FROM (\2)"),
    _repair("duckdb", r"(\bINSERT\s+INTO\s+" + NAME + r"\s+)((?:PIVOT|UNPIVOT)\b.*)", r"\1SELECT * FROM (\2)"),
    # Teradata: options after a table's query
    _repair("teradata", r"\bWITH\s+(?:NO\s+)?DATA\b.*", r"WITH DATA"),
    # Hive, Spark: a condition after the partition
    _repair("hive spark databricks", r"(\bPARTITION\s*\([^()]*\))\s*IF\s+NOT\s+EXISTS\b", r"\1"),
]

_LONE = re.compile(rf"(?<![\w.\"'`\[$]){HOLE}(?![\w.\"'`\]$(])")
_AFTER_OPERAND = re.compile(r"([\w)\"'`\]]\s+)" + _LONE.pattern)
_NOT_OPERANDS = re.compile(
    r"\b(?:SELECT|FROM|WHERE|AND|OR|ON|BY|IN|NOT|LIKE|BETWEEN|LIMIT|THEN|ELSE|WHEN|CASE|AS|SET|INTO|JOIN|TABLE|VALUES|"
    r"HAVING|USING|UNION|ALL|DISTINCT|INTERVAL|OFFSET|TOP|IS|VIEW|EXISTS)\s+\Z",
    re.IGNORECASE,
)


def repaired(text: str, dialect: str) -> Iterator[str]:
    """Yield other forms of a statement without comments, the most likely one first."""
    base = text
    for repair in _REPAIRS:
        if not repair.dialects or dialect in repair.dialects:
            base = _compiled(repair.pattern).sub(repair.replacement, base)
    if base != text:
        yield base
    if not _LONE.search(base):
        return
    trailing = _AFTER_OPERAND.sub(_without_trailing_hole, base)
    yield trailing
    yield _LONE.sub("1", trailing)
    yield _LONE.sub(" ", base)
    yield _LONE.sub("1", base)


def _without_trailing_hole(match: re.Match[str]) -> str:
    """Leave out a hole that follows an operand, where a template may append a clause."""
    before = match.string[: match.start()] + match[1]
    return match[0] if _NOT_OPERANDS.search(before[-40:]) else match[1]
