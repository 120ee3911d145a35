"""From the rounds of a verifier to the deltas of a client: tokens, their text, and where the text stops."""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from tandem.gateway.detokenizer import Detokenizer
from tandem.gateway.stop_matcher import StopMatcher
from tandem.internal.v1 import verifier_service_pb2
from tandem.v1 import types_pb2


@dataclass
class _Waiting:
    """A token that is not released yet."""

    token: types_pb2.Token
    start: int = 0  # of its text, in characters of the whole text
    end: int = 0


class TextStream:
    """One sequence's output.

    Text is released as soon as it is certain. A token is released with the last character of its text, in order, so
    the texts of released tokens always join to a beginning of the released text, and at the end to all of it.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        stops: StopMatcher,
        stop_token_ids: Collection[int],
        min_tokens: int,
        include_stop: bool,
    ) -> None:
        """Starts an empty output.

        Args:
            detokenizer: a fresh one.
            stops: a fresh one.
            stop_token_ids: tokens that end the sequence; the text of one that does is shown only with `include_stop`.
            min_tokens: until then none of them ends it.
            include_stop: as the client asked.
        """
        self._detokenizer = detokenizer
        self._stops = stops
        self._stop_token_ids = frozenset() if include_stop else frozenset(stop_token_ids)
        self._min_tokens = min_tokens
        self._num_pushed = 0
        self._incomplete: deque[_Waiting] = deque()  # end inside a character
        self._unreleased: deque[_Waiting] = deque()  # complete, but the text may yet be a stop text
        self._num_characters = 0  # of complete tokens
        self._num_released_characters = 0
        self.num_released_tokens = 0

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
            self._incomplete.append(_Waiting(token))
            self._num_pushed += 1
            is_stop = token_id in self._stop_token_ids and self._num_pushed > self._min_tokens
            texts = [*self._detokenizer.flush(), ""] if is_stop else self._detokenizer.push(token_id)
            text += self._complete(texts)
            if self.match is not None:
                break
        return self._release(text)

    def finish(self) -> types_pb2.Delta:
        """Returns what still waited when the verifier ended the sequence. It may yet complete a stop text."""
        text = self._complete(self._detokenizer.flush())
        if self.match is None:
            text += self._stops.flush()
        return self._release(text)

    def _complete(self, texts: list[str]) -> str:
        """Gives the oldest incomplete tokens their text; returns the text that is certain now."""
        released = ""
        for text in texts:
            waiting = self._incomplete.popleft()
            waiting.token.text = text
            waiting.start = self._num_characters
            self._num_characters += len(text)
            waiting.end = self._num_characters
            self._unreleased.append(waiting)
            released += self._stops.push(text)
            if self.match is not None:
                break
        return released

    def _release(self, text: str) -> types_pb2.Delta:
        self._num_released_characters += len(text)
        delta = types_pb2.Delta(text=text)
        while self._unreleased:
            waiting = self._unreleased[0]
            if self.match is not None:
                # The tokens of the stop text were generated and count; their text is cut where the text ends.
                waiting.token.text = waiting.token.text[: max(0, self._num_released_characters - waiting.start)]
            elif waiting.end > self._num_released_characters:
                break
            self._unreleased.popleft()
            delta.tokens.append(waiting.token)
        delta.num_tokens = len(delta.tokens)
        delta.num_drafted_tokens = sum(token.drafted for token in delta.tokens)
        self.num_released_tokens += delta.num_tokens
        return delta
