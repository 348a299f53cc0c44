"""The terminal as a screen for a full-screen command: single keys in, changed lines out, and the old state at the end.

Standard library only: termios for keys, ANSI sequences for the screen. ``Terminal`` starts no task; the event loop
calls its callbacks.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import re
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

from crosswind.cli.text_table import Line, ansi, cut_line

__all__ = ["KeyParser", "Terminal"]

_SEQUENCES = {
    "[A": "up",
    "[B": "down",
    "[C": "right",
    "[D": "left",
    "OA": "up",
    "OB": "down",
    "OC": "right",
    "OD": "left",
    "[5~": "pageup",
    "[6~": "pagedown",
    "[H": "home",
    "[F": "end",
    "OH": "home",
    "OF": "end",
    "[1~": "home",
    "[4~": "end",
    "[3~": "delete",
}
_CONTROL = {"\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\x08": "backspace", "\x1b": "escape"}
_SEQUENCE = re.compile(r"\x1b(\[[0-9;]*[A-Za-z~]|O[A-Z])")
_CLEAR = "\x1b[2J\x1b[H"
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", f"{_CLEAR}\x1b[?25h\x1b[?1049l"
"""Alternate screen and hidden cursor, as all full-screen programs use them, and back.

It is cleared before it is left, because tmux keeps some of its lines after a resize.
"""


class KeyParser:
    """Turns the bytes of a terminal into names of keys; a printable character is its own name."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the keys in what one read returned; an escape sequence comes in one piece."""
        text = self._decode(data)
        position = 0
        while position < len(text):
            if match := _SEQUENCE.match(text, position):
                position = match.end()
                if key := _SEQUENCES.get(match[1]):
                    yield key
                continue
            char = text[position]
            position += 1
            if char in _CONTROL:
                yield _CONTROL[char]
            elif char < " ":
                yield f"ctrl-{chr(ord(char) + 96)}"
            else:
                yield char


class Terminal:
    """The user's terminal, taken over within a ``with`` block and restored after it, whatever happens.

    ``on_key`` is called with each key, ``on_resize`` when the size changes. Ctrl-C is a key, not a signal.
    """

    def __init__(self, on_key: Callable[[str], None], on_resize: Callable[[], None]) -> None:
        self._on_key, self._on_resize = on_key, on_resize
        self._input, self._output = sys.stdin.fileno(), sys.stdout.fileno()
        self._keys = KeyParser()
        self._shown: list[str] = []
        self._size = (0, 0)
        self._colours = not os.environ.get("NO_COLOR")

    def __enter__(self) -> Terminal:
        self._before = termios.tcgetattr(self._input)
        tty.setraw(self._input)
        self._write(_ENTER)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._input, self._read)
        loop.add_signal_handler(signal.SIGWINCH, self._on_resize)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._input)
        loop.remove_signal_handler(signal.SIGWINCH)
        self._write(_LEAVE)
        termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            size = os.get_terminal_size(self._output)
        except OSError:
            return 80, 24
        return size.columns or 80, size.lines or 24

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines from the top; write only those that have changed."""
        size = self.size
        if size != self._size:  # each terminal has its own idea of what to show after a resize
            self._shown, self._size = [], size
            self._write(_CLEAR)
        width, height = size
        texts = [ansi(cut_line(line, width), colours=self._colours) for line in lines[:height]]
        texts += [""] * (height - len(texts))
        changed = [
            f"\x1b[{row};1H{text}\x1b[K"
            for row, text in enumerate(texts, 1)
            if row > len(self._shown) or self._shown[row - 1] != text
        ]
        self._shown = texts
        self._write("".join(changed))

    def _read(self) -> None:
        try:
            data = os.read(self._input, 1024)
        except OSError:
            data = b""
        if not data:  # the terminal is gone
            self._on_key("ctrl-c")
            return
        for key in self._keys.feed(data):
            self._on_key(key)

    def _write(self, text: str) -> None:
        data = text.encode(errors="replace")
        while data:
            data = data[os.write(self._output, data) :]
