"""What a gateway answers, whichever door the question came in at: prompts in, text out."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from tandem.core.errors import DeadlineExceeded
from tandem.gateway.generation import Event, Generation
from tandem.gateway.prompt import PromptEncoder
from tandem.gateway.rate_limit import spend_tokens
from tandem.gateway.relay import Relay
from tandem.gateway.request_watch import RequestWatch
from tandem.gateway.verifier_pool import VerifierPool
from tandem.gateway.verifier_request import check_spec, verifier_request
from tandem.telemetry.metrics import Metrics
from tandem.v1 import generation_service_pb2, types_pb2


@dataclass(frozen=True)
class Answers:
    """Checks, encoding, verifiers, text and accounts of every request."""

    verifiers: VerifierPool
    encoder: PromptEncoder  # with the tokenizer of the model behind them
    max_output_tokens: int
    resume_seconds: float  # see `Relay`
    metrics: Metrics
    watch: RequestWatch  # sees every request

    def events(self, spec: types_pb2.GenerationSpec, seconds_left: float | None) -> AsyncGenerator[Event, None]:
        """The answer as it comes; the first event says that the request is admitted.

        Closing the iterator frees the sequence.

        Args:
            spec: what to generate.
            seconds_left: until the caller's deadline; None: there is none.

        Raises:
            TandemError: the request cannot be served; its kind says why.
        """
        return self.watch.watched(spec, self._generated(spec, seconds_left))

    async def whole(
        self, spec: types_pb2.GenerationSpec, seconds_left: float | None
    ) -> generation_service_pb2.GenerateResponse:
        """The answer as one message. Raises what `events` raises."""
        response = generation_service_pb2.GenerateResponse()
        texts, thoughts = [], []
        async with aclosing(self.events(spec, seconds_left)) as events:
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

    async def count_tokens(self, spec: types_pb2.GenerationSpec) -> int:
        """How many tokens the prompt of `spec` has, even when that is too many to generate from.

        Raises:
            TandemError: the model is unknown or away, or the prompt is none.
        """
        self.verifiers.model(spec.model)
        return len(await self.encoder.encode(spec))

    async def _generated(
        self, spec: types_pb2.GenerationSpec, seconds_left: float | None
    ) -> AsyncGenerator[Event, None]:
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        model = self.verifiers.model(spec.model)
        check_spec(spec, self.max_output_tokens)
        token_ids = await self.encoder.encode(spec, max_tokens=model.context_length - 1)
        request = verifier_request(spec, token_ids, self.max_output_tokens)
        generation = Generation(spec, request, model, self.encoder.tokenizer)
        if seconds_left is not None:
            seconds_left -= loop.time() - asked_at
            if seconds_left <= 0:
                raise DeadlineExceeded("the deadline passed before the request could start")
        relay = Relay(self.verifiers, request, model, seconds_left, self.resume_seconds, self.metrics)
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
