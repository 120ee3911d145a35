"""From the rounds of a verifier to the deltas of a client: tokens, their text and parts, and where the text stops."""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from tandem.gateway.detokenizer import Detokenizer
from tandem.gateway.stop_matcher import StopMatcher
from tandem.gateway.turn_parser import ParsedToken, TurnParser
from tandem.internal.v1 import verifier_service_pb2
from tandem.v1 import types_pb2


@dataclass
class _Waiting:
    """A complete token that is not released yet."""

    token: types_pb2.Token
    call: types_pb2.ToolCall | None  # completed by it
    start: int  # of its text, in characters of the whole text; other parts have none of these
    end: int


class TextStream:
    """One sequence's output.

    Text is released as soon as it is certain. A token is released with the last character of its text, in order, so
    the texts of released tokens always join to a beginning of the released text, and at the end to all of it. With a
    parser that holds for the tokens of the text; thoughts and calls come with their tokens.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        stops: StopMatcher,
        stop_token_ids: Collection[int],
        min_tokens: int,
        include_stop: bool,
        parser: TurnParser | None = None,
    ) -> None:
        """Starts an empty output.

        Args:
            detokenizer: a fresh one.
            stops: a fresh one.
            stop_token_ids: tokens that end the sequence; the text of one that does is shown only with `include_stop`.
            min_tokens: until then nothing ends it.
            include_stop: as the client asked.
            parser: a fresh one for a turn of a conversation; None where all is text.
        """
        self._detokenizer = detokenizer
        self._stops = stops
        self._stop_token_ids = frozenset() if include_stop else frozenset(stop_token_ids)
        self._min_tokens = min_tokens
        self._parser = parser
        self._num_pushed = 0
        self._num_complete = 0
        self._incomplete: deque[types_pb2.Token] = deque()  # end inside a character
        self._unreleased: deque[_Waiting] = deque()  # complete, but the text may yet be a stop text
        self._num_characters = 0  # of complete tokens
        self._num_released_characters = 0
        self.num_released_tokens = 0
        self.num_tool_calls = 0

    @property
    def match(self) -> str | None:
        """The stop text that ended the output."""
        return self._stops.match

    def push(self, verified: verifier_service_pb2.Round) -> types_pb2.Delta:
        """Takes a round; returns what it lets out. What follows a stop text is dropped: it was never asked for."""
        text = ""
        for index, token_id in enumerate(verified.token_ids):
            token = types_pb2.Token(id=token_id, drafted=index < verified.num_drafted_tokens)
            if index < len(verified.logprobs):
                token.logprob = verified.logprobs[index].logprob
                token.top_logprobs.extend(verified.logprobs[index].top_logprobs)
            self._incomplete.append(token)
            self._num_pushed += 1
            texts = [*self._detokenizer.flush(), ""] if self._ends_text(token_id) else self._detokenizer.push(token_id)
            text += self._complete(texts)
            if self.match is not None:
                break
        return self._release(text)

    def finish(self) -> types_pb2.Delta:
        """Returns what still waited when the verifier ended the sequence. It may yet complete a stop text."""
        text = self._complete(self._detokenizer.flush())
        if self.match is None and self._parser:
            text += self._place(self._parser.finish())
        if self.match is None:
            text += self._stops.flush()
        return self._release(text)

    def _ends_text(self, token_id: int) -> bool:
        """Whether a token has no text itself, and no character goes on behind it."""
        if self._parser and self._parser.is_control(token_id):
            return True
        return token_id in self._stop_token_ids and self._num_pushed > self._min_tokens

    def _complete(self, texts: list[str]) -> str:
        """Gives the oldest incomplete tokens their text; returns the text that is certain now."""
        released = ""
        for text in texts:
            token = self._incomplete.popleft()
            token.text = text
            released += self._place(self._parser.push(token) if self._parser else [ParsedToken(token)])
            if self.match is not None:
                break
        return released

    def _place(self, parsed_tokens: list[ParsedToken]) -> str:
        """Puts complete tokens in line; returns the text that is certain now."""
        released = ""
        for parsed in parsed_tokens:
            self._num_complete += 1
            start = self._num_characters
            if parsed.is_text:
                self._num_characters += len(parsed.token.text)
                released += self._stops.push(parsed.token.text, may_end=self._num_complete > self._min_tokens)
            else:
                released += self._stops.flush()  # no stop text reaches over another part
            self._unreleased.append(_Waiting(parsed.token, parsed.call, start, self._num_characters))
            if self.match is not None:
                break
        return released

    def _release(self, text: str) -> types_pb2.Delta:
        self._num_released_characters += len(text)
        delta = types_pb2.Delta(text=text)
        while self._unreleased:
            waiting = self._unreleased[0]
            if self.match is None and waiting.end > self._num_released_characters:
                break
            if waiting.end > self._num_released_characters:
                # The tokens of the stop text were generated and count; their text is cut where the text ends.
                waiting.token.text = waiting.token.text[: max(0, self._num_released_characters - waiting.start)]
            self._unreleased.popleft()
            delta.tokens.append(waiting.token)
            if waiting.call:
                delta.tool_calls.append(waiting.call)
        delta.thought = "".join(token.text for token in delta.tokens if token.part == types_pb2.OUTPUT_PART_THOUGHT)
        delta.num_tokens = len(delta.tokens)
        delta.num_drafted_tokens = sum(token.drafted for token in delta.tokens)
        self.num_released_tokens += delta.num_tokens
        self.num_tool_calls += len(delta.tool_calls)
        return delta
