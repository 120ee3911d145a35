"""`POST /v1/completions`: the body, and what it asks for as a `GenerationSpec`."""

from typing import Annotated, Literal, Self

from pydantic import Field

from tandem.core.sampling_params import MAX_TOP_LOGPROBS
from tandem.gateway.http.errors import bad_field
from tandem.gateway.http.request_fields import GenerationFields, Int32
from tandem.v1 import types_pb2


class CompletionRequest(GenerationFields):
    """A body."""

    prompt: str | list[Int32] | list[str] | list[list[Int32]]
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None

    def check(self) -> Self:
        """See `GenerationFields`."""
        super().check()
        if isinstance(self.prompt, list) and len(self.prompt) > 1 and not isinstance(self.prompt[0], int):
            raise bad_field("prompt", "one prompt a request: a text, token ids, or a list of one of them")
        return self

    def spec(self, request_id: str) -> types_pb2.GenerationSpec:
        """See `GenerationFields`."""
        spec = types_pb2.GenerationSpec(request_id=request_id)
        self.fill(spec)
        if self.logprobs is not None:
            spec.output.top_logprobs = self.logprobs
        match self.prompt:
            case str(text) | [str(text)]:
                spec.text = text
            case [[*ids]] | [*ids]:
                spec.token_ids.SetInParent()
                spec.token_ids.ids.extend(i for i in ids if isinstance(i, int))
        return spec
