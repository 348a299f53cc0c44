"""Tokens of a text, by sqlglot's tokenizers, and the questions that the splitting of statements asks about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from sqlglot.dialects.dialect import Dialect
from sqlglot.tokenizer_core import Token, TokenType
from sqlglot.tokens import Tokenizer

from crosswind.tasks.sql.phrases import words

__all__ = [
    "CHANGING",
    "QUERIES",
    "STARTERS",
    "T_SQL",
    "Tokens",
    "as_select",
    "closing",
    "depths",
    "opens_parenthesis",
    "parenthesised",
    "starts_line",
    "tokenize",
    "tokenizer_of",
    "word",
]

Tokens = Sequence[Token]

T_SQL = {"tsql", "fabric"}
"""Dialects in which no sign needs to end a statement."""
STARTERS = words(
    """SELECT INSERT UPDATE DELETE MERGE CREATE DROP ALTER EXEC EXECUTE DECLARE SET IF WHILE BEGIN END ELSE PRINT
    TRUNCATE WITH USE RETURN RAISERROR THROW COMMIT ROLLBACK SAVE GRANT REVOKE OPEN FETCH CLOSE DEALLOCATE BULK
    WAITFOR BREAK CONTINUE GOTO"""
)
"""The first words of the statements of T-SQL."""
CHANGING = {"INSERT", "UPDATE", "DELETE", "MERGE", "EXECUTE"}
QUERIES = {"SELECT", "WITH", "SEL"}
_SET_OPERATORS = {"UNION", "INTERSECT", "EXCEPT", "MINUS"}


@lru_cache(maxsize=16)
def _tokenizer_class(dialect: type[Dialect]) -> Any:
    """Return the dialect's tokenizer class without its COMMANDS, whose statements it would return as one text."""
    return type("Tokens", (dialect.tokenizer_class,), {"COMMANDS": set()})


def tokenizer_of(dialect: Dialect) -> Tokenizer:
    """Return a tokenizer for many texts: to create one takes as long as to read a short text."""
    tokenizer: Tokenizer = _tokenizer_class(type(dialect))(dialect=dialect)
    return tokenizer


def tokenize(sql: str, tokenizer: Tokenizer) -> list[Token]:
    """Return the tokens of ``sql``; raises ``TokenError``."""
    tokens = tokenizer.tokenize(sql)
    if tokens and tokens[0].token_type is TokenType.HIVE_TOKEN_STREAM:  # a mark of Athena's
        del tokens[0]
    return tokens


def word(tokens: Tokens, index: int = 0) -> str:
    """Return a token's text in capitals; "" for quoted text, and after the last token."""
    if index >= len(tokens) or tokens[index].token_type in (TokenType.STRING, TokenType.IDENTIFIER):
        return ""
    return str(tokens[index].text).split(" ", 1)[0].upper()  # sqlglot has tokens of two words, such as UNLOCK TABLES


def as_select(expression: Tokens) -> Tokens:
    """Return ``SELECT expression``, at the place of the expression."""
    first = expression[0]
    select = Token(TokenType.SELECT, "SELECT", line=first.line, col=first.col, start=first.start, end=first.start)
    return [select, *expression]


def starts_line(tokens: Tokens, index: int) -> bool:
    """Return whether a token is the first one of its line."""
    return index == 0 or tokens[index].line > tokens[index - 1].line


def opens_parenthesis(tokens: Tokens, index: int) -> bool:
    """Return whether the token at ``index``, which may be after the last one, is an opening parenthesis."""
    return index < len(tokens) and tokens[index].token_type is TokenType.L_PAREN


def depths(tokens: Tokens, start: int = 0) -> Iterator[tuple[int, int]]:
    """Yield the index of each token from ``start``, and the number of parentheses that are open after it."""
    depth = 0
    for index in range(start, len(tokens)):
        kind = tokens[index].token_type
        depth += (kind is TokenType.L_PAREN) - (kind is TokenType.R_PAREN)
        yield index, depth


def closing(tokens: Tokens, index: int) -> int:
    """Return the index of the parenthesis that closes the one at ``index``; the number of tokens if none does."""
    return next((place for place, depth in depths(tokens, index) if depth == 0), len(tokens))


def parenthesised(tokens: Tokens) -> Iterator[Tokens]:
    """Yield the queries in parentheses, and the query that a cursor is declared for."""
    index = 0
    while index < len(tokens):
        if opens_parenthesis(tokens, index) and _begins_query(tokens, index + 1):
            end = closing(tokens, index)
            yield tokens[index + 1 : end]
            index = end
        elif index and word(tokens, index) in QUERIES and word(tokens, index - 1) in {"FOR", "IS", "DEFAULT", "IN"}:
            yield tokens[index:]
            return
        index += 1


def _begins_query(tokens: Tokens, index: int) -> bool:
    """Return whether a query begins at ``index``, which may be one in parentheses only if others are joined to it.

    ``((SELECT max(a) FROM b) + 1)`` is a calculation: the query in it has parentheses of its own.
    """
    if not opens_parenthesis(tokens, index):
        return word(tokens, index) in QUERIES
    if not _begins_query(tokens, index + 1):
        return False
    end = closing(tokens, index) + 1
    return word(tokens, end) in {*_SET_OPERATORS, ")"}
