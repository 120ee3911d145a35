"""The model's turn in a conversation, told apart into text, thoughts and tool calls.

    <|channel>thought\n ... <channel|> the answer <|tool_call>call:NAME{...}<tool_call|> <|tool_response>

Parts are told apart by token ids alone: text that merely looks like a special token is text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from tandem.gateway.tokenizer import TextTokenizer
from tandem.gateway.tool_call import MalformedCall, parse_tool_call
from tandem.v1 import types_pb2

LABEL = "thought\n"

TEXT = types_pb2.OUTPUT_PART_TEXT
THOUGHT = types_pb2.OUTPUT_PART_THOUGHT
TOOL_CALL = types_pb2.OUTPUT_PART_TOOL_CALL
CONTROL = types_pb2.OUTPUT_PART_CONTROL


@dataclass(frozen=True)
class ParsedToken:
    """A token whose part is known; its text is what of it belongs there."""

    token: types_pb2.Token
    call: types_pb2.ToolCall | None = None  # completed by this token

    @property
    def is_text(self) -> bool:
        """Whether it belongs to the text that stop texts are looked for in."""
        return self.token.part in (TEXT, types_pb2.OUTPUT_PART_UNSPECIFIED)


class _State(Enum):
    TEXT = "text"
    LABEL = "label"  # between a channel's beginning and its name's end
    THOUGHT = "thought"
    CALL = "call"


class TurnParser:
    """Takes complete tokens in order; returns them in order, each as soon as its part is certain.

    A call is told when it is complete. One that is malformed, or breaks off, becomes text as the model wrote it.
    """

    def __init__(self, tokenizer: TextTokenizer, prompt_token_ids: Sequence[int]) -> None:
        """Starts where the prompt ends, which may be inside a thought."""
        self._tokenizer = tokenizer
        special = tokenizer.special_tokens
        self._channel, self._channel_end = special.get("<|channel>"), special.get("<channel|>")
        self._call, self._call_end = special.get("<|tool_call>"), special.get("<tool_call|>")
        self._quote = special.get('<|"|>')
        self._held: list[types_pb2.Token] = []
        self._label = ""
        self._state = _State.TEXT
        last = next((i for i in range(len(prompt_token_ids) - 1, -1, -1) if self.is_control(prompt_token_ids[i])), None)
        if last is not None and prompt_token_ids[last] == self._channel:
            self._label = tokenizer.decode(list(prompt_token_ids[last + 1 :]))
            is_open = self._label != LABEL and LABEL.startswith(self._label)
            self._state = _State.LABEL if is_open else _State.THOUGHT

    def is_control(self, token_id: int) -> bool:
        """Whether a token is special: what is said ends before it."""
        return token_id in self._tokenizer.special_token_ids

    def push(self, token: types_pb2.Token) -> list[ParsedToken]:
        """Takes the next token, with its text; returns the tokens whose part is certain now."""
        if self._state is _State.CALL and (token.id == self._quote or not self.is_control(token.id)):
            self._held.append(token)
            return []
        if self._state is _State.CALL and token.id == self._call_end:
            return self._end_call(token)
        if self.is_control(token.id):
            return self.finish() + self._switch(token)
        if self._state is _State.LABEL:
            return self._read_label(token)
        return _as(THOUGHT if self._state is _State.THOUGHT else TEXT, [token])

    def finish(self) -> list[ParsedToken]:
        """Returns what is held, which will not become what it began as."""
        held, self._held = self._held, []
        if self._state is _State.CALL:
            self._state = _State.TEXT
            return _as(TEXT, self._spelled(held))
        return _as(CONTROL if LABEL.startswith(self._label) else THOUGHT, held)

    def _switch(self, token: types_pb2.Token) -> list[ParsedToken]:
        """Takes a special token outside a call."""
        if token.id == self._call:
            self._state, self._held = _State.CALL, [token]
            return []
        if token.id == self._channel:
            self._state, self._label = _State.LABEL, ""
        elif token.id == self._channel_end:
            self._state = _State.TEXT
        return _as(CONTROL, [token])

    def _read_label(self, token: types_pb2.Token) -> list[ParsedToken]:
        self._held.append(token)
        self._label += token.text
        if self._label != LABEL and LABEL.startswith(self._label):
            return []
        self._state = _State.THOUGHT
        *before, last = self._held
        self._held = []
        if not self._label.startswith(LABEL):
            return _as(THOUGHT, [*before, last])
        rest = self._label[len(LABEL) :]
        if not rest:
            return _as(CONTROL, [*before, last])
        last.text = rest  # a token that ends the label and begins the thought
        return _as(CONTROL, before) + _as(THOUGHT, [last])

    def _end_call(self, token: types_pb2.Token) -> list[ParsedToken]:
        written, self._held = [*self._held, token], []
        self._state = _State.TEXT
        pieces = [""]
        for inner in written[1:-1]:
            if inner.id == self._quote:
                pieces.append("")
            else:
                pieces[-1] += inner.text
        try:
            call = parse_tool_call(pieces)
        except MalformedCall:
            return _as(TEXT, self._spelled(written))
        *before, last = _as(TOOL_CALL, self._spelled(written))
        return [*before, ParsedToken(last.token, call)]

    def _spelled(self, tokens: list[types_pb2.Token]) -> list[types_pb2.Token]:
        """Tokens of a call as the model wrote them: special ones, which have no text elsewhere, are spelled out."""
        for token in tokens:
            if self.is_control(token.id):
                token.text = self._tokenizer.library.id_to_token(token.id) or token.text
        return tokens


def _as(part: types_pb2.OutputPart.ValueType, tokens: Sequence[types_pb2.Token]) -> list[ParsedToken]:
    for token in tokens:
        token.part = part
    return [ParsedToken(token) for token in tokens]
