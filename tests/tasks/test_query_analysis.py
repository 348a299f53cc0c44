from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from crosswind.tasks.folder_reader import MAX_SQL_BYTES
from crosswind.tasks.query_analysis import check_dialect, read_query
from deadlines import scaled

Facts = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("dialect", "sql", "reads", "writes"),
    [
        ("", "INSERT INTO daily SELECT * FROM orders JOIN users USING (id)", ["orders", "users"], ["daily"]),
        ("", "CREATE TABLE daily AS SELECT * FROM orders", ["orders"], ["daily"]),
        ("", "CREATE TABLE daily (a INT); INSERT INTO daily (a) SELECT a FROM orders", ["orders"], ["daily"]),
        ("", "CREATE OR REPLACE VIEW daily AS SELECT * FROM orders", ["orders"], ["daily"]),
        ("", "SELECT a INTO daily FROM orders", ["orders"], ["daily"]),
        ("", "UPDATE daily SET a = 1 FROM orders", ["orders"], ["daily"]),
        ("", "DELETE FROM daily; INSERT INTO daily SELECT * FROM orders", ["orders"], ["daily"]),
        ("", "SELECT * FROM orders", ["orders"], []),
        ("postgres", "MERGE INTO d USING s ON d.a = s.a WHEN MATCHED THEN UPDATE SET b = 1", ["s"], ["d"]),
        ("postgres", "INSERT INTO d SELECT * FROM generate_series(1, 2) g, o", ["o"], ["d"]),
        ("spark", "INSERT OVERWRITE TABLE a.d PARTITION (day) SELECT * FROM o", ["o"], ["a.d"]),
        ("sqlite", "INSERT OR REPLACE INTO d SELECT * FROM o", ["o"], ["d"]),
        ("mysql", "REPLACE INTO d SELECT * FROM o", ["o"], ["d"]),
        ("oracle", "INSERT ALL INTO a VALUES (1) INTO b VALUES (2) SELECT * FROM c", ["C"], ["A", "B"]),
        ("snowflake", "COPY INTO d FROM @stage/x", [], ["D"]),
        ("duckdb", "CREATE TABLE d AS SELECT * FROM read_csv('x.csv')", [], ["d"]),
        ("tsql", "EXEC something", [], []),
    ],
)
def test_the_tables_that_statements_read_and_write(
    facts: Facts, dialect: str, sql: str, reads: list[str], writes: list[str]
) -> None:
    assert facts(sql, dialect) == {"reads": reads, "writes": writes}


@pytest.mark.parametrize(
    ("sql", "reads", "writes"),
    [
        ("WITH a AS (SELECT * FROM b) SELECT * FROM a", ["b"], []),
        ("WITH orders AS (SELECT * FROM orders) SELECT * FROM orders", ["orders"], []),
        ("WITH RECURSIVE a AS (SELECT 1 UNION ALL SELECT * FROM a) SELECT * FROM a", [], []),
        ("WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a, b", ["b"], []),
        ("WITH a AS (SELECT 1) SELECT * FROM s.a", ["s.a"], []),
        ("SELECT * FROM x WHERE y IN (WITH a AS (SELECT 1) SELECT * FROM a)", ["x"], []),
        ("CREATE TEMP TABLE t AS SELECT * FROM a; INSERT INTO d SELECT * FROM t", ["a"], ["d"]),
        ("CREATE TABLE t AS SELECT * FROM a; INSERT INTO d SELECT * FROM t; DROP TABLE t", ["a"], ["d"]),
        ("DROP TABLE IF EXISTS d; CREATE TABLE d AS SELECT * FROM a", ["a"], ["d"]),
        ("INSERT INTO d SELECT * FROM d", ["d"], ["d"]),
    ],
)
def test_names_that_the_query_itself_defines_are_no_tables(
    facts: Facts, sql: str, reads: list[str], writes: list[str]
) -> None:
    assert facts(sql, "postgres") == {"reads": reads, "writes": writes}


@pytest.mark.parametrize(
    ("sql", "reads", "writes"),
    [
        ("INSERT INTO d SELECT * FROM o WHERE day = '{{ ds }}' AND n > {{ params.n }}", ["o"], ["d"]),
        ("{# why #}\n{% set x = 1 %}\nINSERT INTO d SELECT * FROM o {% if x %} WHERE a {% endif %}", ["o"], ["d"]),
        ("INSERT INTO {{ params.schema }}.d SELECT * FROM {{ ref('x') }}, o", ["o"], []),
        ("INSERT INTO d_{{ ds_nodash }} SELECT * FROM o", ["o"], []),
    ],
)
def test_jinja_is_tolerated_and_names_that_it_makes_are_left_out(
    facts: Facts, sql: str, reads: list[str], writes: list[str]
) -> None:
    assert facts(sql) == {"reads": reads, "writes": writes}


@pytest.mark.parametrize(
    ("dialect", "schema", "names", "normalised"),
    [
        ("postgres", "", ["Orders", '"Orders"', "Sales.Orders"], ["orders", "Orders", "sales.orders"]),
        ("snowflake", "prod.main", ["orders", "x.orders"], ["PROD.MAIN.ORDERS", "PROD.X.ORDERS"]),
        ("bigquery", "p.d", ["T", "`a.b.T`"], ["p.d.T", "a.b.T"]),
        ("", "sales", ["orders", "sales.orders"], ["sales.orders", "sales.orders"]),
    ],
)
def test_names_are_normalised_as_the_dialect_does(
    dialect: str, schema: str, names: list[str], normalised: list[str]
) -> None:
    assert list(read_query("", names, dialect, schema).names) == normalised


def test_each_table_has_its_line() -> None:
    facts = read_query("INSERT INTO d\nSELECT *\nFROM a\nJOIN {{ x }}\nJOIN b", [], "", "")
    assert facts.reads == {"a": 3, "b": 5}


@pytest.mark.parametrize("name", ["a..", "a; b", "begin x"])
def test_a_text_that_is_no_name_of_a_table_is_no_crash(name: str) -> None:
    facts = read_query(f"SELECT * FROM table_changes('{name}', 1); INSERT INTO d SELECT 1", [name], "databricks", "")
    assert facts.writes == ("d",)


@pytest.mark.parametrize("sql", ["SELEC * FRM (", "SELECT " + "(" * 3000 + "1" + ")" * 3000, "SELECT 'open"])
def test_unreadable_sql_is_a_problem_and_no_crash(sql: str) -> None:
    facts = read_query(sql, ["a"], "", "")
    assert facts.unread or facts.no_query


@pytest.mark.parametrize(
    ("sql", "unread"),
    [
        ("INSERT INTO d SELECT * FROM a;\nFROBNICATE TABLE x;\nINSERT INTO e SELECT * FROM b", [2]),
        ("INSERT INTO d SELECT * FROM a;\n\nSELECT * FROM (;\nINSERT INTO e SELECT * FROM b", [3]),
        ("INSERT INTO d SELECT * FROM a;\nINSERT INTO e SELECT * FROM b;\nSELECT 'open", [3]),
        ("INSERT INTO d SELECT * FROM a;\nEXECUTE IMMEDIATE x || y;\nINSERT INTO e SELECT * FROM b", [2]),
    ],
)
def test_a_statement_that_is_not_understood_costs_only_itself(sql: str, unread: list[int]) -> None:
    facts = read_query(sql, [], "", "")
    assert ([line for line, _ in facts.unread], facts.complete) == (unread, False)
    assert (list(facts.reads), facts.writes) == (["a", "b"], ("d", "e"))


@pytest.mark.parametrize(
    ("statement", "complete"),
    [
        ("EXIT WHEN count(*) > 5 FROM a", False),
        ("RETURN count(*) FROM a", False),
        ("EXIT WHEN x IS DISTINCT FROM y", True),
        ("EXIT WHEN extract(day FROM now()) > 5", True),
        ("FETCH NEXT FROM c INTO x", True),
        ("OPEN c FOR SELECT * FROM d", True),
        ("x := substring(y FROM 2)", True),
        ("n := count(*) FROM d", True),
    ],
)
def test_a_control_statement_that_reads_out_of_sight_makes_a_text_incomplete(statement: str, complete: bool) -> None:
    facts = read_query(f"DO $$ BEGIN INSERT INTO d SELECT 1; {statement}; END $$", [], "postgres", "")
    assert (facts.unread, facts.writes, facts.complete) == ((), ("d",), complete)


@pytest.mark.parametrize("statement", ["FOR r IN EXECUTE 'SELECT ' || x LOOP NULL; END LOOP", "OPEN c FOR EXECUTE x"])
def test_sql_that_a_loop_or_a_cursor_puts_together_is_reported(statement: str) -> None:
    facts = read_query(f"DO $$ BEGIN {statement}; END $$", [], "postgres", "")
    assert ["runs SQL that is composed at run time" in reason for _, reason in facts.unread] == [True]


@pytest.mark.parametrize(
    ("dialect", "written"), [("", ["d"]), ("postgres", ["d"]), ("redshift", ["d"]), ("oracle", ["D"])]
)
def test_the_variable_of_returning_is_no_table(facts: Facts, dialect: str, written: list[str]) -> None:
    assert facts("INSERT INTO d VALUES (1) RETURNING id INTO x", dialect) == {"reads": [], "writes": written}


BODY = "BEGIN\n SELECT 1;\n INSERT INTO x SELECT * FROM y WHERE a = '$$ // ;;';\nEND"


@pytest.mark.parametrize(
    ("dialect", "definition"),
    [
        *[
            ("mysql", f"DELIMITER {sign}\nCREATE PROCEDURE p()\n{BODY}{space}{sign}\nDELIMITER ;")
            for sign in ("$$", "//", ";;", "|")
            for space in ("", " ", "\n")
        ],
        ("mysql", f"delimiter //\nCREATE PROCEDURE p() # it's long\n{BODY}//"),
        ("mysql", "DELIMITER //\nDROP PROCEDURE IF EXISTS p//"),
        ("tsql", "CREATE TYPE dbo.x AS TABLE (a int);"),
        ("tsql", "CREATE TYPE dbo.x AS TABLE (\n  a int\n)"),
        ("tsql", "CREATE TYPE dbo.x FROM varchar(20)"),
        ("tsql", "CREATE EVENT SESSION x ON SERVER ADD EVENT sqlserver.y;"),
        ("tsql", f"CREATE PROCEDURE p AS {BODY};\nGO"),
        ("oracle", "CREATE TYPE x AS OBJECT (a NUMBER);"),
        ("oracle", "CREATE OR REPLACE TYPE x IS VARRAY(10) OF NUMBER;\n/"),
        (
            "oracle",
            "CREATE OR REPLACE TYPE BODY x AS MEMBER PROCEDURE p IS " + f"{BODY}; MEMBER PROCEDURE q IS {BODY}; END;",
        ),
        ("oracle", f"CREATE OR REPLACE TRIGGER x BEFORE INSERT ON y DECLARE a NUMBER; {BODY};\n/"),
        ("oracle", "CREATE PACKAGE x IS a NUMBER;\n/"),
        ("snowflake", f"CREATE PROCEDURE p() RETURNS INT LANGUAGE SQL AS DECLARE a INT; {BODY};"),
        ("postgres", "CREATE TYPE x AS ENUM ('a'); ALTER TYPE x ADD VALUE 'b';"),
    ],
)
def test_the_rest_of_a_text_after_a_definition_counts_and_its_body_does_not(
    facts: Facts, dialect: str, definition: str
) -> None:
    (read,) = read_query("", ["a"], dialect, "").names
    (written,) = read_query("", ["d"], dialect, "").names
    assert facts(f"{definition}\nINSERT INTO d SELECT * FROM a", dialect) == {"reads": [read], "writes": [written]}


@pytest.mark.parametrize(
    ("sql", "complete"),
    [
        ("INSERT INTO d SELECT * FROM a WHERE day = '{{ ds }}'", True),
        ("INSERT INTO d SELECT * FROM a WHERE n > {{ params.n }}", True),
        ("INSERT INTO d SELECT * FROM {{ params.table }}", False),
        ("INSERT INTO d SELECT * FROM a AS b {{ params.joins }} WHERE b.x", False),
        ("CALL refresh()", False),
        ("SELECT * FROM information_schema.tables", False),
    ],
)
def test_it_is_known_whether_all_that_is_read_is_seen(sql: str, complete: bool) -> None:
    assert read_query(sql, [], "postgres", "").complete is complete


@pytest.mark.parametrize(("sql", "meant"), [("selec * form orders", "SELECT"), ("INSRT INTO a VALUES (1)", "INSERT")])
def test_a_text_that_is_no_sql_is_reported_as_such(sql: str, meant: str) -> None:
    facts = read_query(f"-- why\n{sql}", [], "", "")
    assert facts.no_query is not None
    line, reason = facts.no_query
    assert line == 2
    assert reason.startswith("this is no query")
    assert reason.endswith(f"did you mean {meant}?")


@pytest.mark.parametrize(
    ("dialect", "sql", "reads"),
    [
        ("oracle", "BEGIN etl.refresh_all; INSERT INTO d SELECT * FROM a; END;", ["A"]),
        ("oracle", "BEGIN INSERT INTO d SELECT * FROM a; EXCEPTION WHEN OTHERS THEN log_error; END;", ["A"]),
        ("postgres", "DO $$ BEGIN refresh_all(); INSERT INTO d SELECT * FROM a; END $$", ["a"]),
    ],
)
def test_a_call_in_a_block_hides_what_it_reads(dialect: str, sql: str, reads: list[str]) -> None:
    facts = read_query(sql, [], dialect, "")
    assert (facts.no_query, facts.unread, list(facts.reads), facts.complete) == (None, (), reads, False)


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        ("oracle", "BEGIN\n INSERT INTO d SELECT * FROM a;\n updat d set x = 1;\nEND;"),
        ("postgres", "DO $$ BEGIN\n INSERT INTO d SELECT * FROM a;\n a + b;\nEND $$"),
    ],
)
def test_one_statement_in_a_block_does_not_make_a_text_that_is_no_sql(dialect: str, sql: str) -> None:
    facts = read_query(sql, [], dialect, "")
    assert (facts.no_query, [line for line, _ in facts.unread]) == (None, [3])


@pytest.mark.parametrize("dialect", ["oracle", "postgres", "tsql", ""])
def test_a_text_after_a_transaction_has_begun_may_be_no_sql(dialect: str) -> None:
    assert read_query("BEGIN TRANSACTION;\nselec * form orders;", [], dialect, "").no_query is not None


def test_marks_of_editors_do_not_matter(facts: Facts) -> None:
    assert facts("\ufeffINSERT INTO d\r\nSELECT *\r\nFROM a;\r\n") == {"reads": ["a"], "writes": ["d"]}


DEEP = """
from crosswind.tasks.query_analysis import read_query
n = 60_000
deep = [
    "SELECT " + "(" * n,
    "SELECT * FROM (" * (n // 4),
    "SELECT 1 FROM a " + "JOIN a " * (n // 2) + "ON 1 " * (n // 2),
    "SELECT 1 FROM a " + "JOIN a JOIN a ON 1 " * (n // 4),
    "SELECT CAST(1 AS " + "ARRAY<" * n,
    "SELECT " + "{" * n,
    "SELECT " + "NOT " * n + "1",
    "SELECT " + "CASE WHEN " * (n // 3),
]
for sql in deep:
    assert [reason for _, reason in read_query(sql, [], "", "").unread] == ["nested too deeply"], sql[:30]
long = ["SELECT 1" + "+1" * n, "SELECT 1 " + "UNION SELECT 1 " * (n // 10), "SELECT f(1), a[1], a < b, c < d;" * 1000]
long += ["SELECT * FROM a" + " JOIN b ON a.id = b.id JOIN c USING (id)" * 300]
for sql in long:
    assert read_query(sql, [], "", "").unread == (), sql[:30]
"""


def test_no_depth_of_nesting_takes_the_process_down() -> None:
    subprocess.run([sys.executable, "-c", DEEP], check=True, timeout=scaled(28))


def filled(before: str, repeated: str, after: str = "") -> str:
    """Return a text as large as a query may be."""
    return before + repeated * ((MAX_SQL_BYTES - len(before) - len(after)) // len(repeated)) + after


@pytest.mark.parametrize(
    ("dialect", "sql", "written"),
    [
        ("oracle", filled("CREATE PROCEDURE p IS BEGIN ", "INSERT INTO t VALUES (1);", " END;"), ()),
        ("snowflake", filled("CREATE PROCEDURE p() AS BEGIN ", "INSERT INTO t VALUES (1);", " END;"), ()),
        ("tsql", filled("", "INSERT INTO t SELECT * FROM a\n"), ("t",)),
        ("tsql", filled("SELECT * FROM (((\n", "INSERT INTO t SELECT 1\n"), ()),
        ("", filled("", ";\n", "INSERT INTO t SELECT 'open"), ()),
        ("tsql", filled("", "INSERT INTO t SELECT 1;\n", "SELECT 'open"), ("t",)),
        ("", filled("INSERT INTO t SELECT 1; SELECT ", "/* ; ", "'"), ("t",)),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_the_longest_text_is_read_in_time_that_grows_with_its_length(
    dialect: str, sql: str, written: tuple[str, ...]
) -> None:
    assert read_query(sql, [], dialect, "").writes == written


def test_an_open_quote_after_many_lines_has_its_line() -> None:
    facts = read_query("SELECT 1;\n" * 5 + "\nSELECT 'open", [], "", "")
    assert [line for line, _ in facts.unread] == [7]


def test_an_unknown_dialect_is_named() -> None:
    assert "nope" in check_dialect("nope")
    assert check_dialect("snowflake") == ""


def test_sqlglot_logs_no_warning_of_a_query_and_its_logger_stays_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("sqlglot")
    before = (logger.level, list(logger.filters))
    with caplog.at_level(logging.DEBUG):
        read_query("ALTER TABLE a FOO BAR; SELECT * FROM orders", [], "mysql", "")
    assert not [record for record in caplog.records if record.name == "sqlglot"]
    assert (logger.level, list(logger.filters)) == before == (logging.NOTSET, [])
    logger.warning("a query of somebody else")
    assert "a query of somebody else" in caplog.text
