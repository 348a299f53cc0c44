"""Prepares the text of a query for a parser: byte order mark, lines for clients, variables, depth. Lines stay."""

from __future__ import annotations

import re
from collections.abc import Iterator

from crosswind.tasks.sql.names import HOLE, VALUE

__all__ = [
    "BATCH_END",
    "MAX_DEPTH",
    "TOO_DEEP",
    "clean",
    "mask_variables",
    "nests_deeply",
    "rough_pieces",
    "spell_out",
    "without_comments",
]

MAX_DEPTH = 500
TOO_DEEP = "nested too deeply"

_SIGNS = re.compile(r"[^\w\s:,]")
_JOIN_WORDS = ("JOIN", "ON", "USING", "SELECT")
_JOINS = re.compile(rf"\b(?:{'|'.join(_JOIN_WORDS)})\b", re.IGNORECASE)

_DOLLAR_BRACE = re.compile(r"(?<!\$)\$\{[^{}\n]*\}")
_BRACES = re.compile(r"\{[A-Za-z_]\w*\}")
_PERCENT_TAG = re.compile(r"<%.*?%>", re.DOTALL)
_PSQL_NAME = re.compile(r"(?<![:\w]):\w+(?=\s*\.)")
_PSQL_QUOTED = re.compile(r"(?<![:\w]):\"\w+\"")
_NAMED_VALUE = re.compile(r"%\(\w+\)s")
_VALUE = re.compile(
    r"((?:[=<>,(]|\b(?:IN|LIMIT|OFFSET|BETWEEN|AND|OR|LIKE|VALUES|SET|THEN|ELSE|WHEN|BY)\b)\s*)%s\b", re.I
)
_SQLCMD = re.compile(r"\$\(\w+\)")
_AMPERSAND = re.compile(r"&&?\{?[A-Za-z_]\w*\}?\.?")
_VARIABLES = re.compile(r"[$%&{]|:[\w\"]")
_VARIABLE_SIGNS = "$%&{:"

_CLIENT_LINES = {
    "tsql": re.compile(r"^[ \t]*:(?:setvar|r|connect|on\s+error)\b[^\n]*", re.I | re.M),
    "teradata": re.compile(r"^[ \t]*\.(?=[A-Za-z])[^\n;]*;?", re.M),
    "oracle": re.compile(
        r"^[ \t]*(?:WHENEVER\s+\w+ERROR|SET\s+(?:SERVEROUTPUT|DEFINE|ECHO|FEEDBACK|VERIFY|TIMING|HEADING|PAGESIZE|"
        r"LINESIZE|TERMOUT|TRIMSPOOL|SQLBLANKLINES|AUTOCOMMIT)|SPOOL|PROMPT|DEFINE|UNDEFINE|REM|EXIT|QUIT)\b[^\n]*",
        re.I | re.M,
    ),
    "postgres": re.compile(r"^[ \t]*\\(?:set|unset|timing|echo|pset|connect|c|i|x|q|encoding)\b[^\n]*", re.M),
    "redshift": re.compile(r"^[ \t]*\\(?:set|unset|timing|echo|pset|connect|c|i|x|q|encoding)\b[^\n]*", re.M),
    "mysql": re.compile(r"^[ \t]*DELIMITER\b[^\n]*", re.I | re.M),
    "snowflake": re.compile(r"^[ \t]*!(?:set|define|print|exit|quit|options)\b[^\n]*", re.I | re.M),
}
"""Lines that the database's command-line client interprets itself, by dialect."""
BATCH_END = "end_of_batch"
"""A statement that replaces the line by which a client ends a batch."""
_BATCH_ENDS = {
    "tsql": re.compile(r"^[ \t]*GO(?:[ \t]+\d+)?[ \t]*(?:--[^\n]*)?$", re.I | re.M),
    "oracle": re.compile(r"^[ \t]*/[ \t]*$", re.M),
    "mysql": re.compile(r"^[ \t]*(?:\$\$|//)[ \t]*$", re.M),
}
"""Lines that end a batch, as a semicolon does."""
_DELIMITER_LINE = re.compile(r"^[ \t]*DELIMITER[ \t]+(\S+)[^\n]*$", re.I | re.M)
"""Sets the sign that ends a statement for MySQL's client, so that procedures can contain semicolons."""
_MYSQL_QUOTED = r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|`[^`]*`|--(?=\s)[^\n]*|#[^\n]*|/\*.*?(?:\*/|\Z)"

_COMMENT = re.compile(
    r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|`[^`]*`|\$\$.*?\$\$|--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL
)


def clean(sql: str, dialect: str) -> str:
    """Return the text without a byte order mark and lines for a client, with line feeds as line ends."""
    sql = sql.removeprefix("\ufeff")
    if "\r" in sql:
        sql = sql.replace("\r\n", "\n").replace("\r", "\n")
    if dialect == "mysql" and _DELIMITER_LINE.search(sql):
        sql = _without_delimiters(sql)
    if dialect in _CLIENT_LINES:
        sql = _CLIENT_LINES[dialect].sub("", sql)
    if dialect in {"postgres", "redshift"} and "\\copy" in sql:
        sql = re.sub(r"^([ \t]*)\\copy\b", r"\1 copy", sql, flags=re.MULTILINE)
    if dialect in _BATCH_ENDS:
        sql = _BATCH_ENDS[dialect].sub(f";{BATCH_END};", sql)
    return sql


def _without_delimiters(sql: str) -> str:
    """Return a text for MySQL's client with semicolons and ``BATCH_END`` in place of the delimiters that it sets."""
    begin, delimiter, parts = 0, ";", []
    for line in _DELIMITER_LINE.finditer(sql):
        parts += [_with_batch_ends(sql[begin : line.start()], delimiter), line[0]]
        begin, delimiter = line.end(), line[1].strip("'\"`") or ";"
    return "".join([*parts, _with_batch_ends(sql[begin:], delimiter)])


def _with_batch_ends(sql: str, delimiter: str) -> str:
    if delimiter == ";":
        return sql

    def replacement(match: re.Match[str]) -> str:
        return match[0] if match["delimiter"] is None else f";{BATCH_END};"

    return re.sub(rf"(?P<delimiter>{re.escape(delimiter)})|{_MYSQL_QUOTED}", replacement, sql, flags=re.DOTALL)


def mask_variables(sql: str, dialect: str) -> str:
    """Replace the variables of clients and drivers by the names ``HOLE`` and ``VALUE``."""
    if not any(sign in sql for sign in _VARIABLE_SIGNS) or not _VARIABLES.search(sql):
        return sql
    sql = _DOLLAR_BRACE.sub(HOLE, sql)
    sql = _outside_strings(_BRACES, HOLE, sql) if "{" in sql else sql
    sql = _PERCENT_TAG.sub(HOLE, sql) if "<%" in sql else sql
    if dialect in {"postgres", "redshift"}:
        sql = _outside_strings(_PSQL_NAME, HOLE, _PSQL_QUOTED.sub(HOLE, sql))
    sql = _NAMED_VALUE.sub(VALUE, sql)
    sql = _VALUE.sub(rf"\1{VALUE}", sql)
    if dialect in {"tsql", "fabric"}:
        sql = _SQLCMD.sub(HOLE, sql)
    if dialect in {"oracle", "snowflake"}:
        sql = _outside_strings(_AMPERSAND, HOLE, sql)
    return sql


_LITERAL_NAME = re.compile(
    r"\bIDENTIFIER\s*\(\s*('[^']*'(?:\s*\|\|\s*'[^']*')*)\s*\)|(?<=\bFROM )TABLE\s*\(\s*('[\w.]+')\s*\)", re.I
)
_OPEN_NAME = re.compile(r"\bIDENTIFIER\s*\(\s*[^()']*(?:\([^()]*\))?[^()']*\)|\bTABLE\s*\(\s*[$:]\w+\s*\)", re.I)
_NAME_FUNCTIONS = re.compile(r"\bIDENTIFIER\s*\(|\bTABLE\s*\(\s*[$:']", re.I)


def spell_out(sql: str, dialect: str) -> str:
    """Replace ``IDENTIFIER('a.b')`` of Snowflake and Databricks by the name itself."""
    if dialect not in {"snowflake", "databricks", "spark"} or not _NAME_FUNCTIONS.search(sql):
        return sql
    sql = _LITERAL_NAME.sub(lambda match: "".join(re.findall(r"'([^']*)'", match[1] or match[2])), sql)
    return _OPEN_NAME.sub(HOLE, sql)


def _outside_strings(pattern: re.Pattern[str], replacement: str, sql: str) -> str:
    parts, end = [], 0
    for quoted in _COMMENT.finditer(sql):
        parts += [pattern.sub(replacement, sql[end : quoted.start()]), quoted[0]]
        end = quoted.end()
    return "".join([*parts, pattern.sub(replacement, sql[end:])])


def without_comments(sql: str) -> str:
    """Replace each comment by a space and its line breaks."""

    def replacement(match: re.Match[str]) -> str:
        text = match[0]
        return " " + "\n" * text.count("\n") if text.startswith(("--", "/*")) else text

    return _COMMENT.sub(replacement, sql) if "--" in sql or "/*" in sql else sql


def rough_pieces(sql: str) -> Iterator[tuple[int, str]]:
    """Yield the texts between semicolons outside of quotes and comments, each with the number of lines before it.

    For a text that has no tokens as a whole, because a quote in it is never closed.
    """
    begin = line = 0
    ends = [match.start() for match in re.finditer(";", _COMMENT.sub(lambda quoted: "_" * len(quoted[0]), sql))]
    for end in [*ends, len(sql)]:
        yield line, sql[begin:end]
        line += sql.count("\n", begin, end)
        begin = end + 1


def nests_deeply(sql: str) -> bool:
    """Return whether brackets, types or joins nest so deeply that sqlglot may exhaust the stack.

    Python would raise ``RecursionError``, but sqlglot's compiled parser crashes the process.
    """
    if len(sql) <= MAX_DEPTH:
        return False
    text = sql.upper()  # the regular expression, which minds the ends of words, is slower
    if sum(map(sql.count, "([{<")) + sum(map(text.count, _JOIN_WORDS)) <= MAX_DEPTH:
        return False
    depth = angles = joins = 0
    for sign in _SIGNS.findall(sql):
        depth = max(0, depth + (sign in "([{") - (sign in ")]}"))
        angles = angles + 1 if sign == "<" else 0  # ARRAY<ARRAY<…, with nothing but words between
        if depth > MAX_DEPTH or angles > MAX_DEPTH:
            return True
    for word in map(str.upper, _JOINS.findall(sql)):
        joins = 0 if word == "SELECT" else max(0, joins + (1 if word == "JOIN" else -1))  # a JOIN b JOIN c … ON … ON …
        if joins > MAX_DEPTH:
            return True
    return False
