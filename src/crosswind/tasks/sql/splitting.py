"""Splits a text into statements: at semicolons, after the end of a procedure's body, and in T-SQL without any sign."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlglot.tokenizer_core import TokenType

from crosswind.tasks.sql.lexing import (
    CHANGING,
    STARTERS,
    T_SQL,
    Tokens,
    closing,
    depths,
    opens_parenthesis,
    starts_line,
    word,
)
from crosswind.tasks.sql.phrases import SWALLOWED
from crosswind.tasks.sql.script_control import TRANSACTION_WORDS
from crosswind.tasks.sql.text import BATCH_END

__all__ = ["chunks", "defines", "line_starts", "without_top"]

_INNER_ENDS = {"IF", "LOOP", "WHILE", "FOR", "REPEAT"}
"""Words after END that close a part of a block, not the block."""


def chunks(tokens: Tokens, dialect: str) -> Iterator[Tokens]:
    """Yield the tokens between semicolons. The body of a procedure stays with its CREATE."""
    semicolon = TokenType.SEMICOLON
    begin = 0
    for end in [index for index, token in enumerate(tokens) if token.token_type is semicolon]:
        chunk = tokens[begin:end]
        if defines(chunk) and _open_blocks(chunk, dialect):
            continue
        if chunk:
            yield chunk
        begin = end + 1
    if begin < len(tokens):
        yield tokens[begin:]


def _open_blocks(chunk: Tokens, dialect: str) -> int:
    """Return the number of blocks that a definition, such as CREATE PROCEDURE, has open at the end of ``chunk``."""
    if dialect in T_SQL:
        return 0 if chunk[-1].text == BATCH_END else 1
    words = [word(chunk, index) for index in range(len(chunk))]
    steps = [_block_step(words, index) for index in range(len(words))]
    has_begun = any(step > 0 and text == "BEGIN" for step, text in zip(steps, words, strict=True))
    if dialect == "oracle" and not has_begun and _has_unquoted_body(words):
        return 1  # these are its declarations, and BEGIN comes later
    parentheses = [depth for _, depth in depths(chunk)][-1]
    return max(sum(steps) + parentheses + _is_package(words), 0)


def _block_step(words: Sequence[str], index: int) -> int:
    """Return 1 for a word that opens a block, -1 for one that closes a block, else 0."""
    following = words[index + 1] if index + 1 < len(words) else ""
    match words[index]:
        case "BEGIN":
            return int(following not in TRANSACTION_WORDS)
        case "CASE":
            return int(words[index - 1] != "END")
        case "END":
            return -int(following not in _INNER_ENDS)
    return 0


def _is_package(words: Sequence[str]) -> bool:
    return "PACKAGE" in words[:5] or words[1:3] == ["TYPE", "BODY"]


def _has_unquoted_body(words: Sequence[str]) -> bool:
    return ("IS" in words or "AS" in words) and words[-1] != "END" and "LANGUAGE" not in words


def defines(chunk: Tokens) -> bool:
    """Return whether a statement stores code that runs later, as CREATE PROCEDURE does."""
    if word(chunk) not in {"CREATE", "ALTER", "REPLACE"}:
        return False
    for index in range(1, min(len(chunk), 8)):
        if word(chunk, index) in SWALLOWED:
            return word(chunk, index + 1) != "TABLE"  # Snowflake's EVENT TABLE
        if word(chunk, index) in {"TABLE", "VIEW", "AS", "("}:
            return False
    return False


def without_top(tokens: Tokens) -> Tokens:
    """Return a changing statement of T-SQL without ``TOP (n) PERCENT``, which sqlglot parses as a table there."""
    if word(tokens) not in CHANGING or word(tokens, 1) != "TOP":
        return tokens
    end = closing(tokens, 2) + 1 if opens_parenthesis(tokens, 2) else 3
    return [tokens[0], *tokens[end + (word(tokens, end) == "PERCENT") :]]


def line_starts(tokens: Tokens) -> list[int]:
    """Return where a statement of T-SQL may begin: at its first word, which begins a line outside of parentheses."""
    starts, cases = [0], 0
    for index, depth in depths(tokens):
        text = word(tokens, index)
        is_inline = text in {"ELSE", "END"} and cases <= 0
        cases = max(0, cases + (text == "CASE") - (text == "END"))
        begins = is_inline or starts_line(tokens, index)
        if index and depth == 0 and text in STARTERS and begins and not _continues(tokens, index):
            starts.append(index)
    return starts


def _continues(tokens: Tokens, index: int) -> bool:
    """Return whether a word is part of the statement before it: ``WITH (hint)``, or FETCH of a paged query."""
    if word(tokens, index) == "WITH":
        return word(tokens, index + 1) == "("
    return word(tokens, index) == "FETCH" and word(tokens, index + 2) != "FROM"
