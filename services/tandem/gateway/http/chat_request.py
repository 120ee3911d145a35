"""`POST /v1/chat/completions`: the body, and what it asks for as a `GenerationSpec`."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from tandem.gateway.conversation import MAX_CALLS, MAX_MESSAGES, MAX_TOOLS
from tandem.gateway.http.errors import bad_field
from tandem.gateway.http.request_fields import GenerationFields, Int32, Strict, Text
from tandem.v1 import types_pb2

_ROLES = {
    "system": types_pb2.ROLE_SYSTEM,
    "developer": types_pb2.ROLE_SYSTEM,
    "user": types_pb2.ROLE_USER,
    "assistant": types_pb2.ROLE_MODEL,
    "tool": types_pb2.ROLE_TOOL,
}


class TextPart(Strict):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class CalledFunction(Strict):
    """What a tool call calls."""

    name: str
    arguments: str


class ToolCall(Strict):
    """A call that the model made."""

    id: Text
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None  # of a streamed call, which clients send back as it came


class Message(Strict):
    """A turn; which fields it may have depends on the role."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(max_length=1024)] | None = None
    reasoning_content: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_CALLS)] | None = None
    tool_call_id: Text | None = None
    # What answers hold is taken back as it was given.
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None

    @property
    def text(self) -> str:
        """The content, its parts put together."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class Function(Strict):
    """What a tool is."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Literal[False] | None = None


class Tool(Strict):
    """A function that the model may call."""

    type: Literal["function"]
    function: Function


class TemplateOptions(Strict):
    """`chat_template_kwargs`, of which there is one."""

    enable_thinking: bool | None = None


class ChatRequest(GenerationFields):
    """A body."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: Literal[True] | None = None
    max_completion_tokens: Int32 | None = None
    logprobs: bool | None = None
    top_logprobs: Int32 | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    chat_template_kwargs: TemplateOptions | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None

    def check(self) -> Self:
        """See `GenerationFields`."""
        super().check()
        if self.top_logprobs is not None and not self.logprobs:
            raise bad_field("top_logprobs", "needs logprobs: true")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise bad_field("max_tokens", "is the older name of max_completion_tokens: send one of them")
        return self

    def spec(self, request_id: str) -> types_pb2.GenerationSpec:
        """See `GenerationFields`."""
        spec = types_pb2.GenerationSpec(request_id=request_id)
        self.fill(spec)
        if self.max_completion_tokens is not None:
            spec.stopping.max_tokens = self.max_completion_tokens
        if self.logprobs:
            spec.output.top_logprobs = self.top_logprobs or 0
        spec.conversation.messages.extend(self._messages())
        if self.tool_choice != "none":  # a model that knows no tool calls none
            spec.conversation.tools.extend(_tool(tool.function) for tool in self.tools or ())
        thinking = self._thinking()
        if thinking is not None:
            spec.conversation.thinking = thinking
        return spec

    def _messages(self) -> list[types_pb2.Message]:
        names: dict[str, str] = {}  # of the functions called so far, by the call's id
        messages = []
        for index, given in enumerate(self.messages):
            path = f"messages[{index}]"
            if (given.role == "tool") != (given.tool_call_id is not None):
                raise bad_field(f"{path}.tool_call_id", "must be given with the role tool, and only there")
            message = types_pb2.Message(role=_ROLES[given.role], thought=given.reasoning_content or "")
            if given.tool_call_id is None:
                message.text = given.text
            elif given.tool_call_id in names:
                message.tool_results.add(name=names[given.tool_call_id], text=given.text)
            else:
                raise bad_field(f"{path}.tool_call_id", "no message before has a call with this id")
            for call in given.tool_calls or ():
                names[call.id] = call.function.name
                message.tool_calls.add(name=call.function.name, arguments_json=call.function.arguments)
            messages.append(message)
        return messages

    def _thinking(self) -> bool | None:
        by_effort = None if self.reasoning_effort is None else self.reasoning_effort != "none"
        by_template = self.chat_template_kwargs.enable_thinking if self.chat_template_kwargs else None
        if None not in (by_effort, by_template) and by_effort != by_template:
            raise bad_field("reasoning_effort", "says another thing than chat_template_kwargs.enable_thinking")
        return by_template if by_effort is None else by_effort


def _tool(function: Function) -> types_pb2.Tool:
    return types_pb2.Tool(
        name=function.name,
        description=function.description or "",
        parameters_json="" if function.parameters is None else json.dumps(function.parameters),
    )
