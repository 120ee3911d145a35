"""Streamed text on its way to the reader."""

from typing import TextIO

from tandem.cli.console import GREEN, has_colour, paint, printable
from tandem.v1 import types_pb2

DRAFTED = GREEN


class TokenPrinter:
    """Writes deltas as they come; where there is colour, accepted draft tokens have one and the target's own have none.

    Coloured text goes token by token, and a token is told only once its text is certain: it may trail a little behind
    the text of the same delta.
    """

    def __init__(self, stream: TextIO) -> None:
        """Writes to `stream`."""
        self._stream = stream
        self.needs_tokens = has_colour(stream)  # whether to ask the server for OutputOptions.token_ids
        self._num_printed = 0
        self.text = ""  # all of it so far

    def write(self, delta: types_pb2.Delta) -> None:
        """Writes what a delta adds."""
        self.text += delta.text
        if self.needs_tokens:
            for token in delta.tokens:
                self._write(token.text, token.drafted)
        else:
            self._write(self.text[self._num_printed :], False)
        self._stream.flush()

    def finish(self) -> None:
        """Writes what no token told, and ends the line."""
        self._write(self.text[self._num_printed :], False)
        if self.text and not self.text.endswith("\n"):
            self._stream.write("\n")
        self._stream.flush()

    def _write(self, text: str, is_drafted: bool) -> None:
        self._num_printed += len(text)
        if self._stream.isatty():
            text = printable(text)
        # Colour ends before a line does: some terminals fill the rest of the line with it.
        for line in text.splitlines(keepends=True) if is_drafted else []:
            shown = line.rstrip("\r\n")
            self._stream.write(paint(shown, DRAFTED, self._stream) + line[len(shown) :])
        if not is_drafted:
            self._stream.write(text)
