"""One generation on its way through the gateway: the verifier's messages in, the client's out."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from tandem.core.errors import EngineFault
from tandem.core.sequence import SpeculationStats
from tandem.gateway.detokenizer import detokenizer_for
from tandem.gateway.stop_matcher import StopMatcher
from tandem.gateway.text_stream import TextStream
from tandem.gateway.tokenizer import TextTokenizer
from tandem.gateway.turn_parser import TurnParser
from tandem.internal.v1 import verifier_service_pb2
from tandem.rpc.conversion import stats_to_proto
from tandem.v1 import model_service_pb2, types_pb2

Event = types_pb2.Started | types_pb2.Delta | types_pb2.Finished


class Generation:
    """Turns the answer to one admitted request into `started`, deltas and `finished`."""

    def __init__(
        self,
        spec: types_pb2.GenerationSpec,
        request: verifier_service_pb2.GenerateRequest,
        model: model_service_pb2.Model,
        tokenizer: TextTokenizer,
    ) -> None:
        """Prepares for the answer to `request`, which was made from `spec` for `model`."""
        self._spec = spec
        self._request = request
        self._model = model
        self._tokenizer = tokenizer
        stopping = spec.stopping
        is_turn = spec.WhichOneof("prompt") == "conversation"
        self._text = TextStream(
            detokenizer_for(tokenizer),
            StopMatcher(stopping.stop, stopping.include_stop),
            {*stopping.stop_token_ids, *(() if stopping.ignore_eos else model.eos_token_ids)},
            stopping.min_tokens,
            stopping.include_stop,
            TurnParser(tokenizer, request.prompt_token_ids) if is_turn else None,
        )
        self._num_cached_tokens = 0
        self._stats = SpeculationStats()

    async def events(
        self, responses: AsyncIterator[verifier_service_pb2.GenerateResponse]
    ) -> AsyncGenerator[Event, None]:
        """What the client is told. Once a stop text is met nothing more is read from `responses`.

        Raises:
            EngineFault: the verifier ended its stream without saying how.
        """
        async for response in responses:
            match response.WhichOneof("event"):
                case "started":
                    yield await self._started(response.started)
                case "round":
                    self._count(response.round)
                    delta = self._text.push(response.round)
                    if delta.text or delta.num_tokens:
                        yield self._for_client(delta)
                    if self._text.match:
                        yield self._stopped(self._text.match)
                        return
                case "finished":
                    delta = self._text.finish()
                    if delta.text or delta.num_tokens:
                        yield self._for_client(delta)
                    yield self._stopped(self._text.match) if self._text.match else self._finished(response.finished)
                    return
        raise EngineFault("the verifier's stream ended without an end")

    async def _started(self, started: verifier_service_pb2.SequenceStarted) -> types_pb2.Started:
        self._num_cached_tokens = started.num_cached_tokens
        event = types_pb2.Started(
            request_id=self._request.request_id,
            model=self._model.name,
            seed=started.seed,
            num_prompt_tokens=len(self._request.prompt_token_ids),
            num_cached_tokens=started.num_cached_tokens,
        )
        if started.prompt_logprobs:
            # Long prompts take long, and other streams go on meanwhile.
            event.prompt_tokens.extend(await asyncio.to_thread(self._prompt_tokens, started))
        return event

    def _prompt_tokens(self, started: verifier_service_pb2.SequenceStarted) -> list[types_pb2.Token]:
        detokenizer = detokenizer_for(self._tokenizer)
        ids = self._request.prompt_token_ids
        texts = [text for token_id in ids for text in detokenizer.push(token_id)] + detokenizer.flush()
        return [
            types_pb2.Token(id=token_id, text=text, logprob=logprobs.logprob, top_logprobs=logprobs.top_logprobs)
            for token_id, text, logprobs in zip(ids[1:], texts[1:], started.prompt_logprobs, strict=True)
        ]

    def _count(self, verified: verifier_service_pb2.Round) -> None:
        if verified.HasField("num_draft_tokens"):
            self._stats.record(verified.num_draft_tokens, verified.num_drafted_tokens)

    def _for_client(self, delta: types_pb2.Delta) -> types_pb2.Delta:
        output = self._spec.output
        if not output.token_ids and not output.HasField("top_logprobs"):
            del delta.tokens[:]
        return delta

    def _stopped(self, stop_text: str) -> types_pb2.Finished:
        return types_pb2.Finished(
            reason=types_pb2.FINISH_REASON_STOP,
            stop_text=stop_text,
            usage=self._usage(),
            speculation=stats_to_proto(self._stats),
        )

    def _finished(self, finished: verifier_service_pb2.SequenceFinished) -> types_pb2.Finished:
        # Counted here: a verifier knows its own part of a text only.
        speculation = stats_to_proto(self._stats)
        event = types_pb2.Finished(reason=finished.reason, usage=self._usage(), speculation=speculation)
        if finished.HasField("stop_token_id"):
            event.stop_token_id = finished.stop_token_id
            if self._text.num_tool_calls and finished.stop_token_id in self._model.eos_token_ids:
                event.reason = types_pb2.FINISH_REASON_TOOL_CALLS
        return event

    def _usage(self) -> types_pb2.Usage:
        return types_pb2.Usage(
            num_prompt_tokens=len(self._request.prompt_token_ids),
            num_cached_tokens=self._num_cached_tokens,
            num_output_tokens=self._text.num_released_tokens,
        )
