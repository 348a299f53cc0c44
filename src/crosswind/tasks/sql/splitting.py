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
from crosswind.tasks.sql.phrases import STORED_CODE_OBJECTS
from crosswind.tasks.sql.script_control import TRANSACTION_WORDS
from crosswind.tasks.sql.text import BATCH_END

__all__ = ["chunks", "defines", "defines_type", "line_starts", "without_top"]

_INNER_ENDS = {"IF", "LOOP", "WHILE", "FOR", "REPEAT"}
"""Words after END that close a part of a block, not the block."""
_ALONE_IN_BATCH = {"PROC", "PROCEDURE", "FUNCTION", "TRIGGER"}
"""Objects of T-SQL whose definition ends with its batch, not at a semicolon."""
_HEAD = 9
"""The number of tokens that show whether a statement is a definition, and of what."""


def chunks(tokens: Tokens, dialect: str) -> Iterator[Tokens]:
    """Yield the tokens between semicolons. The body of a procedure stays with its CREATE."""
    definition: _Definition | None = None
    begin = 0
    for end, token in enumerate(tokens):
        if token.token_type is TokenType.SEMICOLON:
            if definition is not None and definition.is_open(begin, end):
                continue
            if begin < end:
                yield tokens[begin:end]
            begin, definition = end + 1, None
        elif end == begin and defines(tokens[begin : begin + _HEAD]):
            definition = _Definition(tokens, dialect)
        if definition is not None:
            definition.add(end)
    if begin < len(tokens):
        yield tokens[begin:]


class _Definition:
    """The blocks of a definition, such as CREATE PROCEDURE. It sees each token once: a body may be a whole file."""

    def __init__(self, tokens: Tokens, dialect: str) -> None:
        self._tokens, self._dialect = tokens, dialect
        self._blocks = self._parentheses = 0
        self._has_begun = self._has_unquoted_body = self._is_foreign = False

    def add(self, index: int) -> None:
        """Count the token at ``index`` as part of the definition."""
        kind = self._tokens[index].token_type
        self._parentheses += (kind is TokenType.L_PAREN) - (kind is TokenType.R_PAREN)
        step = _block_step(self._tokens, index)
        self._blocks += step
        match word(self._tokens, index):
            case "BEGIN":
                self._has_begun = self._has_begun or step > 0
            case "DECLARE":
                self._has_unquoted_body = True
            case "IS" | "AS" if self._dialect == "oracle":
                self._has_unquoted_body = True
            case "LANGUAGE" if self._dialect == "oracle":
                self._is_foreign = True

    def is_open(self, begin: int, end: int) -> bool:
        """Return whether the semicolon at ``end`` is within the definition, which begins at ``begin``."""
        if self._tokens[end - 1].text == BATCH_END:
            return False
        head = [word(self._tokens, index) for index in range(begin, min(begin + _HEAD, end))]
        if self._dialect in T_SQL:
            return not _ALONE_IN_BATCH.isdisjoint(head)
        if self._awaits_begin(end):
            return True
        return self._blocks + self._parentheses + _is_package(head) > 0

    def _awaits_begin(self, end: int) -> bool:
        """Return whether these are the declarations of a body whose BEGIN comes later."""
        has_body = self._has_unquoted_body and not self._is_foreign
        return has_body and not self._has_begun and word(self._tokens, end - 1) != "END"


def _block_step(tokens: Tokens, index: int) -> int:
    """Return 1 for a word that opens a block, -1 for one that closes a block, else 0."""
    match word(tokens, index):
        case "BEGIN":
            return int(word(tokens, index + 1) not in TRANSACTION_WORDS)
        case "CASE":
            return int(word(tokens, index - 1) != "END")
        case "END":
            return -int(word(tokens, index + 1) not in _INNER_ENDS)
    return 0


def _is_package(words: Sequence[str]) -> bool:
    return not {"PACKAGE", "BODY"}.isdisjoint(words[:5])


def defines(chunk: Tokens) -> bool:
    """Return whether a statement stores code that runs later, as CREATE PROCEDURE does."""
    if word(chunk) not in {"CREATE", "ALTER", "REPLACE"}:
        return False
    for index in range(1, min(len(chunk), 8)):
        if word(chunk, index) == "TYPE":
            return word(chunk, index + 1) == "BODY"  # a type itself has no code
        if word(chunk, index) in STORED_CODE_OBJECTS:
            return word(chunk, index + 1) != "TABLE"  # Snowflake's EVENT TABLE
        if word(chunk, index) in {"TABLE", "VIEW", "AS", "(", ";"}:
            return False
    return False


def defines_type(tokens: Tokens) -> bool:
    """Return whether a statement creates or changes a type, whose definition may have the words of other statements."""
    if word(tokens) not in {"CREATE", "ALTER", "REPLACE"}:
        return False
    head = [word(tokens, index) for index in range(1, 5)]
    return "TYPE" in head and {"TABLE", "VIEW", "AS", "("}.isdisjoint(head[: head.index("TYPE")])


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
