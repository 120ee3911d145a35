"""`GenerationService`: prompts in, text out.

Whatever can refuse a request does so before the first message goes out, the verifier's admission included: headers
leave with the verifier's `started`, so a refusal comes without any and clients may retry it.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc

from tandem.gateway.answers import Answers
from tandem.v1 import generation_service_pb2, generation_service_pb2_grpc, types_pb2

Context = grpc.aio.ServicerContext[Any, Any]


class GenerationService(generation_service_pb2_grpc.GenerationServiceServicer):
    """The public service; errors are raised, and become statuses further out."""

    def __init__(self, answers: Answers) -> None:
        """Passes on `answers`."""
        self._answers = answers

    async def Generate(
        self, request: generation_service_pb2.GenerateRequest, context: Context
    ) -> generation_service_pb2.GenerateResponse:
        """A whole stream as one message. Raises what `StreamGenerate` raises."""
        return await self._answers.whole(request.spec, context.time_remaining())

    async def StreamGenerate(
        self, request: generation_service_pb2.StreamGenerateRequest, context: Context
    ) -> AsyncGenerator[generation_service_pb2.StreamGenerateResponse, None]:
        """The events as they come.

        Raises:
            TandemError: the request cannot be served; its kind says why.
        """
        async with aclosing(self._answers.events(request.spec, context.time_remaining())) as events:
            async for event in events:
                match event:
                    case types_pb2.Started():
                        yield generation_service_pb2.StreamGenerateResponse(started=event)
                    case types_pb2.Delta():
                        yield generation_service_pb2.StreamGenerateResponse(delta=event)
                    case types_pb2.Finished():
                        yield generation_service_pb2.StreamGenerateResponse(finished=event)

    async def CountTokens(
        self, request: generation_service_pb2.CountTokensRequest, context: Context
    ) -> generation_service_pb2.CountTokensResponse:
        """How many tokens the prompt of a spec has.

        Raises:
            TandemError: the model is unknown or away, or the prompt is none.
        """
        num_tokens = await self._answers.count_tokens(request.spec)
        return generation_service_pb2.CountTokensResponse(num_tokens=num_tokens)
