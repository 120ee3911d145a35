"""Streamed text on its way to the reader."""

from typing import TextIO

from tandem.cli.console import DIM, GREEN, has_colour, paint, printable
from tandem.v1 import types_pb2

DRAFTED = GREEN
TEXT_PARTS = (types_pb2.OUTPUT_PART_UNSPECIFIED, types_pb2.OUTPUT_PART_TEXT)


class TokenPrinter:
    """Writes deltas as they come; where there is colour, accepted draft tokens have one and the target's own have none.

    Coloured text goes token by token, and a token is told only once its text is certain: it may trail a little behind
    the text of the same delta. Thoughts are for people at a terminal, dimmed and on lines of their own.
    """

    def __init__(self, stream: TextIO) -> None:
        """Writes to `stream`."""
        self._stream = stream
        self.needs_tokens = has_colour(stream)  # whether to ask the server for OutputOptions.token_ids
        self._num_printed = 0
        self._ends_line = True
        self._is_thinking = False
        self.text = ""  # all of it so far

    def write(self, delta: types_pb2.Delta) -> None:
        """Writes what a delta adds."""
        if delta.thought and self._stream.isatty():
            self._is_thinking = True
            self._write_in(DIM, printable(delta.thought))
        self.text += delta.text
        if self.needs_tokens:
            for token in delta.tokens:
                if token.part in TEXT_PARTS:
                    self._write(token.text, token.drafted)
        else:
            self._write(self.text[self._num_printed :], False)
        self._stream.flush()

    def finish(self) -> None:
        """Writes what no token told, and ends the line."""
        self._write(self.text[self._num_printed :], False)
        self._end_line()
        self._stream.flush()

    def _write(self, text: str, is_drafted: bool) -> None:
        self._num_printed += len(text)
        if text and self._is_thinking:
            self._is_thinking = False
            self._end_line()
        self._write_in(DRAFTED if is_drafted else None, printable(text) if self._stream.isatty() else text)

    def _write_in(self, colour: str | None, text: str) -> None:
        # Colour ends before a line does: some terminals fill the rest of the line with it.
        for line in text.splitlines(keepends=True) if colour else [text]:
            shown = line.rstrip("\r\n")
            self._stream.write((paint(shown, colour, self._stream) if colour else shown) + line[len(shown) :])
        self._ends_line = text.endswith("\n") if text else self._ends_line

    def _end_line(self) -> None:
        if not self._ends_line:
            self._stream.write("\n")
            self._ends_line = True
