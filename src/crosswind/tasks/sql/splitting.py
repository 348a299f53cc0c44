"""Where statements begin and end: at semicolons, inside of scripts and blocks, and in T-SQL without any sign."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from sqlglot.dialects.dialect import Dialect
from sqlglot.tokenizer_core import Token, TokenType

from crosswind.tasks.sql.phrases import CONTROL, SWALLOWED, words
from crosswind.tasks.sql.text import BATCH_END

__all__ = [
    "STARTERS",
    "Tokens",
    "chunks",
    "defines",
    "is_control",
    "line_starts",
    "parenthesised",
    "peel",
    "tokenize",
    "without_top",
    "word",
]

Tokens = Sequence[Token]

_TRANSACTION = {"TRANSACTION", "TRAN", "WORK", "DISTRIBUTED", "ISOLATION", "READ", "DEFERRED", "IMMEDIATE"}
_ENDS = {"IF", "LOOP", "WHILE", "FOR", "CASE", "REPEAT", "TRY", "CATCH"}
STARTERS = words(
    """SELECT INSERT UPDATE DELETE MERGE CREATE DROP ALTER EXEC EXECUTE DECLARE SET IF WHILE BEGIN END ELSE PRINT
    TRUNCATE WITH USE RETURN RAISERROR THROW COMMIT ROLLBACK SAVE GRANT REVOKE OPEN FETCH CLOSE DEALLOCATE BULK
    WAITFOR BREAK CONTINUE GOTO"""
)
"""Words that begin a statement of T-SQL, where nothing needs to end the one before."""
_CHANGING = {"INSERT", "UPDATE", "DELETE", "MERGE", "EXECUTE"}
_QUERIES = {"SELECT", "WITH", "SEL"}


@lru_cache(maxsize=16)
def _tokenizer(dialect: type[Dialect]) -> Any:
    """Return the dialect's class of tokenizers, without statements that are taken as one piece of text."""
    return type("Tokens", (dialect.tokenizer_class,), {"COMMANDS": set()})


def tokenize(sql: str, dialect: Dialect) -> list[Token]:
    """Return the tokens of ``sql``; raises ``TokenError``."""
    tokens: list[Token] = list(_tokenizer(type(dialect))(dialect=dialect).tokenize(sql))
    return [token for token in tokens if token.token_type is not TokenType.HIVE_TOKEN_STREAM]  # Athena's mark


def word(tokens: Tokens, index: int = 0) -> str:
    """Return a token's text in capitals, or "" behind the end; "" too for what is quoted."""
    if index >= len(tokens) or tokens[index].token_type in (TokenType.STRING, TokenType.IDENTIFIER):
        return ""
    return str(tokens[index].text).split(" ", 1)[0].upper()  # sqlglot has tokens of two words, such as UNLOCK TABLES


def chunks(tokens: Tokens, dialect: str) -> Iterator[list[Token]]:
    """Yield what stands between semicolons; the body of a procedure stays with its CREATE."""
    chunk: list[Token] = []
    for token in tokens:
        if token.token_type is not TokenType.SEMICOLON:
            chunk.append(token)
            continue
        if defines(chunk) and _open_blocks(chunk, dialect):
            chunk.append(token)
            continue
        if chunk:
            yield chunk
        chunk = []
    if chunk:
        yield chunk


def _open_blocks(chunk: Tokens, dialect: str) -> int:
    """Return how many blocks of a definition, such as CREATE PROCEDURE, are open at the end of ``chunk``."""
    if dialect in {"tsql", "fabric"}:
        return 0 if chunk[-1].text == BATCH_END else 1
    words = [word(chunk, index) for index in range(len(chunk))]
    depth = sum((one.token_type is TokenType.L_PAREN) - (one.token_type is TokenType.R_PAREN) for one in chunk)
    depth += "PACKAGE" in words[:5] or words[1:3] == ["TYPE", "BODY"]
    began = False
    for index, one in enumerate(words):
        if one == "BEGIN" and (index + 1 >= len(words) or words[index + 1] not in _TRANSACTION):
            depth += 1
            began = True
        elif one == "CASE" and words[index - 1] != "END":
            depth += 1
        elif one == "END" and (index + 1 >= len(words) or words[index + 1] not in _ENDS - {"CASE", "TRY", "CATCH"}):
            depth -= 1
    if not began and dialect == "oracle" and _unquoted_body(words):
        return 1  # its declarations: BEGIN comes later
    return max(depth, 0)


def _unquoted_body(words: Sequence[str]) -> bool:
    return ("IS" in words or "AS" in words) and words[-1] != "END" and "LANGUAGE" not in words


def defines(chunk: Tokens) -> bool:
    """Whether it only writes down something that runs later, as CREATE PROCEDURE does."""
    if word(chunk) not in {"CREATE", "ALTER", "REPLACE"}:
        return False
    for index in range(1, min(len(chunk), 8)):
        if word(chunk, index) in SWALLOWED:
            return word(chunk, index + 1) != "TABLE"  # Snowflake's EVENT TABLE
        if word(chunk, index) in {"TABLE", "VIEW", "AS", "("}:
            return False
    return False


def peel(chunk: Tokens, dialect: str) -> Iterator[Tokens]:
    """Yield the statements in a chunk of a script: without BEGIN, IF … THEN and their like, but with their queries."""
    rest = list(chunk)
    while rest:
        cut, queries = _control(rest, dialect)
        yield from queries
        if not cut:
            break
        rest = rest[cut:]
    if rest:
        yield rest


def _control(tokens: Tokens, dialect: str) -> tuple[int, list[Tokens]]:
    """Return how many tokens of the front control the script, 0 if none, and the queries in them."""
    first, second = word(tokens), word(tokens, 1)
    if first == "BEGIN":
        return _begin(tokens, second), []
    if first == "END":
        return _end(tokens, second), []
    if first in {"ELSE", "LOOP", "REPEAT"} and second != "(":
        return 1, []
    if first in {"IF", "ELSEIF", "ELSIF", "ELIF", "WHILE", "UNTIL", "CASE"} or (first == "WHEN"):
        cut = _condition(tokens, dialect)
        return cut, list(parenthesised(tokens[:cut]))
    if first == "EXCEPTION":
        return (1, []) if second in {"WHEN", ""} else (0, [])
    if first == "FOR":
        return _for(tokens)
    if first == "FORALL":
        return next((index for index in range(len(tokens)) if word(tokens, index) in _CHANGING), len(tokens)), []
    if first in {"LOCK", "LOCKING"} and dialect == "teradata":
        return _lock(tokens), []
    if len(tokens) > 1 and tokens[1].token_type is TokenType.COLON and tokens[0].token_type is TokenType.VAR:
        return 2, []  # a label
    return 0, []


def _lock(tokens: Tokens) -> int:
    """Return where Teradata's ``LOCKING TABLE a FOR ACCESS`` ends."""
    for index in range(1, len(tokens) - 1):
        if word(tokens, index) in {"FOR", "IN"}:
            end = index + 2
            while word(tokens, end) in {"MODE", "NOWAIT", "OVERRIDE"}:
                end += 1
            return end
    return len(tokens)


def without_top(tokens: Tokens) -> Tokens:
    """Return a changing statement of T-SQL without ``TOP (n) PERCENT``, which sqlglot takes for a table there."""
    if word(tokens) not in _CHANGING or word(tokens, 1) != "TOP":
        return tokens
    end = _closing(tokens, 2) + 1 if len(tokens) > 2 and tokens[2].token_type is TokenType.L_PAREN else 3
    return [tokens[0], *tokens[end + (word(tokens, end) == "PERCENT") :]]


def _begin(tokens: Tokens, second: str) -> int:
    if second in _TRANSACTION or not second:
        cut = 2
        while cut < len(tokens) and not _starts_line(tokens, cut):
            cut += 1
        return min(cut, len(tokens))
    return 2 if second in {"TRY", "CATCH", "ATOMIC"} else 3 if second == "NOT" else 1


def _end(tokens: Tokens, second: str) -> int:
    cut = 2 if second in _ENDS or second in _TRANSACTION else 1
    if cut < len(tokens) and not _starts_line(tokens, cut) and word(tokens, cut) not in STARTERS:
        return len(tokens)  # a label, or what ends the text of a procedure
    return cut


def _condition(tokens: Tokens, dialect: str) -> int:
    """Return where the condition of IF, WHILE or WHEN ends: behind THEN or DO, in T-SQL before a statement."""
    depth = cases = 0
    for index, token in enumerate(tokens):
        depth += (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)
        text = word(tokens, index)
        cases += (text == "CASE" and index > 0) - (text == "END")
        if index and depth == 0 and cases <= 0 and text in {"THEN", "DO", "LOOP"}:
            return index + 1
        if index and depth == 0 and dialect in {"tsql", "fabric"} and text in STARTERS and text != "END":
            return index
    return 0 if word(tokens) in {"CASE", "WHEN"} else len(tokens)


def _for(tokens: Tokens) -> tuple[int, list[Tokens]]:
    """``FOR row IN (query) DO`` and ``FOR row IN query LOOP``."""
    depth, begin = 0, 0
    for index, token in enumerate(tokens):
        depth += (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)
        if depth == 0 and word(tokens, index) in {"DO", "LOOP"}:
            inner = tokens[begin:index] if begin else tokens[:index]
            return index + 1, [inner] if begin else list(parenthesised(tokens[:index]))
        if depth == 0 and word(tokens, index) == "IN" and word(tokens, index + 1) in _QUERIES:
            begin = index + 1
    return 0, []


def _starts_line(tokens: Tokens, index: int) -> bool:
    return index == 0 or tokens[index].line > tokens[index - 1].line


def parenthesised(tokens: Tokens) -> Iterator[Tokens]:
    """Yield the queries that stand in brackets, and one that a cursor is declared for."""
    index = 0
    while index < len(tokens):
        if tokens[index].token_type is TokenType.L_PAREN and _begins_query(tokens, index + 1):
            end = _closing(tokens, index)
            yield tokens[index + 1 : end]
            index = end
        elif index and word(tokens, index) in _QUERIES and word(tokens, index - 1) in {"FOR", "IS", "DEFAULT", "IN"}:
            yield tokens[index:]
            return
        index += 1


def _begins_query(tokens: Tokens, index: int) -> bool:
    while index < len(tokens) and tokens[index].token_type is TokenType.L_PAREN:
        index += 1
    return word(tokens, index) in _QUERIES


def _closing(tokens: Tokens, index: int) -> int:
    depth = 0
    for place in range(index, len(tokens)):
        kind = tokens[place].token_type
        depth += (kind is TokenType.L_PAREN) - (kind is TokenType.R_PAREN)
        if depth == 0:
            return place
    return len(tokens)


def line_starts(tokens: Tokens) -> list[int]:
    """Return where a statement may begin in T-SQL: at words for it that begin a line, outside of brackets."""
    found, depth, cases = [0], 0, 0
    for index, token in enumerate(tokens):
        text = word(tokens, index)
        inline = text in {"ELSE", "END"} and cases <= 0
        cases = max(0, cases + (text == "CASE") - (text == "END"))
        if depth == 0 and index and text in STARTERS and (inline or _starts_line(tokens, index)):
            follows = word(tokens, index + 1)
            hint = word(tokens, index) == "WITH" and follows == "("
            paging = word(tokens, index) == "FETCH" and word(tokens, index + 2) != "FROM"
            if not hint and not paging:
                found.append(index)
        depth += (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)
    return found


def is_control(tokens: Tokens) -> bool:
    """Whether the statement is one of a script that only its queries make read a table."""
    first = word(tokens)
    if first in CONTROL or first in STARTERS:
        return first in CONTROL
    signs = [token.text for token in tokens[1:4]]
    return ":=" in signs or (len(signs) > 1 and signs[0] == ":" and signs[1] == "=")
