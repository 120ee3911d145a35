"""`GenerationService`: prompts in, text out.

Whatever can refuse a request does so before the first message goes out, the verifier's admission included: headers
leave with the verifier's `started`, so a refusal comes without any and clients may retry it.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc

from tandem.core.errors import DeadlineExceeded
from tandem.gateway.generation import Event, Generation
from tandem.gateway.prompt import PromptEncoder
from tandem.gateway.rate_limit import spend_tokens
from tandem.gateway.relay import Relay
from tandem.gateway.request_watch import RequestWatch
from tandem.gateway.verifier_pool import VerifierPool
from tandem.gateway.verifier_request import check_spec, verifier_request
from tandem.telemetry.metrics import Metrics
from tandem.v1 import generation_service_pb2, generation_service_pb2_grpc, types_pb2

Context = grpc.aio.ServicerContext[Any, Any]


class GenerationService(generation_service_pb2_grpc.GenerationServiceServicer):
    """The public service; errors are raised, and become statuses further out."""

    def __init__(
        self,
        verifiers: VerifierPool,
        encoder: PromptEncoder,
        max_output_tokens: int,
        resume_seconds: float,
        metrics: Metrics,
        watch: RequestWatch,
    ) -> None:
        """Serves with the model behind `verifiers`, whose tokenizer `encoder` holds; `watch` sees every request.

        For the rest see `Relay`.
        """
        self._watch = watch
        self._verifiers = verifiers
        self._encoder = encoder
        self._max_output_tokens = max_output_tokens
        self._resume_seconds = resume_seconds
        self._metrics = metrics

    async def Generate(
        self, request: generation_service_pb2.GenerateRequest, context: Context
    ) -> generation_service_pb2.GenerateResponse:
        """A whole stream as one message. Raises what `StreamGenerate` raises."""
        response = generation_service_pb2.GenerateResponse()
        texts, thoughts = [], []
        async with aclosing(self._events(request.spec, context)) as events:
            async for event in events:
                match event:
                    case types_pb2.Started():
                        response.started.CopyFrom(event)
                    case types_pb2.Delta():
                        texts.append(event.text)
                        thoughts.append(event.thought)
                        response.output.num_tokens += event.num_tokens
                        response.output.num_drafted_tokens += event.num_drafted_tokens
                        response.output.tokens.extend(event.tokens)
                        response.output.tool_calls.extend(event.tool_calls)
                    case types_pb2.Finished():
                        response.finished.CopyFrom(event)
        response.output.text, response.output.thought = "".join(texts), "".join(thoughts)
        return response

    async def StreamGenerate(
        self, request: generation_service_pb2.StreamGenerateRequest, context: Context
    ) -> AsyncGenerator[generation_service_pb2.StreamGenerateResponse, None]:
        """The events as they come.

        Raises:
            TandemError: the request cannot be served; its kind says why.
        """
        async with aclosing(self._events(request.spec, context)) as events:
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
        """How many tokens the prompt of a spec has, even when that is too many to generate from.

        Raises:
            TandemError: the model is unknown or away, or the prompt is none.
        """
        self._verifiers.model(request.spec.model)
        token_ids = await self._encoder.encode(request.spec)
        return generation_service_pb2.CountTokensResponse(num_tokens=len(token_ids))

    def _events(self, spec: types_pb2.GenerationSpec, context: Context) -> AsyncGenerator[Event, None]:
        return self._watch.watched(spec, self._generated(spec, context))

    async def _generated(self, spec: types_pb2.GenerationSpec, context: Context) -> AsyncGenerator[Event, None]:
        model = self._verifiers.model(spec.model)
        check_spec(spec, self._max_output_tokens)
        token_ids = await self._encoder.encode(spec, max_tokens=model.context_length - 1)
        request = verifier_request(spec, token_ids, self._max_output_tokens)
        generation = Generation(spec, request, model, self._encoder.tokenizer)
        relay = Relay(self._verifiers, request, model, _seconds_left(context), self._resume_seconds, self._metrics)
        async with aclosing(relay.responses()) as responses, aclosing(generation.events(responses)) as events:
            async for event in events:
                _count_tokens(event)
                yield event


def _count_tokens(event: Event) -> None:
    match event:
        case types_pb2.Started():
            spend_tokens(event.num_prompt_tokens)
        case types_pb2.Delta():
            spend_tokens(event.num_tokens)


def _seconds_left(context: Context) -> float | None:
    seconds: float | None = context.time_remaining()
    if seconds is not None and seconds <= 0:
        raise DeadlineExceeded("the deadline passed before the request could start")
    return seconds
