"""`POST /v1/completions`: the body, and what it asks for as a `GenerationSpec`."""

from typing import Annotated, Literal

from pydantic import Field

from tandem.gateway.http.request_fields import GenerationFields, Int32
from tandem.v1 import types_pb2

_One = Field(min_length=1, max_length=1)


class CompletionRequest(GenerationFields):
    """A body."""

    prompt: str | list[Int32] | Annotated[list[str], _One] | Annotated[list[list[Int32]], _One]
    logprobs: Int32 | None = None
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None

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
