"""Tool calls as Gemma writes them: `call:NAME{key:VALUE,...}`, in which strings stand between special tokens.

The notation (see ai.google.dev/gemma/docs/core/prompt-formatting-gemma4) is JSON but for its strings and its keys:
keys are bare, or strings like any other; a string is whatever stands between two quote tokens, so nothing in it needs
an escape, and text that merely looks like a quote ends nothing.
"""

import json
import re
from collections.abc import Iterator, Sequence
from enum import Enum

from tandem.gateway.conversation import TOOL_NAME
from tandem.gateway.json_text import MAX_DEPTH
from tandem.v1 import types_pb2


class MalformedCall(Exception):
    """What the model wrote is no call."""


def parse_tool_call(pieces: Sequence[str]) -> types_pb2.ToolCall:
    """The call that the model wrote.

    Args:
        pieces: its text, cut at the quote tokens: every second piece is a string's content.

    Raises:
        MalformedCall: it is none.
    """
    if len(pieces) % 2 == 0:
        raise MalformedCall("a string does not end")
    reader = _Reader(pieces)
    if reader.word() != "call":
        raise MalformedCall("expected call")
    reader.mark(":")
    name = reader.word()
    if not TOOL_NAME.fullmatch(name):
        raise MalformedCall("expected a name")
    reader.mark("{")
    arguments = reader.object(MAX_DEPTH)
    reader.end()
    return types_pb2.ToolCall(name=name, arguments_json=arguments)


class _Kind(Enum):
    MARK = "mark"
    WORD = "word"
    STRING = "string"
    END = "end"


_Lexeme = tuple[_Kind, str]
_END: _Lexeme = (_Kind.END, "")
_MARK_OR_WORD = re.compile(r"([{}\[\],:])|([^{}\[\],:]+)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LITERALS = {"true": "true", "false": "false", "null": "null", "None": "null"}


class _Reader:
    """Reads lexemes and writes JSON. Numbers stay as they are written."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self._lexemes = _lexemes(pieces)
        self._next = next(self._lexemes, _END)

    def mark(self, mark: str) -> None:
        if self._take() != (_Kind.MARK, mark):
            raise MalformedCall(f"expected {mark}")

    def end(self) -> None:
        if self._next != _END:
            raise MalformedCall("something follows")

    def word(self) -> str:
        kind, text = self._take()
        if kind is not _Kind.WORD:
            raise MalformedCall("expected a word")
        return text

    def object(self, depth_left: int) -> str:
        """The rest of an object whose brace is read."""
        entries = []
        for _ in self._items("}"):
            key = self._key()
            self.mark(":")
            entries.append(f"{key}:{self._value(depth_left - 1)}")
        return "{" + ",".join(entries) + "}"

    def _array(self, depth_left: int) -> str:
        return "[" + ",".join(self._value(depth_left - 1) for _ in self._items("]")) + "]"

    def _items(self, closing: str) -> Iterator[None]:
        """Stops before each item, and takes the commas between them and what closes."""
        if self._next == (_Kind.MARK, closing):
            self._take()
            return
        while True:
            yield
            mark = self._take()
            if mark == (_Kind.MARK, closing):
                return
            if mark != (_Kind.MARK, ","):
                raise MalformedCall("expected a comma")

    def _key(self) -> str:
        kind, text = self._take()
        if kind not in (_Kind.WORD, _Kind.STRING):
            raise MalformedCall("expected a key")
        return _quoted(text)

    def _value(self, depth_left: int) -> str:
        match self._take():
            case (_Kind.STRING, text):
                return _quoted(text)
            case (_Kind.WORD, text):
                # A bare word that means nothing else is a string that the model forgot to quote.
                return text if _NUMBER.fullmatch(text) else _LITERALS.get(text) or _quoted(text)
            case (_Kind.MARK, "{") if depth_left:
                return self.object(depth_left)
            case (_Kind.MARK, "[") if depth_left:
                return self._array(depth_left)
        raise MalformedCall("expected a value, or none so deep")

    def _take(self) -> _Lexeme:
        taken, self._next = self._next, next(self._lexemes, _END)
        return taken


def _lexemes(pieces: Sequence[str]) -> Iterator[_Lexeme]:
    for index, piece in enumerate(pieces):
        if index % 2:
            yield _Kind.STRING, piece
            continue
        for found in _MARK_OR_WORD.finditer(piece):
            if found[1]:
                yield _Kind.MARK, found[1]
            elif word := found[2].strip():
                yield _Kind.WORD, word


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
