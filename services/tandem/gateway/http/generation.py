"""The endpoints that generate: a request's body in, one answer or a stream of events out."""

from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from tandem.gateway.answers import Answers
from tandem.gateway.http.answer import Answer
from tandem.gateway.http.call import HttpCall
from tandem.gateway.http.request_body import read_request
from tandem.gateway.http.request_fields import GenerationFields
from tandem.gateway.rate_limit import Allowances
from tandem.gateway.token_spelling import TokenSpelling
from tandem.v1 import types_pb2


@dataclass(frozen=True)
class GenerationEndpoint:
    """Answers one kind of request.

    Whatever can refuse a request does so before the status goes out, the verifier's admission included.
    """

    request: type[GenerationFields]
    answer: type[Answer[Any]]
    answers: Answers
    allowances: Allowances
    spelling: TokenSpelling
    max_body_bytes: int

    async def __call__(self, call: HttpCall) -> None:
        """Reads the body, generates, and answers.

        Raises:
            Refusal: the body is no request.
            TandemError: the request cannot be served.
            ClientGone: nobody waits for the answer any more.
        """
        request = read_request(self.request, await call.body(self.max_body_bytes))
        spec = request.spec(call.given_request_id)
        answer = self.answer(request, self.spelling)
        with self.allowances.admitted():
            async with call.while_connected():
                if request.stream:
                    await self._stream(call, spec, answer)
                else:
                    await call.send_json(200, answer.whole(await self.answers.whole(spec, None)))

    async def _stream(self, call: HttpCall, spec: types_pb2.GenerationSpec, answer: Answer[Any]) -> None:
        async with aclosing(self.answers.events(spec, None)) as events:
            async for event in events:
                match event:
                    case types_pb2.Started():
                        await call.start_stream()
                        await call.send_event(answer.started(event))
                    case types_pb2.Delta():
                        chunk = answer.delta(event)
                        if chunk:
                            await call.send_event(chunk)
                    case types_pb2.Finished():
                        for chunk in answer.finished(event):
                            await call.send_event(chunk)
        await call.end_stream(is_complete=True)
