"""What both kinds of answer have in common: their frame, how they end, and what they cost."""

import time
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from tandem.gateway.http.request_fields import GenerationFields
from tandem.gateway.token_spelling import TokenSpelling
from tandem.v1 import generation_service_pb2, types_pb2

Object = dict[str, Any]
Request = TypeVar("Request", bound=GenerationFields)

FINISH_REASONS = {
    types_pb2.FINISH_REASON_STOP: "stop",
    types_pb2.FINISH_REASON_LENGTH: "length",
    types_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
}
_PARTS = {
    types_pb2.OUTPUT_PART_UNSPECIFIED: None,
    types_pb2.OUTPUT_PART_TEXT: "text",
    types_pb2.OUTPUT_PART_THOUGHT: "thought",
    types_pb2.OUTPUT_PART_TOOL_CALL: "tool_call",
    types_pb2.OUTPUT_PART_CONTROL: "control",
}


class Answer(ABC, Generic[Request]):
    """One answer: events in, objects of JSON out."""

    id_prefix: str
    chunk_object: str  # `object` of a chunk
    whole_object: str

    def __init__(self, request: Request, spelling: TokenSpelling) -> None:
        """Answers `request`; `spelling` writes likely tokens."""
        self.request = request
        self.spelling = spelling
        self._id = self._model = ""
        self._created = int(time.time())

    def started(self, started: types_pb2.Started) -> Object:
        """The first chunk."""
        self._id, self._model = f"{self.id_prefix}-{started.request_id}", started.model
        tandem: Object = {"seed": started.seed, **({"tokens": []} if self.request.tandem.tokens else {})}
        return {**self._chunk(self.opening()), "tandem": tandem}

    def delta(self, delta: types_pb2.Delta) -> Object | None:
        """The chunk of a delta; None where it has nothing that was asked for."""
        fields = self.content(delta)
        if not fields and not self.request.tandem.tokens:
            return None
        chunk = self._chunk({**self.empty(), **fields})
        if self.request.tandem.tokens:
            chunk["tandem"] = {"tokens": tokens(delta)}
        return chunk

    def finished(self, finished: types_pb2.Finished) -> list[Object]:
        """The last chunks."""
        chunks = [self._chunk({**self.empty(), **_end(finished)})]
        if self.request.includes_usage:
            chunks.append({**self._frame(self.chunk_object), "choices": [], "usage": usage(finished)})
        return chunks

    def whole(self, response: generation_service_pb2.GenerateResponse) -> Object:
        """The answer in one piece."""
        first = self.started(response.started)
        tandem = first["tandem"]
        if self.request.tandem.tokens:
            tandem["tokens"] = tokens(response.output)
        choice = {"index": 0, "logprobs": None, **self.complete(response.output), **_end(response.finished)}
        frame = self._frame(self.whole_object)
        return {**frame, "choices": [choice], "usage": usage(response.finished), "tandem": tandem}

    @abstractmethod
    def opening(self) -> Object:
        """What the choice of the first chunk holds."""

    @abstractmethod
    def empty(self) -> Object:
        """What the choice of a chunk without news holds."""

    @abstractmethod
    def content(self, delta: types_pb2.Delta) -> Object:
        """What is new in the choice of a chunk; empty where nothing is."""

    @abstractmethod
    def complete(self, output: types_pb2.Delta) -> Object:
        """What the choice of a whole answer holds."""

    def _frame(self, kind: str) -> Object:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _chunk(self, choice: Object) -> Object:
        ended = {"index": 0, "logprobs": None, "finish_reason": None, **choice}
        chunk = {**self._frame(self.chunk_object), "choices": [ended]}
        return {**chunk, "usage": None} if self.request.includes_usage else chunk


def usage(finished: types_pb2.Finished) -> Object:
    """Tokens read and written, and what drafting did."""
    counted, drafting = finished.usage, finished.speculation
    num_rounds, num_accepted = drafting.num_rounds, drafting.num_accepted_tokens
    return {
        "prompt_tokens": counted.num_prompt_tokens,
        "completion_tokens": counted.num_output_tokens,
        "total_tokens": counted.num_prompt_tokens + counted.num_output_tokens,
        "prompt_tokens_details": {"cached_tokens": counted.num_cached_tokens},
        "completion_tokens_details": {
            "accepted_prediction_tokens": num_accepted,
            "rejected_prediction_tokens": drafting.num_draft_tokens - num_accepted,
        },
        "tandem": {
            "rounds": num_rounds,
            "draft_tokens": drafting.num_draft_tokens,
            "accepted_tokens": num_accepted,
            "accepted_by_position": list(drafting.accepted_by_position),
            "acceptance_length": 1 + num_accepted / num_rounds if num_rounds else None,
        },
    }


def tokens(delta: types_pb2.Delta) -> list[Object]:
    """The tokens of a delta, for `tandem.tokens`."""
    return [
        {"id": token.id, "text": token.text, "drafted": token.drafted, "part": _PARTS[token.part]}
        for token in delta.tokens
    ]


def _end(finished: types_pb2.Finished) -> Object:
    match = finished.WhichOneof("match")
    stop_reason = getattr(finished, match) if match else None
    return {"finish_reason": FINISH_REASONS[finished.reason], "stop_reason": stop_reason}
