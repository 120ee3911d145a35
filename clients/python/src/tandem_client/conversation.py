"""A prompt made of turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from tandem_client._proto.tandem.v1 import types_pb2


class Role(IntEnum):
    """Who speaks in a turn."""

    SYSTEM = 1  # instructions for the whole conversation
    USER = 2
    MODEL = 3  # its own earlier answers and calls
    TOOL = 4  # what the functions gave that the model called


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str = ""
    parameters_json: str = ""  # JSON Schema of its parameters; empty: none


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model made."""

    name: str
    arguments_json: str = ""  # a JSON object

    @classmethod
    def from_proto(cls, call: types_pb2.ToolCall) -> "ToolCall":
        """As it came."""
        return cls(call.name, call.arguments_json)


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gave: a text, or a JSON value.

    Raises:
        ValueError: both.
    """

    name: str
    text: str | None = None
    json: str | None = None

    def __post_init__(self) -> None:
        """Refuses two results."""
        if self.text is not None and self.json is not None:
            raise ValueError("a result is a text or a JSON value, not both")

    def to_proto(self) -> types_pb2.ToolResult:
        """As it is sent."""
        if self.json is not None:
            return types_pb2.ToolResult(name=self.name, json=self.json)
        return types_pb2.ToolResult(name=self.name, text=self.text or "")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn."""

    role: Role
    text: str = ""
    thought: str = ""  # of Role.MODEL, as a `Delta` told it
    tool_calls: Sequence[ToolCall] = ()  # of Role.MODEL
    tool_results: Sequence[ToolResult] = ()  # of Role.TOOL

    def to_proto(self) -> types_pb2.Message:
        """As it is sent."""
        return types_pb2.Message(
            role=types_pb2.Role.ValueType(self.role),
            text=self.text,
            thought=self.thought,
            tool_calls=[
                types_pb2.ToolCall(name=call.name, arguments_json=call.arguments_json) for call in self.tool_calls
            ],
            tool_results=[result.to_proto() for result in self.tool_results],
        )


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns so far, oldest first."""

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    thinking: bool | None = None  # whether the model thinks before it answers; None: as it was made

    def to_proto(self) -> types_pb2.Conversation:
        """As it is sent."""
        return types_pb2.Conversation(
            messages=[message.to_proto() for message in self.messages],
            tools=[
                types_pb2.Tool(name=tool.name, description=tool.description, parameters_json=tool.parameters_json)
                for tool in self.tools
            ],
            thinking=self.thinking,
        )
