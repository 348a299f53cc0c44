"""The effects of each statement of a text, in order. A statement is read by its wording or from its syntax tree."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError, TokenError
from sqlglot.tokenizer_core import Token, TokenType

from crosswind.tasks.sql.definitions import created, dropped
from crosswind.tasks.sql.effects import Effect, EffectKind
from crosswind.tasks.sql.lexing import T_SQL, Tokens, as_select, parenthesised, tokenize, word
from crosswind.tasks.sql.names import HOLE, Parts, TableNames
from crosswind.tasks.sql.phrases import (
    FALLBACK_FIRST_WORDS,
    IGNORED,
    NAME,
    PhraseMatch,
    match_phrase,
    phrase_words,
    words,
)
from crosswind.tasks.sql.repairs import repaired
from crosswind.tasks.sql.scopes import base_of, nodes_of, reads_in
from crosswind.tasks.sql.script_control import assigned_value, begins_block, is_control, peel, reads_without_select
from crosswind.tasks.sql.splitting import chunks, defines, defines_type, line_starts, without_top
from crosswind.tasks.sql.text import BATCH_END, TOO_DEEP, nests_deeply, rough_pieces, without_comments
from crosswind.tasks.sql.writers import KNOWN, effects_of

__all__ = ["effects_in"]

_MAX_NESTING = 4
_MAX_STARTS = 50
"""The number of lines, each with a word that may begin a statement of T-SQL, that one statement may have.

Without a limit, a statement that sqlglot cannot parse is parsed again up to each line of the rest of a long file.
"""
_PG = {"postgres", "redshift"}
_VERBS = words(
    """SELECT INSERT UPDATE DELETE MERGE CREATE REPLACE WITH DROP ALTER TRUNCATE EXPLAIN DECLARE COMMIT REFRESH GRANT
    VALUES COPY LOAD UNLOAD EXECUTE"""
)
_REPORTING = words("EXPLAIN DESCRIBE DESC SHOW GRANT REVOKE DENY AUDIT NOAUDIT COMMENT ANALYZE HELP")
"""Statements that may contain a query, or the name of a privilege such as SELECT, and do not run it."""
_ARGUMENTS = re.compile(r"Required keyword|number of provided arguments")
"""Errors of sqlglot about a function that has other arguments in its view, which does not change the tables read."""
_OUTPUT = re.compile(
    rf"\bOUTPUT\b(?:(?!\bINTO\b|\bWHERE\b|\bFROM\b|\bVALUES\b|\bSELECT\b).)*\bINTO\s+(?P<name>@\w+|{NAME}(?<!\)))"
    r"(?:\s*\([^()]*\))?",
    re.IGNORECASE | re.DOTALL,
)
"""The second target of a statement of T-SQL, for statements that sqlglot cannot parse."""
_EXECUTES = re.compile(r"\A(\s*INSERT\b.*?)\b(?:EXEC|EXECUTE|CALL)\b", re.IGNORECASE | re.DOTALL)


def effects_in(sql: str, names: TableNames, *, nesting: int = 0) -> Iterator[list[Effect]]:
    """Yield the effects of each statement of ``sql``, which has no template and no comment of a client left."""
    if nests_deeply(sql):
        yield [_unknown(0, TOO_DEEP)]
        return
    try:
        tokens = tokenize(sql, names.tokenizer)
    except (TokenError, RecursionError) as error:
        pieces = [*rough_pieces(sql)]
        if len(pieces) > 1:
            for lines, piece in pieces:
                for effects in effects_in(piece, names, nesting=nesting):
                    yield [replace(effect, line=effect.line + lines) if effect.line else effect for effect in effects]
        else:
            yield [_unknown(len(sql) - len(sql.lstrip("\n")) + 1, _plain(error))]
        return
    yield from _StatementReader(sql, names, nesting).effects(tokens)


def _unknown(line: int, reason: str, *, fatal: bool = False) -> Effect:
    return Effect(EffectKind.UNKNOWN, (), line, (), reason, fatal)


def _never_fatal(effects: Iterable[Effect]) -> list[Effect]:
    """Return the effects of statements within a script, which one of them does not make a text that is no SQL."""
    return [replace(effect, fatal=False) if effect.fatal else effect for effect in effects]


def _plain(error: Exception) -> str:
    """Return the reason of a parser's error in one line without colours."""
    if isinstance(error, RecursionError):
        return TOO_DEEP
    details = getattr(error, "errors", None) or [{}]
    reason = details[0].get("description") or str(error).splitlines()[0]
    return re.sub(r"\x1b\[\d*m", "", str(reason))


class _StatementReader:
    """Reads the statements of one text. ``nesting``: the number of texts that contain it, such as literals."""

    def __init__(self, sql: str, names: TableNames, nesting: int) -> None:
        self.sql, self.names, self.nesting = sql, names, nesting
        self.in_block = names.in_script
        """Whether the statements may be calls without CALL and assignments, as in a block that has begun before."""

    def effects(self, tokens: Tokens) -> Iterator[list[Effect]]:
        """Yield the effects of each statement of the text."""
        in_declarations = False
        for chunk in chunks(tokens, self.names.name):
            if chunk[0].text == BATCH_END:
                in_declarations, self.in_block = False, self.names.in_script
                continue
            first = word(chunk)
            in_declarations = self._declares() and first != "BEGIN" and (in_declarations or first == "DECLARE")
            self.in_block = self.in_block or in_declarations or begins_block(chunk)
            if in_declarations:
                yield self._control(chunk)
                continue
            for statement in [chunk] if defines(chunk) else peel(chunk, self.names.name):
                for effects in self.read(statement):
                    yield _never_fatal(effects) if self.in_block else effects

    def read(self, tokens: Tokens) -> Iterator[list[Effect]]:
        """Yield the effects of a statement, or of several in T-SQL, where no sign needs to end one."""
        if self.names.name not in T_SQL or defines(tokens):
            yield self.statement(tokens)
            return
        starts = [*line_starts(tokens), len(tokens)]
        place = 0
        while place < len(starts) - 1:
            place, effects = self._first_statements(tokens, starts, place)
            yield from effects

    def _first_statements(self, tokens: Tokens, starts: list[int], place: int) -> tuple[int, list[list[Effect]]]:
        """Return the place of the first start up to which the tokens can be read, or the last one, and the effects."""
        last = len(starts) - 1
        for end in [*range(place + 1, min(place + _MAX_STARTS, last)), last]:
            parts = peel(tokens[starts[place] : starts[end]], self.names.name)
            effects = [self.statement(part, whole=True) for part in parts]
            if not any(effect.action is EffectKind.UNKNOWN for part in effects for effect in part):
                break
        return end, effects

    def _declares(self) -> bool:
        """Return whether DECLARE begins a list of declarations, which ends at BEGIN."""
        return self.names.name in {"oracle", "snowflake"} or (self.names.in_script and self.names.name in _PG)

    def statement(self, tokens: Tokens, *, whole: bool = False) -> list[Effect]:
        """Return the effects of one statement. ``whole``: a tree that may be the first half of one is unknown."""
        first = word(tokens)
        if defines(tokens):
            return self._definition(tokens)
        if defines_type(tokens):
            return []
        early = first not in FALLBACK_FIRST_WORDS or word(tokens, 1) == "FROM"  # COPY FROM DATABASE
        if first in phrase_words() and early and (effects := self._by_phrase(tokens)) is not None:
            return effects
        if first in IGNORED:
            return self._nothing(tokens)
        if is_control(tokens) or (self.in_block and assigned_value(tokens, in_block=True) is not None):
            return self._control(tokens)
        return self._parsed(tokens, whole)

    def _control(self, tokens: Tokens) -> list[Effect]:
        """Return the effects of a control statement, in which only queries read tables."""
        value = tokens[1:] if word(tokens) == "PERFORM" else assigned_value(tokens, in_block=self.in_block)
        if value and reads_without_select(value):
            return _never_fatal(self._parsed(as_select(value), False))
        hides = not value and word(tokens) not in {"FETCH", "MOVE"} and reads_without_select(tokens)
        return [*self._queries(tokens), *([Effect(EffectKind.HIDDEN)] if hides else [])]

    def _nothing(self, tokens: Tokens) -> list[Effect]:
        """Return no effects, unless a query in the statement shows that it may do more than its first word implies."""
        texts = [word(tokens, index) for index in range(1, len(tokens))]
        if word(tokens) in _REPORTING or "SELECT" not in texts or "FROM" not in texts[texts.index("SELECT") :]:
            return []
        return [self._not_read(tokens, None)]

    def _by_phrase(self, tokens: Tokens) -> list[Effect] | None:
        plpgsql = self.names.in_script and self.names.name in {"postgres", "redshift"} and word(tokens) == "EXECUTE"
        match = match_phrase(self._text(tokens), word(tokens), "plpgsql" if plpgsql else self.names.name)
        return None if match is None else list(self._phrase(match, tokens))

    def _text(self, tokens: Tokens) -> str:
        return without_comments(self.sql[tokens[0].start : tokens[-1].end + 1])

    def _queries(self, tokens: Tokens) -> list[Effect]:
        return _never_fatal(effect for query in parenthesised(tokens) for effect in self._parsed(query, False))

    def _definition(self, tokens: Tokens) -> list[Effect]:
        """Return the effects of a function for the session, which this file calls; others run elsewhere."""
        if {word(tokens, index) for index in range(1, 6)} & {"TEMP", "TEMPORARY"}:
            try:
                tree = self._tree(tokens, self.sql)
            except (SqlglotError, RecursionError):
                return self._queries(tokens)
            return effects_of(tree, self.names) if isinstance(tree, exp.Create) else self._queries(tokens)
        return []

    def _tree(self, tokens: Tokens, sql: str) -> exp.Expr | None:
        """Return the syntax tree; raises ``SqlglotError`` or ``RecursionError`` if the statement has none."""
        try:
            return self._parse(tokens, sql)
        except (SqlglotError, RecursionError):
            raise
        except Exception as error:  # on damaged text, sqlglot's own code raises TypeError, UnboundLocalError, …
            raise ParseError(f"no known syntax: {type(error).__name__}") from error

    def _parse(self, tokens: Tokens, sql: str) -> exp.Expr | None:
        tokens = without_top(tokens) if self.names.name in T_SQL else tokens
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
        """Return the effects of a statement from its syntax tree, or from that of another form of it."""
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
        """Return the effects of a statement that sqlglot cannot parse, from the first other form that it can."""
        text, line = self._text(tokens), tokens[0].line
        for attempt in (self._repaired, self._with_output, self._with_call):
            if (effects := attempt(text, line)) is not None:
                return effects
        first = word(tokens)
        if first in FALLBACK_FIRST_WORDS and (effects := self._by_phrase(tokens)) is not None:
            return effects
        if first in {"CREATE", "REPLACE"}:
            return created(text, line, self.names, self._query) or [self._not_read(tokens, error)]
        if first == "DROP":
            return dropped(text, line, self.names)
        if first == "ALTER" or (first == "LOAD" and word(tokens, 1) not in {"DATA", "XML"}):
            return self._nothing(tokens)  # all that change the content of a table are phrases
        return [self._not_read(tokens, error)]

    def _repaired(self, text: str, line: int) -> list[Effect] | None:
        for form in repaired(text, self.names.name):
            if (effects := self._from_text(form, line)) is not None:
                return [*effects, *([Effect(EffectKind.HIDDEN)] if HOLE in text else [])]
        return None

    def _with_output(self, text: str, line: int) -> list[Effect] | None:
        """Read ``INSERT … OUTPUT … INTO second`` without its OUTPUT clause."""
        output = _OUTPUT.search(text) if self.names.name in T_SQL else None
        if output is None:
            return None
        rest = text[: output.start()] + "\n" * output[0].count("\n") + " " + text[output.end() :]
        effects, second = self._from_text(rest, line), output["name"]
        if effects is None or second.startswith("@"):  # a variable of the session
            return effects
        return [*effects, Effect(EffectKind.CHANGE, self._parts(second), line)]

    def _with_call(self, text: str, line: int) -> list[Effect] | None:
        """Read ``INSERT … EXECUTE procedure`` with a query in place of the call."""
        call = _EXECUTES.match(text)
        if call is None:
            return None
        return [*(self._from_text(f"{call[1]} SELECT 1", line) or []), Effect(EffectKind.HIDDEN)]

    def _from_text(self, text: str, line: int) -> list[Effect] | None:
        """Return the effects of a statement that is given as text; None if sqlglot cannot parse it."""
        sql = "\n" * (line - 1) + text
        try:
            tree = self._tree(tokenize(sql, self.names.tokenizer), sql)
        except (SqlglotError, RecursionError):
            return None
        known = isinstance(tree, KNOWN) and not isinstance(tree, exp.Command)
        return effects_of(tree, self.names) if known and tree is not None else None

    def _not_read(self, tokens: Tokens, error: Exception | None) -> Effect:
        first, line = str(tokens[0].text).upper(), tokens[0].line
        if error is None:
            return _unknown(line, f"a statement {first[:40]} that is not understood")
        if first not in _VERBS and (suggestions := difflib.get_close_matches(first, _VERBS, 1, 0.75)):
            return _unknown(
                line, f"this is no query: no statement begins with {first}; did you mean {suggestions[0]}?", fatal=True
            )
        details = getattr(error, "errors", None) or [{}]
        return _unknown(int(details[0].get("line") or line), _plain(error))

    def _no_statement(self, tokens: Tokens, tree: exp.Expr, line: int) -> list[Effect]:
        text = self._text(tokens).strip()
        if HOLE in text.lower():
            if (
                text.lower() != HOLE
                and (effects := self._again(tokens, None))
                and effects[0].action is not EffectKind.UNKNOWN
            ):
                return effects
            return [_unknown(line, "a template makes this statement when the task runs")]
        if isinstance(tree, exp.Anonymous | exp.Dot) and (self.names.name == "oracle" or self.in_block):
            return [Effect(EffectKind.HIDDEN)]
        if isinstance(tree, exp.Column) and self.in_block:  # a call of Oracle's without arguments
            return [Effect(EffectKind.HIDDEN)]
        suggestions = difflib.get_close_matches(text.partition(" ")[0].upper(), _VERBS, 1, 0.7)
        mean = f"; did you mean {suggestions[0]}?" if suggestions else "; begin with SELECT, INSERT, CREATE or the like"
        shown = " ".join(text.split())[:60]
        return [_unknown(line, f"this is no query: {shown}{mean}", fatal=True)]

    def _query(self, text: str, line: int) -> list[Effect]:
        """Return the effects of a query that is part of another statement."""
        sql = "\n" * (line - 1) + text
        try:
            tokens = tokenize(sql, self.names.tokenizer)
        except (TokenError, RecursionError) as error:
            return [_unknown(line, _plain(error))]
        return _StatementReader(sql, self.names, self.nesting).statement(tokens) if tokens else []

    def _tokens(self, text: str, line: int) -> Tokens:
        self.sql = "\n" * (line - 1) + text
        return tokenize(self.sql, self.names.tokenizer)

    def _phrase(self, match: PhraseMatch, tokens: Tokens) -> Iterator[Effect]:
        """Yield the effects of a phrase on its parts."""
        text = self._text(tokens)
        lines = {name: tokens[0].line + text.count("\n", 0, at) for name, (_, at) in match.parts.items()}
        texts = {name: value for name, (value, _) in match.parts.items()}
        for verb, *parts in match.effects:
            values = [texts.get(part, part) for part in parts]
            line = lines.get(parts[0], tokens[0].line) if parts else tokens[0].line
            if verb == "schema" and parts == ["s.t"]:
                yield Effect(EffectKind.USE_SCHEMA, self._parts(f"{texts['s']}.{texts['t']}"), line)
            elif verb in _EFFECTS_OF_VERBS:
                yield from _EFFECTS_OF_VERBS[verb](self._parts, values, line)
            else:
                yield from self._inner_sql(verb, values, tokens, line)

    def _inner_sql(self, verb: str, values: list[str], tokens: Tokens, line: int) -> Iterable[Effect]:
        """Return the effects of the SQL that a phrase contains."""
        match verb:
            case "queries":
                return self._queries(self._tokens(values[0], line) if values else tokens)
            case "query":
                return self._query(values[0], line)
            case "through":
                return self._through(values[0], line)
            case "literal":
                return self._nested(_unquoted(values[0]), line)
            case "dynamic":
                return [_unknown(line, f"{word(tokens)} runs SQL that is composed at run time")]
        return []

    def _nested(self, sql: str, line: int) -> Iterator[Effect]:
        """Yield the effects of a text that is a literal of this text."""
        if self.nesting >= _MAX_NESTING:
            yield _unknown(line, TOO_DEEP)
            return
        for effects in effects_in("\n" * (line - 1) + sql, self.names.as_script(), nesting=self.nesting + 1):
            yield from effects

    def _through(self, query: str, line: int) -> Iterator[Effect]:
        """Yield the effects of ``UPDATE (query) SET``: it changes the query's first table and reads the others."""
        tree = None
        for form in (query, *repaired(query, self.names.name)):
            sql = "\n" * (line - 1) + form
            try:
                tree = self._tree(tokenize(sql, self.names.tokenizer), sql)
                break
            except (SqlglotError, RecursionError):
                continue
        if tree is None:
            yield _unknown(line, "a query to write through that is not understood")
            return
        base = base_of(tree)
        if tree is not None and base is not None:
            yield from reads_in(nodes_of(tree), self.names, {id(base)})
            yield Effect(EffectKind.CHANGE, self.names.parts(base), line)

    def _parts(self, name: str) -> Parts:
        """Return the parts of a name that is given as text, with or without quotes."""
        plain = name[1:-1] if name.startswith("'") else name
        try:
            return self.names.parts(self.names.table(plain))
        except (SqlglotError, ValueError):
            return ()


def _half(tree: exp.Expr) -> bool:
    """Return whether a tree may be only the first half of a statement, which continues on the next line."""
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
    """Return the content of a literal."""
    for pattern in (_DOLLAR_QUOTED, _TRIPLE_QUOTED):
        if match := pattern.match(text):
            return match[2]
    if text[0] in "qQ":  # Oracle: q'[…]'
        return text[3:-2]
    quote = text.lstrip("Nn")[0]
    content = text[text.index(quote) + 1 : -1]
    return content.replace(quote * 2, quote)


_DOLLAR_QUOTED = re.compile(r"\$(\w*)\$(.*)\$\1\$\Z", re.DOTALL)
_TRIPLE_QUOTED = re.compile(r"[rR]?(\"{3}|'{3})(.*)\1\Z", re.DOTALL)

_PartsOf = Callable[[str], Parts]


def _on(action: EffectKind) -> Callable[[_PartsOf, list[str], int], Iterator[Effect]]:
    def effects(parts: _PartsOf, values: list[str], line: int) -> Iterator[Effect]:
        yield Effect(action, parts(values[0]), line, parts(values[1]) if len(values) > 1 else ())

    return effects


def _moves(parts: _PartsOf, values: list[str], line: int) -> Iterator[Effect]:
    """Yield the effect of ``ALTER TABLE a SET SCHEMA s``."""
    old = parts(values[0])
    yield Effect(EffectKind.RENAME, old, line, (*parts(values[1]), *old[-1:]))


def _renames(parts: _PartsOf, values: list[str], line: int) -> Iterator[Effect]:
    """Yield the effects of ``RENAME TABLE a TO b, c TO d``."""
    for pair in values[0].split(","):
        names = re.split(r"\s+(?:TO|AS)\s+", pair.strip(), flags=re.IGNORECASE)
        if len(names) == 2:
            yield Effect(EffectKind.RENAME, parts(names[0]), line, parts(names[1].split()[0]))


def _sp_rename(parts: _PartsOf, values: list[str], line: int) -> Iterator[Effect]:
    old, new = _unquoted(values[0]), _unquoted(values[1])
    yield Effect(EffectKind.RENAME, parts(old), line, parts(f'"{new}"' if "[" not in new else new))


def _path(parts: _PartsOf, values: list[str], line: int) -> Iterator[Effect]:
    """Yield the change to the first schema of a search path that can contain tables."""
    for schema in re.split(r"\s*,\s*", values[0]):
        name = parts(schema)
        if name and name[-1] not in {"$user", "pg_catalog", "pg_temp"}:
            yield Effect(EffectKind.USE_SCHEMA, name, line)
            return


def _hidden(_parts: _PartsOf, _values: list[str], _line: int) -> Iterator[Effect]:
    yield Effect(EffectKind.HIDDEN)


def _reset(_parts: _PartsOf, _values: list[str], _line: int) -> Iterator[Effect]:
    yield Effect(EffectKind.RESET)


_EFFECTS_OF_VERBS: dict[str, Callable[[_PartsOf, list[str], int], Iterator[Effect]]] = {
    "read": _on(EffectKind.READ),
    "make": _on(EffectKind.MAKE),
    "change": _on(EffectKind.CHANGE),
    "refresh": _on(EffectKind.CHANGE),
    "rename": _on(EffectKind.RENAME),
    "swap": _on(EffectKind.SWAP),
    "schema": _on(EffectKind.USE_SCHEMA),
    "catalog": _on(EffectKind.USE_CATALOG),
    "move": _moves,
    "renames": _renames,
    "sp_rename": _sp_rename,
    "path": _path,
    "hidden": _hidden,
    "reset": _reset,
}
