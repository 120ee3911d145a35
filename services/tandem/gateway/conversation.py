"""A client's conversation, checked, in the words that chat templates know.

Gemma's templates write a call and its results as one turn where they find them in one message, as `tool_calls` and
`tool_responses`; the text of that message comes behind them. So results join the message that called, what the model
said before it called is a message of its own, and an answer that follows the results at once joins them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tandem.core.errors import InvalidRequest
from tandem.gateway.json_text import read_json, read_object
from tandem.v1 import types_pb2

FIELD = "spec.conversation"
MAX_MESSAGES = 4096
MAX_TOOLS = 128
MAX_CALLS = 128  # in one message, and results
TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")

_ROLE_NAMES = {
    types_pb2.ROLE_SYSTEM: "system",
    types_pb2.ROLE_USER: "user",
    types_pb2.ROLE_MODEL: "assistant",
    types_pb2.ROLE_TOOL: "tool",
}

Plain = Callable[[str], str]
Entry = dict[str, Any]


@dataclass(frozen=True)
class Chat:
    """What a chat template is given."""

    messages: list[Entry]
    tools: list[Entry]
    thinking: bool | None  # None: as the template says


def num_characters(conversation: types_pb2.Conversation) -> int:
    """Characters of all texts that a conversation holds.

    Raises:
        InvalidRequest: it has more of something than anybody needs.
    """
    messages, tools = conversation.messages, conversation.tools
    _require(1 <= len(messages) <= MAX_MESSAGES, f"{FIELD}.messages", f"must be 1..{MAX_MESSAGES} messages")
    _require(len(tools) <= MAX_TOOLS, f"{FIELD}.tools", f"at most {MAX_TOOLS} tools")
    total = sum(len(tool.name) + len(tool.description) + len(tool.parameters_json) for tool in tools)
    for index, message in enumerate(messages):
        for name in ("tool_calls", "tool_results"):
            few = len(getattr(message, name)) <= MAX_CALLS
            _require(few, f"{FIELD}.messages[{index}].{name}", f"at most {MAX_CALLS}")
        total += len(message.text) + len(message.thought)
        total += sum(len(call.name) + len(call.arguments_json) for call in message.tool_calls)
        total += sum(len(result.name) + len(result.text) + len(result.json) for result in message.tool_results)
    return total


def read_conversation(conversation: types_pb2.Conversation, plain: Plain) -> Chat:
    """What the template is given of `conversation`.

    Thoughts from before the last word of a user are left out here, whatever the template would do with them.

    Args:
        conversation: as it came; `num_characters` has looked at it.
        plain: applied to every text in it.

    Raises:
        InvalidRequest: a field is not what it must be.
    """
    users = [i for i, message in enumerate(conversation.messages) if message.role == types_pb2.ROLE_USER]
    last_user = users[-1] if users else -1
    entries: list[Entry] = []
    for index, message in enumerate(conversation.messages):
        path = f"{FIELD}.messages[{index}]"
        _check_fields(message, path)
        if message.role == types_pb2.ROLE_TOOL:
            _add_results(entries, message, path, plain)
        elif message.role == types_pb2.ROLE_MODEL:
            _add_model(entries, message, index > last_user, path, plain)
        else:
            entries.append({"role": _ROLE_NAMES[message.role], "content": plain(message.text)})
    thinking = conversation.thinking if conversation.HasField("thinking") else None
    return Chat(entries, _tools(conversation, plain), thinking)


def _check_fields(message: types_pb2.Message, path: str) -> None:
    """Each role has its own fields."""
    role = message.role
    _require(role in _ROLE_NAMES, f"{path}.role", "must be system, user, model or tool")
    is_model, is_tool = role == types_pb2.ROLE_MODEL, role == types_pb2.ROLE_TOOL
    _require(is_model or not message.thought, f"{path}.thought", "only the model has thoughts")
    _require(is_model or not message.tool_calls, f"{path}.tool_calls", "only the model calls")
    _require(
        is_tool == bool(message.tool_results), f"{path}.tool_results", "must be given with ROLE_TOOL, and only there"
    )
    _require(not (is_tool and message.text), f"{path}.text", "tools answer in tool_results")


def _add_model(entries: list[Entry], message: types_pb2.Message, is_current: bool, path: str, plain: Plain) -> None:
    role, text, thought = _ROLE_NAMES[message.role], plain(message.text), {}
    if message.thought and is_current:
        # Templates bring the line's end themselves, and know this by two names.
        thought = dict.fromkeys(("reasoning", "reasoning_content"), plain(message.thought.removesuffix("\n")))
    last = entries[-1] if entries else {}
    if "tool_responses" in last and not last["content"] and not message.tool_calls and not thought:
        last["content"] = text
        return
    if text or not message.tool_calls:
        entries.append({"role": role, "content": text, **thought})
        thought = {}
    if message.tool_calls:
        calls = [_call(call, f"{path}.tool_calls[{index}]", plain) for index, call in enumerate(message.tool_calls)]
        entries.append({"role": role, "content": "", **thought, "tool_calls": calls})


def _call(call: types_pb2.ToolCall, path: str, plain: Plain) -> Entry:
    arguments = read_object(call.arguments_json, f"{path}.arguments_json", plain)
    return {"type": "function", "function": {"name": _name(call.name, path, plain), "arguments": arguments}}


def _add_results(entries: list[Entry], message: types_pb2.Message, path: str, plain: Plain) -> None:
    last = entries[-1] if entries else {}
    is_answered = bool(last.get("content"))
    called = set() if is_answered else {call["function"]["name"] for call in last.get("tool_calls", ())}
    responses = last.setdefault("tool_responses", [])
    for index, result in enumerate(message.tool_results):
        place = f"{path}.tool_results[{index}]"
        name = _name(result.name, place, plain)
        _require(name in called, f"{place}.name", "the turn before did not call it")
        is_json = result.WhichOneof("result") == "json"
        response = read_json(result.json, f"{place}.json", plain) if is_json else plain(result.text)
        responses.append({"name": name, "response": response})


def _tools(conversation: types_pb2.Conversation, plain: Plain) -> list[Entry]:
    tools = conversation.tools
    _require(len({tool.name for tool in tools}) == len(tools), f"{FIELD}.tools", "no two may have the same name")
    return [_tool(tool, f"{FIELD}.tools[{index}]", plain) for index, tool in enumerate(tools)]


def _tool(tool: types_pb2.Tool, path: str, plain: Plain) -> Entry:
    function = {
        "name": _name(tool.name, path, plain),
        "description": plain(tool.description),
        "parameters": read_object(tool.parameters_json, f"{path}.parameters_json", plain),
    }
    return {"type": "function", "function": function}


def _name(name: str, path: str, plain: Plain) -> str:
    _require(bool(TOOL_NAME.fullmatch(name)), f"{path}.name", "must be 1..128 of A-Z a-z 0-9 _ - .")
    return plain(name)


def _require(condition: bool, field: str, description: str) -> None:
    if not condition:
        raise InvalidRequest(field, description)
