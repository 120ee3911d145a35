"""What a request wants its text to look like."""

import enum
from dataclasses import dataclass

from tandem.core.errors import InvalidRequest

MAX_OUTPUT_FORMAT_BYTES = 65536


class FormatKind(enum.Enum):
    """How a format is written; the values are the names of the request's fields."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    GRAMMAR = "grammar"


@dataclass(frozen=True)
class OutputFormat:
    """A JSON Schema, a regular expression or a grammar, as the client wrote it.

    Raises:
        InvalidRequest: it is empty or too long. Whether it means anything is found out later.
    """

    kind: FormatKind
    text: str

    def __post_init__(self) -> None:
        """Bounds what a compiler will have to read."""
        if not self.text:
            raise InvalidRequest(self.field, "is empty")
        if len(self.text.encode()) > MAX_OUTPUT_FORMAT_BYTES:
            raise InvalidRequest(self.field, f"must be at most {MAX_OUTPUT_FORMAT_BYTES} bytes")

    @property
    def field(self) -> str:
        """Its path in a request."""
        return f"spec.output_format.{self.kind.value}"
