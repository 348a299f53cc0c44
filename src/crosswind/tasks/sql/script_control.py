"""Control statements of scripts (BEGIN, IF … THEN, FOR … LOOP and so on) around the statements that read and write."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlglot.tokenizer_core import TokenType

from crosswind.tasks.sql.lexing import (
    CHANGING,
    QUERIES,
    STARTERS,
    T_SQL,
    Tokens,
    as_select,
    depths,
    parenthesised,
    starts_line,
    word,
)
from crosswind.tasks.sql.phrases import CONTROL

__all__ = [
    "TRANSACTION_WORDS",
    "assigned_value",
    "begins_block",
    "is_control",
    "peel",
    "reads_without_select",
]

TRANSACTION_WORDS = {"TRANSACTION", "TRAN", "WORK", "DISTRIBUTED", "ISOLATION", "READ", "DEFERRED", "IMMEDIATE"}
"""Words after BEGIN that make it the begin of a transaction, not of a block."""
_BLOCK_WORDS = {"IF", "LOOP", "WHILE", "FOR", "CASE", "REPEAT", "TRY", "CATCH"}

_Front = tuple[int, list[Tokens]]
"""The number of tokens that control the script, 0 if none do, and the queries among them."""


def peel(chunk: Tokens, dialect: str) -> Iterator[Tokens]:
    """Yield the statements of a chunk of a script without the control statements, and the queries in these."""
    rest = list(chunk)
    while rest:
        cut, queries = _control(rest, dialect)
        yield from queries
        if not cut:
            break
        rest = rest[cut:]
    if rest:
        yield rest


def begins_block(tokens: Tokens) -> bool:
    """Return whether a statement is the first one of a block; ``BEGIN`` alone begins a transaction."""
    return word(tokens) == "BEGIN" and len(tokens) > 1 and word(tokens, 1) not in TRANSACTION_WORDS


def is_control(tokens: Tokens) -> bool:
    """Return whether a statement belongs to scripts, so that only queries in it read a table."""
    first = word(tokens)
    if first in CONTROL or first in STARTERS:
        return first in CONTROL
    signs = [token.text for token in tokens[1:4]]
    return ":=" in signs or (len(signs) > 1 and signs[0] == ":" and signs[1] == "=")


def assigned_value(tokens: Tokens, *, in_block: bool) -> Tokens | None:
    """Return the value of ``name := value``, in a block also of ``name = value``; None for other statements."""
    end = 1
    while end < len(tokens) and tokens[end].text in {".", "["}:
        end += 2 if tokens[end].text == "." else 3  # the field of a row, or an element of an array
    if in_block and end < len(tokens) and tokens[end].text == "=":
        return tokens[end + 1 :]
    for index, depth in depths(tokens):
        if (
            depth == 0
            and tokens[index].text in {":=", "="}
            and (tokens[index].text == ":=" or tokens[index - 1].text == ":")
        ):
            return tokens[index + 1 :]
    return None


def reads_without_select(tokens: Tokens) -> bool:
    """Return whether an expression has a FROM of its own: PL/pgSQL evaluates ``count(*) FROM a`` as a query."""
    for index, depth in depths(tokens):
        text, before = word(tokens, index), word(tokens, index - 1) if index else ""
        if depth == 0 and text in QUERIES | CHANGING:
            return False
        if depth == 0 and text == "FROM" and before != "DISTINCT":
            return True
    return False


def _control(tokens: Tokens, dialect: str) -> _Front:
    if handler := _HANDLERS.get(word(tokens)):
        return handler(tokens, dialect)
    return (2, []) if _is_label(tokens) else (0, [])


def _is_label(tokens: Tokens) -> bool:
    kinds = [token.token_type for token in tokens[:2]]
    return kinds == [TokenType.VAR, TokenType.COLON]


def _begin(tokens: Tokens, _: str) -> _Front:
    second = word(tokens, 1)
    if second in TRANSACTION_WORDS or not second:
        cut = 2
        while cut < len(tokens) and not starts_line(tokens, cut):
            cut += 1
        return min(cut, len(tokens)), []
    return 2 if second in {"TRY", "CATCH", "ATOMIC"} else 3 if second == "NOT" else 1, []


def _end(tokens: Tokens, _: str) -> _Front:
    cut = 2 if word(tokens, 1) in _BLOCK_WORDS | TRANSACTION_WORDS else 1
    if cut < len(tokens) and not starts_line(tokens, cut) and word(tokens, cut) not in STARTERS:
        return len(tokens), []  # a label, or the end of a procedure's text
    return cut, []


def _one_word(tokens: Tokens, _: str) -> _Front:
    return int(word(tokens, 1) != "("), []


def _exception(tokens: Tokens, _: str) -> _Front:
    return int(word(tokens, 1) in {"WHEN", ""}), []


def _conditional(tokens: Tokens, dialect: str) -> _Front:
    cut = _condition_end(tokens, dialect)
    condition = tokens[1 : cut - 1]
    if condition and reads_without_select(condition):
        return cut, [as_select(condition)]
    return cut, list(parenthesised(tokens[:cut]))


def _condition_end(tokens: Tokens, dialect: str) -> int:
    """Return where the condition of IF, WHILE or WHEN ends: after THEN or DO, in T-SQL before a statement."""
    cases = 0
    for index, depth in depths(tokens):
        text = word(tokens, index)
        cases += (text == "CASE" and index > 0) - (text == "END")
        if index == 0 or depth:
            continue
        if cases <= 0 and text in {"THEN", "DO", "LOOP"}:
            return index + 1
        if dialect in T_SQL and text in STARTERS and text != "END":
            return index
    return 0 if word(tokens) in {"CASE", "WHEN"} else len(tokens)


def _for(tokens: Tokens, _: str) -> _Front:
    """Cut ``FOR row IN (query) DO``, ``FOR row IN query LOOP`` and ``FOR row AS query DO``."""
    query_start = 0
    for index, depth in depths(tokens):
        if depth == 0 and word(tokens, index) in {"DO", "LOOP"}:
            queries = [tokens[query_start:index]] if query_start else list(parenthesised(tokens[:index]))
            return index + 1, queries
        if depth == 0 and not query_start and word(tokens, index) in {"IN", "AS", "FOR"}:
            query_start = index + 1 if word(tokens, index + 1) in QUERIES | CHANGING else 0
    return 0, []


def _forall(tokens: Tokens, _: str) -> _Front:
    return next((index for index in range(len(tokens)) if word(tokens, index) in CHANGING), len(tokens)), []


def _lock(tokens: Tokens, dialect: str) -> _Front:
    """Cut Teradata's ``LOCKING TABLE a FOR ACCESS``, which precedes a statement."""
    if dialect != "teradata":
        return 0, []
    for index in range(1, len(tokens) - 1):
        if word(tokens, index) in {"FOR", "IN"}:
            end = index + 2
            while word(tokens, end) in {"MODE", "NOWAIT", "OVERRIDE"}:
                end += 1
            return end, []
    return len(tokens), []


_HANDLERS: dict[str, Callable[[Tokens, str], _Front]] = {
    "BEGIN": _begin,
    "END": _end,
    "EXCEPTION": _exception,
    "FOR": _for,
    "FOREACH": _for,
    "FORALL": _forall,
    **dict.fromkeys(("ELSE", "LOOP", "REPEAT"), _one_word),
    **dict.fromkeys(("IF", "ELSEIF", "ELSIF", "ELIF", "WHILE", "UNTIL", "CASE", "WHEN"), _conditional),
    **dict.fromkeys(("LOCK", "LOCKING"), _lock),
}
"""By the first word of the statement."""
