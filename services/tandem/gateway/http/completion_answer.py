"""The answer to a completion: a text, or its pieces as they come."""

from tandem.gateway.http.answer import Answer, Object
from tandem.gateway.http.completion_request import CompletionRequest
from tandem.v1 import types_pb2


class CompletionAnswer(Answer[CompletionRequest]):
    """See `Answer`."""

    id_prefix = "cmpl"
    chunk_object = whole_object = "text_completion"
    _num_characters = 0

    def opening(self) -> Object:
        """Nothing yet."""
        return {"text": ""}

    def empty(self) -> Object:
        """No news."""
        return {"text": ""}

    def content(self, delta: types_pb2.Delta) -> Object:
        """New text."""
        logprobs = self._logprobs(delta)
        fields: Object = {"text": delta.text} if delta.text else {}
        return {**fields, "logprobs": logprobs} if logprobs and logprobs["tokens"] else fields

    def complete(self, output: types_pb2.Delta) -> Object:
        """The text."""
        return {"text": output.text, "logprobs": self._logprobs(output)}

    def _logprobs(self, delta: types_pb2.Delta) -> Object | None:
        """Lists of equal length, an entry a token; None where they were not asked for."""
        if self.request.logprobs is None:
            return None
        # What ends a text without being part of it has no place in these lists.
        shown = [token for token in delta.tokens if token.text or not self.spelling.is_special(token.id)]
        offsets = []
        for token in shown:
            offsets.append(self._num_characters)
            self._num_characters += len(token.text)
        likely = [{self._spelled(top.id): top.logprob for top in token.top_logprobs} for token in shown]
        return {
            "tokens": [self._spelled(token.id) for token in shown],
            "token_logprobs": [token.logprob for token in shown],
            "top_logprobs": likely if self.request.logprobs else None,
            "text_offset": offsets,
        }

    def _spelled(self, token_id: int) -> str:
        """A token's text; parts of characters keep apart by their bytes."""
        spelled = self.spelling.bytes_of(token_id)
        try:
            return spelled.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)
