"""The answer to a chat: a message, or its parts as they come."""

import uuid

from tandem.gateway.http.answer import Answer, Object
from tandem.gateway.http.chat_request import ChatRequest
from tandem.v1 import types_pb2

_TEXT_PARTS = (types_pb2.OUTPUT_PART_TEXT, types_pb2.OUTPUT_PART_UNSPECIFIED)


class ChatAnswer(Answer[ChatRequest]):
    """See `Answer`."""

    id_prefix = "chatcmpl"
    chunk_object = "chat.completion.chunk"
    whole_object = "chat.completion"
    _num_calls = 0

    def opening(self) -> Object:
        """Whose message it is."""
        return {"delta": {"role": "assistant", "content": ""}}

    def empty(self) -> Object:
        """No news."""
        return {"delta": {}}

    def content(self, delta: types_pb2.Delta) -> Object:
        """New text, thoughts and calls, each call whole."""
        news: Object = {}
        if delta.thought:
            news["reasoning_content"] = delta.thought
        if delta.text:
            news["content"] = delta.text
        if delta.tool_calls:
            first = self._num_calls
            news["tool_calls"] = [{"index": first + i, **call} for i, call in enumerate(self._calls(delta))]
        logprobs = self._logprobs(delta)
        fields: Object = {"delta": news} if news else {}
        return {**fields, "logprobs": logprobs} if logprobs and logprobs["content"] else fields

    def complete(self, output: types_pb2.Delta) -> Object:
        """The message."""
        has_content = output.text or not output.tool_calls
        message: Object = {"role": "assistant", "content": output.text if has_content else None, "refusal": None}
        if output.thought:
            message["reasoning_content"] = output.thought
        if output.tool_calls:
            message["tool_calls"] = self._calls(output)
        return {"message": message, "logprobs": self._logprobs(output)}

    def _calls(self, delta: types_pb2.Delta) -> list[Object]:
        calls = []
        for call in delta.tool_calls:
            function = {"name": call.name, "arguments": call.arguments_json}
            calls.append({"id": f"call_{uuid.uuid4().hex}", "type": "function", "function": function})
        self._num_calls += len(calls)
        return calls

    def _logprobs(self, delta: types_pb2.Delta) -> Object | None:
        """Of the tokens that the content is made of; None where they were not asked for."""
        if not self.request.logprobs:
            return None
        content = [
            {
                **self._likely(token.id, token.logprob),
                "top_logprobs": [self._likely(top.id, top.logprob) for top in token.top_logprobs],
            }
            for token in delta.tokens
            if token.part in _TEXT_PARTS
        ]
        return {"content": content, "refusal": None}

    def _likely(self, token_id: int, logprob: float) -> Object:
        spelled = self.spelling.bytes_of(token_id)
        return {"token": spelled.decode(errors="replace"), "logprob": logprob, "bytes": list(spelled)}
