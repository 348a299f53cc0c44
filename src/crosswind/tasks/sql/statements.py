"""What each statement of a text does, in order: split, read by wording or as a syntax tree, and told as effects."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator

from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError, TokenError
from sqlglot.tokenizer_core import Token, TokenType

from crosswind.tasks.sql.definitions import created, dropped
from crosswind.tasks.sql.effects import Did, Effect
from crosswind.tasks.sql.names import HOLE, Names, Parts
from crosswind.tasks.sql.phrases import IGNORED, LATE, NAME, Match, match_phrase, phrase_words, words
from crosswind.tasks.sql.repairs import repaired
from crosswind.tasks.sql.scopes import base_of, reads_in
from crosswind.tasks.sql.splitting import (
    Tokens,
    chunks,
    defines,
    is_control,
    line_starts,
    parenthesised,
    peel,
    tokenize,
    without_top,
    word,
)
from crosswind.tasks.sql.text import BATCH_END, TOO_DEEP, nests_deeply, rough_pieces, without_comments
from crosswind.tasks.sql.writers import KNOWN, effects_of

__all__ = ["effects_in"]

_MAX_NESTING = 4
_UNENDED = {"tsql", "fabric"}
_PG = {"postgres", "redshift"}
_VERBS = words(
    """SELECT INSERT UPDATE DELETE MERGE CREATE REPLACE WITH DROP ALTER TRUNCATE EXPLAIN DECLARE COMMIT REFRESH GRANT
    VALUES COPY LOAD UNLOAD EXECUTE"""
)
_TELLING = words("EXPLAIN DESCRIBE DESC SHOW GRANT REVOKE DENY AUDIT NOAUDIT COMMENT ANALYZE HELP")
"""Statements that may hold a query, or the word for one, and do not run it."""
_ARGUMENTS = re.compile(r"Required keyword|number of provided arguments")
"""sqlglot knows another function of that name; how many arguments one has does not change which tables are read."""
_OUTPUT = re.compile(
    rf"\bOUTPUT\b(?:(?!\bINTO\b|\bWHERE\b|\bFROM\b|\bVALUES\b|\bSELECT\b).)*\bINTO\s+(?P<name>@\w+|{NAME}(?<!\)))"
    r"(?:\s*\([^()]*\))?",
    re.IGNORECASE | re.DOTALL,
)
"""T-SQL's second target. Matched only where sqlglot does not take it."""
_EXECUTES = re.compile(r"\A(\s*INSERT\b.*?)\b(?:EXEC|EXECUTE|CALL)\b", re.IGNORECASE | re.DOTALL)


def effects_in(sql: str, names: Names, *, nesting: int = 0) -> Iterator[list[Effect]]:
    """Yield the effects of each statement of ``sql``, in which no template and no comment of a client is left."""
    if nests_deeply(sql):
        yield [_unknown(0, TOO_DEEP)]
        return
    try:
        tokens = tokenize(sql, names.dialect)
    except (TokenError, RecursionError) as error:
        pieces = rough_pieces(sql)
        if len(pieces) > 1:
            for piece in pieces:
                yield from effects_in(piece, names, nesting=nesting)
        else:
            yield [_unknown(len(sql) - len(sql.lstrip("\n")) + 1, _plain(error))]
        return
    reader = _Statements(sql, names, nesting)
    declaring = False
    for chunk in chunks(tokens, names.name):
        if chunk[0].text == BATCH_END:
            declaring = False
            continue
        if (declaring or word(chunk) == "DECLARE") and reader.declares() and word(chunk) != "BEGIN":
            declaring = True
            yield reader.declared(chunk)
            continue
        declaring = False
        for statement in [chunk] if defines(chunk) else peel(chunk, names.name):
            yield from reader.read(statement)


def _unknown(line: int, reason: str, *, fatal: bool = False) -> Effect:
    return Effect(Did.UNKNOWN, (), line, (), reason, fatal)


def _plain(error: Exception) -> str:
    """Return in words why a parser refuses a text."""
    if isinstance(error, RecursionError):
        return TOO_DEEP
    details = getattr(error, "errors", None) or [{}]
    reason = details[0].get("description") or str(error).splitlines()[0]
    return re.sub(r"\x1b\[\d*m", "", str(reason))


class _Statements:
    """Reads the statements of one text. ``nesting``: how many texts in texts it stands in."""

    def __init__(self, sql: str, names: Names, nesting: int) -> None:
        self.sql, self.names, self.nesting = sql, names, nesting

    def read(self, tokens: Tokens) -> Iterator[list[Effect]]:
        """Yield the effects of a statement, or of several in T-SQL, where nothing needs to end one."""
        if self.names.name not in _UNENDED or defines(tokens):
            yield self.one(tokens)
            return
        starts = [*line_starts(tokens), len(tokens)]
        begin = 0
        while begin < len(tokens):
            for end in (start for start in starts if start > begin):
                piece = tokens[begin:end]
                parts = list(peel(piece, self.names.name))
                done = [self.one(part, whole=True) for part in parts]
                if end == len(tokens) or not any(effect.did is Did.UNKNOWN for one in done for effect in one):
                    yield from done
                    begin = end
                    break

    def declares(self) -> bool:
        """Whether DECLARE begins a list of variables that goes on to BEGIN."""
        return self.names.name in {"oracle", "snowflake"} or (self.names.in_script and self.names.name in _PG)

    def declared(self, tokens: Tokens) -> list[Effect]:
        """Return what the declarations of a block read."""
        return self._queries(tokens)

    def one(self, tokens: Tokens, *, whole: bool = False) -> list[Effect]:
        """Return what one statement does. ``whole``: what may be the first half of a statement counts as unknown."""
        first = word(tokens)
        if defines(tokens):
            return self._definition(tokens)
        early = first not in LATE or word(tokens, 1) == "FROM"  # COPY FROM DATABASE
        if first in phrase_words() and early and (effects := self._by_phrase(tokens)) is not None:
            return effects
        if first in IGNORED:
            return self._nothing(tokens)
        if is_control(tokens):
            return self._queries(tokens)
        return self._parsed(tokens, whole)

    def _nothing(self, tokens: Tokens) -> list[Effect]:
        """Nothing, unless a query in the statement shows that more may be meant than its first word says."""
        said = [word(tokens, index) for index in range(1, len(tokens))]
        if word(tokens) in _TELLING or "SELECT" not in said or "FROM" not in said[said.index("SELECT") :]:
            return []
        return [self._not_read(tokens, None)]

    def _by_phrase(self, tokens: Tokens) -> list[Effect] | None:
        plpgsql = self.names.in_script and self.names.name in {"postgres", "redshift"} and word(tokens) == "EXECUTE"
        match = match_phrase(self._text(tokens), word(tokens), "plpgsql" if plpgsql else self.names.name)
        return None if match is None else list(self._phrase(match, tokens))

    def _text(self, tokens: Tokens) -> str:
        return without_comments(self.sql[tokens[0].start : tokens[-1].end + 1])

    def _queries(self, tokens: Tokens) -> list[Effect]:
        return [effect for query in parenthesised(tokens) for effect in self._parsed(query, False)]

    def _definition(self, tokens: Tokens) -> list[Effect]:
        """A function for the session reads when it is called, in this file; others run elsewhere."""
        if {word(tokens, index) for index in range(1, 6)} & {"TEMP", "TEMPORARY"}:
            try:
                tree = self._tree(tokens, self.sql)
            except (SqlglotError, RecursionError):
                return self._queries(tokens)
            return effects_of(tree, self.names) if isinstance(tree, exp.Create) else self._queries(tokens)
        return []

    def _tree(self, tokens: Tokens, sql: str) -> exp.Expr | None:
        """Return the syntax tree; raises ``SqlglotError`` or ``RecursionError`` where there is none."""
        try:
            return self._parse(tokens, sql)
        except (SqlglotError, RecursionError):
            raise
        except Exception as error:  # on damaged text, sqlglot's own code raises TypeError, UnboundLocalError, …
            raise ParseError(f"no syntax that is known: {type(error).__name__}") from error

    def _parse(self, tokens: Tokens, sql: str) -> exp.Expr | None:
        tokens = without_top(tokens) if self.names.name in _UNENDED else tokens
        try:
            trees = self.names.parser.parse(list(tokens), sql)
        except ParseError as error:
            if self.names.name == "athena" and tokens[0].token_type is not TokenType.HIVE_TOKEN_STREAM:
                return self._tree([Token(TokenType.HIVE_TOKEN_STREAM, ""), *tokens], sql)
            if not _ARGUMENTS.search(str(error)):
                raise
            trees = self.names.lenient.parse(list(tokens), sql)
            if self.names.lenient.errors:
                raise
        return next((tree for tree in trees if tree is not None), None)

    def _parsed(self, tokens: Tokens, whole: bool) -> list[Effect]:
        """Read a statement as a syntax tree, in another form if need be."""
        line = tokens[0].line
        try:
            tree = self._tree(tokens, self.sql)
        except (SqlglotError, RecursionError) as error:
            return self._again(tokens, error)
        if tree is None:
            return []
        if isinstance(tree, exp.Command) or (whole and _half(tree)):
            return self._again(tokens, None)
        if isinstance(tree, KNOWN):
            return effects_of(tree, self.names)
        return self._no_statement(tokens, tree, line)

    def _again(self, tokens: Tokens, error: Exception | None) -> list[Effect]:
        text, line = self._text(tokens), tokens[0].line
        for other in repaired(text, self.names.name):
            if (effects := self._from_text(other, line)) is not None:
                return [*effects, *([Effect(Did.HIDDEN)] if HOLE in text else [])]
        if self.names.name in _UNENDED and (output := _OUTPUT.search(text)):
            rest = text[: output.start()] + "\n" * output[0].count("\n") + " " + text[output.end() :]
            if (effects := self._from_text(rest, line)) is not None:
                second = output["name"]
                return effects if second[0] == "@" else [*effects, Effect(Did.CHANGE, self._parts(second), line)]
        if executes := _EXECUTES.match(text):
            effects = self._from_text(f"{executes[1]} SELECT 1", line)
            return [*(effects or []), Effect(Did.HIDDEN)]
        first = word(tokens)
        if first in LATE and (effects := self._by_phrase(tokens)) is not None:
            return effects
        if first in {"CREATE", "REPLACE"}:
            return created(text, line, self.names, self._query) or [self._not_read(tokens, error)]
        if first == "DROP":
            return dropped(text, line, self.names)
        if first == "ALTER" or (first == "LOAD" and word(tokens, 1) not in {"DATA", "XML"}):
            return self._nothing(tokens)  # what no phrase lists changes how a table is kept, not what is in it
        return [self._not_read(tokens, error)]

    def _from_text(self, text: str, line: int) -> list[Effect] | None:
        """Return what a statement given as text does; None if it cannot be read as a syntax tree."""
        sql = "\n" * (line - 1) + text
        try:
            tree = self._tree(tokenize(sql, self.names.dialect), sql)
        except (SqlglotError, RecursionError):
            return None
        known = isinstance(tree, KNOWN) and not isinstance(tree, exp.Command)
        return effects_of(tree, self.names) if known and tree is not None else None

    def _not_read(self, tokens: Tokens, error: Exception | None) -> Effect:
        first, line = str(tokens[0].text).upper(), tokens[0].line
        if error is None:
            return _unknown(line, f"a statement {first[:40]} that is not understood")
        if first not in _VERBS and (near := difflib.get_close_matches(first, _VERBS, 1, 0.75)):
            return _unknown(
                line, f"this is no query: no statement begins with {first}; did you mean {near[0]}?", fatal=True
            )
        details = getattr(error, "errors", None) or [{}]
        return _unknown(int(details[0].get("line") or line), _plain(error))

    def _no_statement(self, tokens: Tokens, tree: exp.Expr, line: int) -> list[Effect]:
        text = self._text(tokens).strip()
        if HOLE in text.lower():
            if text.lower() != HOLE and (effects := self._again(tokens, None)) and effects[0].did is not Did.UNKNOWN:
                return effects
            return [_unknown(line, "a template makes this statement when the task runs")]
        if isinstance(tree, exp.Anonymous | exp.Dot) and (self.names.name == "oracle" or self.names.in_script):
            return [Effect(Did.HIDDEN)]
        near = difflib.get_close_matches(text.partition(" ")[0].upper(), _VERBS, 1, 0.7)
        mean = f"; did you mean {near[0]}?" if near else "; begin with SELECT, INSERT, CREATE or the like"
        shown = " ".join(text.split())[:60]
        return [_unknown(line, f"this is no query: {shown}{mean}", fatal=True)]

    def _query(self, text: str, line: int) -> list[Effect]:
        """Return what a query reads that is part of another statement."""
        sql = "\n" * (line - 1) + text
        try:
            tokens = tokenize(sql, self.names.dialect)
        except (TokenError, RecursionError) as error:
            return [_unknown(line, _plain(error))]
        return _Statements(sql, self.names, self.nesting).one(tokens) if tokens else []

    def _tokens(self, text: str, line: int) -> Tokens:
        self.sql = "\n" * (line - 1) + text
        return tokenize(self.sql, self.names.dialect)

    def _phrase(self, match: Match, tokens: Tokens) -> Iterator[Effect]:
        """Yield what a phrase does with its parts."""
        text = self._text(tokens)
        lines = {name: tokens[0].line + text.count("\n", 0, at) for name, (_, at) in match.parts.items()}
        said = {name: value for name, (value, _) in match.parts.items()}
        for verb, *parts in match.effects:
            values = [said.get(part, part) for part in parts]
            line = lines.get(parts[0], tokens[0].line) if parts else tokens[0].line
            if verb == "queries":
                yield from self._queries(self._tokens(values[0], line) if parts else tokens)
            elif verb == "query":
                yield from self._query(values[0], line)
            elif verb == "through":
                yield from self._through(values[0], line)
            elif verb == "literal":
                yield from self._nested(_unquoted(values[0]), line)
            elif verb == "schema" and parts == ["s.t"]:
                yield Effect(Did.USE_SCHEMA, self._parts(f"{said['s']}.{said['t']}"), line)
            elif verb == "dynamic":
                yield _unknown(line, f"{word(tokens)} runs SQL that is put together when it runs")
            elif verb != "nothing":
                yield from _VERBS_OF_PHRASES[verb](self._parts, values, line)

    def _nested(self, sql: str, line: int) -> Iterator[Effect]:
        """Yield what a text inside of the text does."""
        if self.nesting >= _MAX_NESTING:
            yield _unknown(line, TOO_DEEP)
            return
        for effects in effects_in("\n" * (line - 1) + sql, self.names.as_script(), nesting=self.nesting + 1):
            yield from effects

    def _through(self, query: str, line: int) -> Iterator[Effect]:
        """``UPDATE (query) SET``: the first table of the query is changed, the others are read."""
        tree = None
        for form in (query, *repaired(query, self.names.name)):
            sql = "\n" * (line - 1) + form
            try:
                tree = self._tree(tokenize(sql, self.names.dialect), sql)
                break
            except (SqlglotError, RecursionError):
                continue
        if tree is None:
            yield _unknown(line, "a query to write through that is not understood")
            return
        base = base_of(tree)
        if tree is not None and base is not None:
            yield from reads_in(tree, self.names, {id(base)})
            yield Effect(Did.CHANGE, self.names.parts(base), line)

    def _parts(self, name: str) -> Parts:
        """Return the parts of a name that is given as text, quoted or not."""
        plain = name[1:-1] if name.startswith("'") else name
        try:
            return self.names.parts(exp.to_table(plain, dialect=self.names.dialect))
        except (SqlglotError, ValueError):
            return ()


def _half(tree: exp.Expr) -> bool:
    """Whether a tree may be only the first half of a statement that goes on in the next line."""
    if isinstance(tree, exp.Insert):
        return tree.args.get("expression") is None and not tree.args.get("default")
    if isinstance(tree, exp.Update):
        return not tree.expressions
    if isinstance(tree, exp.Create):
        return str(tree.args.get("kind")).upper() == "VIEW" and tree.args.get("expression") is None
    if isinstance(tree, exp.Merge):
        whens = tree.args.get("whens")
        return whens is None or any(when.args.get("then") is None for when in whens.expressions)
    return False


def _unquoted(text: str) -> str:
    """Return what a literal holds."""
    if found := re.match(r"\$(\w*)\$(.*)\$\1\$\Z", text, re.DOTALL):
        return found[2]
    if found := re.match(r"[rR]?(\"{3}|'{3})(.*)\1\Z", text, re.DOTALL):
        return found[2]
    if text[0] in "qQ":  # Oracle: q'[…]'
        return text[3:-2]
    quote = text.lstrip("Nn")[0]
    inner = text[text.index(quote) + 1 : -1]
    return inner.replace(quote * 2, quote)


_PartsOf = Callable[[str], Parts]


def _on(did: Did) -> Callable[[_PartsOf, list[str], int], Iterator[Effect]]:
    def effects(parts: _PartsOf, values: list[str], line: int) -> Iterator[Effect]:
        yield Effect(did, parts(values[0]), line, parts(values[1]) if len(values) > 1 else ())

    return effects


def _moves(parts: _PartsOf, values: list[str], line: int) -> Iterator[Effect]:
    """``ALTER TABLE a SET SCHEMA s``."""
    old = parts(values[0])
    yield Effect(Did.RENAME, old, line, (*parts(values[1]), *old[-1:]))


def _renames(parts: _PartsOf, values: list[str], line: int) -> Iterator[Effect]:
    """``RENAME TABLE a TO b, c TO d``."""
    for pair in values[0].split(","):
        names = re.split(r"\s+(?:TO|AS)\s+", pair.strip(), flags=re.IGNORECASE)
        if len(names) == 2:
            yield Effect(Did.RENAME, parts(names[0]), line, parts(names[1].split()[0]))


def _sp_rename(parts: _PartsOf, values: list[str], line: int) -> Iterator[Effect]:
    old, new = _unquoted(values[0]), _unquoted(values[1])
    yield Effect(Did.RENAME, parts(old), line, parts(f'"{new}"' if "[" not in new else new))


def _path(parts: _PartsOf, values: list[str], line: int) -> Iterator[Effect]:
    """The first schema of a search path that tables can be in."""
    for schema in re.split(r"\s*,\s*", values[0]):
        name = parts(schema)
        if name and name[-1] not in {"$user", "pg_catalog", "pg_temp"}:
            yield Effect(Did.USE_SCHEMA, name, line)
            return


def _nothing_seen(parts: _PartsOf, values: list[str], line: int) -> Iterator[Effect]:
    yield Effect(Did.HIDDEN)


def _sets_back(parts: _PartsOf, values: list[str], line: int) -> Iterator[Effect]:
    yield Effect(Did.RESET)


_VERBS_OF_PHRASES: dict[str, Callable[[_PartsOf, list[str], int], Iterator[Effect]]] = {
    "read": _on(Did.READ),
    "make": _on(Did.MAKE),
    "change": _on(Did.CHANGE),
    "refresh": _on(Did.CHANGE),
    "rename": _on(Did.RENAME),
    "swap": _on(Did.SWAP),
    "schema": _on(Did.USE_SCHEMA),
    "catalog": _on(Did.USE_CATALOG),
    "move": _moves,
    "renames": _renames,
    "sp_rename": _sp_rename,
    "path": _path,
    "hidden": _nothing_seen,
    "reset": _sets_back,
}
