"""Statements that sqlglot does not parse, by their wording, with their effects on the tables that they name.

A phrase is in the notation of manuals: capitals are words, ``[ ]`` encloses optional parts, ``|`` separates
alternatives, ``a`` and ``b`` are names of tables, ``s`` is the name of a schema, ``q`` a query, ``…`` any text. The
first phrase that matches counts. Sources: the SQL references of the databases that are named at each group.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

__all__ = [
    "CONTROL",
    "FALLBACK_FIRST_WORDS",
    "IGNORED",
    "NAME",
    "STORED_CODE_OBJECTS",
    "PhraseMatch",
    "match_phrase",
    "phrase_words",
    "words",
]

NAME_PART = r"(?:[\w$#@\-]+(?:\(\w*\))?|\"[^\"]*\"|`[^`]*`|\[[^\]]*\])"
NAME = rf"{NAME_PART}(?:\s*\.+\s*{NAME_PART})*"
STRING = (
    r"(?:[rR]?\"{3}.*?\"{3}|[rR]?'{3}.*?'{3}|[Nn]?'(?:[^']|'')*'|\"[^\"]*\"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$"
    r"|[Qq]'(?:\[.*?\]|\(.*?\)|\{.*?\}|<.*?>|(?P<sign>\S).*?(?P=sign))')"
)


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


IGNORED = words(
    """SHOW GRANT REVOKE DENY VACUUM OPTIMIZE EXPLAIN DESCRIBE DESC ANALYZE ANALYSE LOCK UNLOCK MSCK ADD LIST INSTALL
    COMMIT ROLLBACK SAVEPOINT RELEASE START ABORT CHECKPOINT CLUSTER REINDEX COMMENT KILL FLUSH RESET DISCARD LISTEN
    NOTIFY UNLISTEN SYSTEM DETACH ATTACH PRAGMA UNCACHE CLEAR CHECK REPAIR CHECKSUM COLLECT HELP BT ET DBCC RECONFIGURE
    BACKUP RESTORE SECURITY REASSIGN UNSET PUT GET REMOVE RM LS TRUNCATE AUDIT NOAUDIT PURGE FSCK GENERATE WAITFOR
    RELOAD RECOVER REFRESH INVALIDATE COMPUTE EXPORT DO SAVE STOP DISABLE ENABLE DIAGNOSTIC REVERT ASSOCIATE
    DISASSOCIATE DELIMITER VALIDATE SUSPEND RESUME REORG SYNC"""
)
"""Statements of maintenance and of the session, which neither read nor write a table unless a phrase says so."""

CONTROL = words(
    """RETURN RAISE LEAVE ITERATE CONTINUE BREAK EXIT PRINT THROW RAISERROR GOTO NULL FETCH CLOSE DEALLOCATE LET ASSERT
    SIGNAL RESIGNAL DECLARE OPEN CURSOR UNTIL SET MOVE PERFORM"""
)
"""Statements of scripts, in which only queries read tables."""

STORED_CODE_OBJECTS = words("PROCEDURE PROC FUNCTION TRIGGER PACKAGE EVENT TASK MACRO TYPE METHOD")
"""Objects whose code CREATE stores without running it."""

FALLBACK_FIRST_WORDS = frozenset({"COPY", "LOAD", "INSERT"})
"""First words of phrases that count only if sqlglot cannot parse the statement."""

_TABLE_WORDS = (
    r"(?:TABLES?|(?:MATERIALIZED |DYNAMIC |EXTERNAL |LIVE )?VIEWS?|DYNAMIC TABLE|EXTERNAL TABLE|ICEBERG TABLE)"
)

# Each line: dialects (none: all), phrase, effects.
_PHRASES = """
# PostgreSQL, Redshift, Snowflake, Hive, Spark, MySQL, Oracle, Teradata, ClickHouse: tables that move
| ALTER <T> [IF EXISTS] [ONLY] a RENAME (TO|AS) b | rename a b
mysql | ALTER TABLE a RENAME b | rename a b
| ALTER <T> [IF EXISTS] a SWAP WITH b | swap a b
| ALTER <T> [IF EXISTS] a SET SCHEMA s | move a s
| ALTER SCHEMA s TRANSFER a | move a s
| RENAME (OBJECT|TABLE|TABLES|VIEW|DICTIONARY)? [IF EXISTS] l | renames l
| EXCHANGE (TABLES|DICTIONARIES) a AND b … | swap a b
tsql,fabric | (EXEC|EXECUTE) [sys.]sp_rename [@objname =] x , [@newname =] y | sp_rename x y
# Partitions and files that become part of a table
| ALTER TABLE [IF EXISTS] a EXCHANGE (PARTITION|SUBPARTITION) … WITH TABLE b … | read b, change a
| ALTER TABLE a SWITCH … TO b … | read a, change b
| ALTER TABLE a APPEND FROM b … | read b, change a
| ALTER TABLE [IF EXISTS] [ONLY] a … ATTACH PARTITION … FROM b … | read b, change a
| ALTER TABLE [IF EXISTS] [ONLY] a ATTACH PARTITION b … | read b, change a
| ALTER TABLE a … REPLACE PARTITION … FROM b … | read b, change a
| ALTER TABLE a … MOVE PARTITION … TO TABLE b … | read a, change b
clickhouse | ALTER TABLE a … (UPDATE|DELETE) … | change a, queries
| ALTER (MATERIALIZED VIEW|DYNAMIC TABLE|EXTERNAL TABLE) [IF EXISTS] a (REFRESH|REBUILD) … | change a
| ALTER VIEW a [(…)] AS q | query q, make a
# PostgreSQL, Trino, Redshift, Oracle, Databricks, Hive: views that are refreshed
| REFRESH (MATERIALIZED VIEW|STREAMING TABLE|DYNAMIC TABLE) [CONCURRENTLY] a … | change a
bigquery | CALL BQ.REFRESH_MATERIALIZED_VIEW(x) | refresh x
# MySQL, T-SQL, Hive, PostgreSQL, Redshift, Athena: files
| LOAD (DATA|XML) … INFILE … INTO TABLE a … | change a
| LOAD DATA … INTO TABLE a … | change a
| LOAD DATA (INTO|OVERWRITE) a … | change a
oracle | INSERT INTO ( q ) r | query r, through q
| BULK INSERT a FROM … | change a
| IMPORT [EXTERNAL] TABLE a … FROM … | make a
| IMPORT FOREIGN SCHEMA … | nothing
| IMPORT INTO a … | change a, queries
| EXPORT TABLE a … TO … | read a
| EXPORT DATA … AS q | query q
| UNLOAD ( x ) TO … | literal x
| UNLOAD ( q ) TO … | query q
| APPLY CHANGES INTO a FROM STREAM ( b ) … | read b, change a
| APPLY CHANGES INTO a FROM [STREAM] b … | read b, change a
| COPY INTO a [(…)] FROM ( q ) … | query q, change a
| COPY INTO a … FROM … | change a
| COPY ( q ) TO … | query q
| COPY FROM DATABASE … | nothing
| COPY a [(…)] FROM … | change a
| COPY a [(…)] TO … | read a
# BigQuery, Snowflake, Redshift, Databricks: other things that are made of tables
| CREATE [OR REPLACE] SNAPSHOT TABLE [IF NOT EXISTS] a CLONE b … | read b, make a
| CREATE [OR REPLACE] STREAM [IF NOT EXISTS] a … ON (TABLE|VIEW|DYNAMIC TABLE|EXTERNAL TABLE) b … | read b, make a
| CREATE MATERIALIZED VIEW LOG … | nothing
| CREATE MODEL a FROM ( q ) … | query q, make a
| CREATE MODEL a FROM b … | read b, make a
| CREATE [OR REPLACE] [OR REFRESH] [TEMPORARY] [STREAMING] LIVE (TABLE|VIEW) a … AS q | query q, make a
| CREATE [OR REPLACE] [OR ALTER] [PUBLIC] SYNONYM [IF NOT EXISTS] a FOR b | read b, make a
| CONVERT TO DELTA a … | change a
| RESTORE [TABLE] a TO (VERSION|TIMESTAMP) … | change a
| FLASHBACK TABLE a TO … | change a
| UNDROP (TABLE|VIEW) a | change a
tsql,fabric | UPDATE STATISTICS … | nothing
duckdb | UPDATE EXTENSIONS … | nothing
oracle | UPDATE ( q ) SET r | through q, queries r
oracle | UPDATE ( q ) t SET r | through q, queries r
mysql | HANDLER a … | read a
# SQL inside of SQL
| EXECUTE IMMEDIATE x [USING …|INTO …] | literal x
| EXECUTE IMMEDIATE … | dynamic
| EXPLAIN ANALYZE [VERBOSE] q | query q
| EXPLAIN ( … ANALYZE … ) q | query q
| PREPARE … FROM x | literal x
| PREPARE … AS q | query q
trino,presto,athena | PREPARE … FROM q | query q
| PREPARE … FROM … | dynamic
tsql,fabric | (EXEC|EXECUTE) [sys.]sp_executesql [@stmt =] x [, …] | literal x
tsql,fabric | (EXEC|EXECUTE) [sys.]sp_executesql … | dynamic
tsql,fabric | (EXEC|EXECUTE) ( x ) … | literal x
tsql,fabric | (EXEC|EXECUTE) ( … | dynamic
plpgsql | EXECUTE x [USING …|INTO …] | literal x
plpgsql | EXECUTE … | dynamic
| OPEN … FOR [EXECUTE] x [USING …] | literal x
| OPEN … FOR EXECUTE … | dynamic
| DO [LANGUAGE …] x [LANGUAGE …] | literal x
| SUBMIT (TASK|JOB) … AS q | query q
| (CALL|EXEC|EXECUTE|EXECUTION) … | hidden
# The session
| USE (WAREHOUSE|ROLE|SECONDARY) … | nothing
| USE (CATALOG|DATABASE) s | catalog s
| USE (SCHEMA|NAMESPACE) s | schema s
snowflake,tsql,fabric | USE s . t | schema s.t
snowflake,tsql,fabric | USE s | catalog s
| USE s | schema s
| DATABASE s | schema s
| SET SESSION DATABASE s | schema s
| SET [SESSION|LOCAL] search_path (TO|=) DEFAULT | reset
| SET [SESSION|LOCAL] search_path (TO|=) p | path p
| RESET (search_path|ALL) | reset
| SET [CURRENT] SCHEMA [=] s | schema s
| SET CATALOG s | catalog s
| SET @@dataset_id = s | schema s
| SET @@dataset_project_id = s | catalog s
oracle | ALTER SESSION SET CURRENT_SCHEMA = s | schema s
"""


@dataclass(frozen=True, slots=True)
class _Phrase:
    dialects: frozenset[str]
    text: str
    effects: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class PhraseMatch:
    """The phrase that matches a statement: its effects, and the text and start of each of its parts."""

    effects: tuple[tuple[str, ...], ...]
    parts: dict[str, tuple[str, int]]


_WORDS = {
    "a": rf"(?P<a>{NAME})",
    "b": rf"(?P<b>{NAME})",
    "s": rf"(?P<s>(?:'[^']*'|{NAME}))",
    "t": rf"(?P<t>{NAME})",
    "l": r"(?P<l>.+)",
    "p": r"(?P<p>.+)",
    "r": r"(?P<r>.+)",
    "q": r"(?P<q>.+?)",
    "x": rf"(?P<x>{STRING})",
    "y": r"(?P<y>N?'(?:[^']|'')*')",
    "…": r".*?",
    "<T>": _TABLE_WORDS,
    ".": r"\.",
    "=": r"=",
    ",": r",",
}
_PIECE = re.compile(r"\[|\]|\(…\)|\(\||…|<T>|[()|?]|[^\s\[\]()|?]+")


@cache
def _compiled(phrase: str) -> re.Pattern[str]:
    """Return the regular expression of a phrase. Spaces separate words and are optional beside other signs.

    Compiled when a statement needs it: all together take as long as the reading of a hundred queries.
    """
    pieces = _PIECE.findall(phrase)
    groups = _groups(pieces)
    pattern = "".join(_piece_pattern(piece, index in groups) for index, piece in enumerate(pieces))
    return re.compile(pattern.replace(r"\s*?", "?") + r"\Z", re.IGNORECASE | re.DOTALL)


_SIGN_PATTERNS = {"[": "(?:", "]": r")?\s*", "|": "|", "?": r"?\s*", "(…)": r"\([^()]*\)\s*"}


def _piece_pattern(piece: str, in_group: bool) -> str:
    """Return the regular expression of a piece; ``in_group``: a parenthesis that encloses alternatives."""
    if in_group:
        return "(?:" if piece == "(" else r")\s*"
    if piece in _SIGN_PATTERNS:
        return _SIGN_PATTERNS[piece]
    pattern = _WORDS.get(piece) or (rf"\b{_word(piece)}" if piece[0].isalpha() else re.escape(piece))
    return rf"{pattern}\s*"


def _word(piece: str) -> str:
    text = piece.removesuffix("S?")
    return rf"{re.escape(piece)}(?!\w)" if text == piece else rf"{text}S?\b"


def _groups(pieces: Sequence[str]) -> set[int]:
    """Return the indices of the parentheses that enclose alternatives; the others are part of the statement."""
    open_parentheses: list[int] = []
    groups: set[int] = set()
    for index, piece in enumerate(pieces):
        if piece == "(":
            open_parentheses.append(index)
        elif piece == ")" and open_parentheses:
            start = open_parentheses.pop()
            if "|" in pieces[start:index]:
                groups |= {start, index}
    return groups


@lru_cache(maxsize=1)
def _by_word() -> dict[str, list[_Phrase]]:
    phrases: dict[str, list[_Phrase]] = {}
    for line in _PHRASES.strip().splitlines():
        if line.startswith("#"):
            continue
        dialects, rest = line.split("|", 1)
        text, effects = rest.rsplit(" | ", 1)
        verbs = tuple(tuple(effect.split()) for effect in effects.split(","))
        phrase = _Phrase(frozenset(dialects.strip().split(",")) - {""}, text.strip(), verbs)
        for first_word in text.split()[0].strip("()").split("|"):
            phrases.setdefault(first_word, []).append(phrase)
    return phrases


def match_phrase(text: str, word: str, dialect: str) -> PhraseMatch | None:
    """Return the first phrase that matches ``text``, a statement without comments whose first word is ``word``."""
    for phrase in _by_word().get(word, ()):
        if phrase.dialects and dialect not in phrase.dialects:
            continue
        if match := _compiled(phrase.text).match(text):
            groups: Iterable[str] = (name for name, value in match.groupdict().items() if value is not None)
            return PhraseMatch(phrase.effects, {name: (match[name].strip(), match.start(name)) for name in groups})
    return None


def phrase_words() -> Collection[str]:
    """Return the first words of all phrases."""
    return _by_word().keys()
