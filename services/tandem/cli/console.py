"""What commands write for people: colours on a terminal, plain text anywhere else."""

import os
import sys
from typing import TextIO

DIM, RED, GREEN, YELLOW, MAGENTA, CYAN = "2", "31", "32", "33", "35", "36"

_SERVICE_COLOURS = {"gateway": CYAN, "verifier": MAGENTA, "drafter": GREEN}


def has_colour(stream: TextIO) -> bool:
    """Whether `stream` shows colours: a terminal that can, where the user did not set NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: TextIO) -> str:
    """`text` in a colour where `stream` shows any."""
    return f"\x1b[{colour}m{text}\x1b[0m" if text and has_colour(stream) else text


def printable(text: str) -> str:
    """A model's text as a terminal may be given it: control characters could do anything there."""
    return "".join(c if c in "\n\t" or ord(c) >= 32 and not 127 <= ord(c) < 160 else "\ufffd" for c in text)


def status(text: str) -> None:
    """One line on how things stand, on stdout."""
    _write(text, sys.stdout)


def notice(text: str) -> None:
    """One line that is beside the result, on stderr."""
    _write(text, sys.stderr)


def service_line(service: str, line: str) -> None:
    """One line that a service wrote, on stderr, with the service's name before it and no longer in it."""
    line = line.replace(f" {service:<8} ", " ", 1)
    notice(f"{paint(f'{service:<8} |', _SERVICE_COLOURS[service], sys.stderr)} {line}")


def _write(text: str, stream: TextIO) -> None:
    try:
        print(text, file=stream, flush=True)
    except OSError:
        pass  # nobody reads any more, which is no reason to stop serving
