"""The service that gateways call: requests in, token ids out."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterable
from collections.abc import Sequence as Sources
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry import trace

from tandem.core.errors import DeadlineExceeded, Draining, EngineFault, Exhausted, InvalidRequest, Loading, TandemError
from tandem.core.sequence import FinishReason, Sequence
from tandem.engine.draft_source import DraftSource
from tandem.engine.engine import Engine
from tandem.engine.output import SequenceEnd, SequenceOutput
from tandem.engine.step import TokenLogprob
from tandem.internal.v1 import verifier_service_pb2, verifier_service_pb2_grpc
from tandem.rpc.conversion import (
    RequestDefaults,
    finish_reason_to_proto,
    logprobs_to_proto,
    resolve_request,
    stats_to_proto,
)
from tandem.telemetry import metrics as names
from tandem.telemetry.metrics import Metrics
from tandem.telemetry.tracing import traceparent
from tandem.v1 import model_service_pb2
from tandem.verifier.grammar_compiler import GrammarCompiler
from tandem.verifier.output_streams import OutputStreams
from tandem.verifier.request_phases import RequestPhases

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class ServedModel:
    """A model that is ready."""

    description: model_service_pb2.Model  # without its drafter, which comes and goes
    defaults: RequestDefaults
    engine: Engine
    drafters: Sources[DraftSource]
    grammars: GrammarCompiler


class VerifierService(verifier_service_pb2_grpc.VerifierServiceServicer):
    """Answers Loading until it is given a model."""

    def __init__(self, streams: OutputStreams, metrics: Metrics) -> None:
        """Starts without a model."""
        self._streams = streams
        self._metrics = metrics
        self._served: ServedModel | None = None
        self._sequence_ids = itertools.count(1)

    def serve(self, served: ServedModel) -> None:
        """From now on requests are for `served`."""
        self._served = served

    async def DescribeModel(
        self, request: verifier_service_pb2.DescribeModelRequest, context: Context
    ) -> verifier_service_pb2.DescribeModelResponse:
        """The model, and the drafter attached at this moment."""
        served = self._model()
        response = verifier_service_pb2.DescribeModelResponse(model=served.description)
        info = next((drafter.info for drafter in served.drafters if drafter.info), None)
        if info is not None:
            response.model.drafter.CopyFrom(
                model_service_pb2.Drafter(
                    name=info.name, num_speculative_tokens=info.num_speculative_tokens, revision=info.revision
                )
            )
        return response

    async def Generate(
        self, request: verifier_service_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[verifier_service_pb2.GenerateResponse]:
        """Started with the first tokens, a message a round, finished."""
        served = self._model()
        try:
            sequence = await self._sequence(request, served, context.time_remaining())
            if sequence.finish_reason:
                # Only the end itself was not told before.
                yield _started(sequence)
                yield _finished(SequenceEnd(sequence.finish_reason, sequence.stop_token_id, sequence.stats))
                return
            phases = RequestPhases(sequence, self._metrics)
            outputs = self._streams.generate(served.engine, sequence)
            with closing(phases):
                async with aclosing(outputs):
                    is_first = True
                    async for output in outputs:
                        phases.take(output)
                        if is_first and output.token_ids:
                            yield _started(sequence, output.prompt_logprobs)
                            is_first = False
                        if output.token_ids:
                            yield _round(output)
                        if output.end:
                            yield _finished(output.end)
        except Exhausted as error:
            self._metrics.count(names.REQUESTS_REFUSED, reason=error.reason)
            raise

    def _model(self) -> ServedModel:
        if self._served is None:
            raise Loading("the model is being loaded", retry_after_seconds=5.0)
        return self._served

    async def _sequence(
        self, request: verifier_service_pb2.GenerateRequest, served: ServedModel, seconds_left: float | None
    ) -> Sequence:
        deadline = None if seconds_left is None else time.monotonic() + seconds_left
        resolved = resolve_request(request, served.defaults)
        grammar = None
        if resolved.output_format:
            grammar = await served.grammars.compile(resolved.output_format, resolved.stopping.stop_token_ids)
        sequence = Sequence(
            sequence_id=next(self._sequence_ids),
            prompt_token_ids=resolved.prompt_token_ids,
            sampling=resolved.sampling,
            stopping=resolved.stopping,
            output=resolved.output,
            num_speculative_tokens=resolved.num_speculative_tokens,
            deadline=deadline,
            cache_salt=resolved.cache_salt,
            grammar=grammar,
            traceparent=traceparent(trace.get_current_span()),
        )
        if resolved.output_token_ids:
            # A grammar looks at each of them.
            kept = await asyncio.to_thread(sequence.commit, list(resolved.output_token_ids))
            if len(kept) < len(resolved.output_token_ids):
                raise InvalidRequest("output_token_ids", f"the text ends before token {len(kept)} of them")
        return sequence


def _started(sequence: Sequence, prompt_logprobs: Iterable[TokenLogprob] = ()) -> verifier_service_pb2.GenerateResponse:
    return verifier_service_pb2.GenerateResponse(
        started=verifier_service_pb2.SequenceStarted(
            seed=sequence.sampling.seed,
            num_cached_tokens=sequence.num_cached_tokens or 0,
            prompt_logprobs=map(_logprobs, prompt_logprobs),
        )
    )


def _round(output: SequenceOutput) -> verifier_service_pb2.GenerateResponse:
    return verifier_service_pb2.GenerateResponse(
        round=verifier_service_pb2.Round(
            token_ids=output.token_ids,
            num_drafted_tokens=output.num_accepted_tokens,
            logprobs=map(_logprobs, output.logprobs),
            num_draft_tokens=output.num_draft_tokens,
        )
    )


def _finished(end: SequenceEnd) -> verifier_service_pb2.GenerateResponse:
    """The last message.

    Raises:
        TandemError: the sequence ended in a way that a stream ends with a status.
    """
    errors: dict[FinishReason, TandemError] = {
        FinishReason.DEADLINE: DeadlineExceeded("the deadline passed before the text was complete"),
        FinishReason.FAULT: EngineFault("the engine failed in the middle of this request"),
        FinishReason.CANCELLED: Draining("the verifier stops"),
    }
    if end.reason in errors:
        raise errors[end.reason]
    return verifier_service_pb2.GenerateResponse(
        finished=verifier_service_pb2.SequenceFinished(
            reason=finish_reason_to_proto(end.reason),
            stop_token_id=end.stop_token_id,
            speculation=stats_to_proto(end.stats),
        )
    )


def _logprobs(about: TokenLogprob) -> verifier_service_pb2.TokenLogprobs:
    return logprobs_to_proto(about.chosen, about.top)
