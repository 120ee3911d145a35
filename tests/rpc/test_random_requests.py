"""Thousands of random requests at a running replica: each gets the answer that the contract promises, and the replica
is whole afterwards.

Whenever the verifier's engine is idle, as it is between two batches, it checks that no slot and no block is lost or
held by nobody, and dies of it; a service that dies is noticed at the end.
"""

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tandem.rpc.errors import ERROR_DOMAIN, RETRY_PUSHBACK_KEY, STATUS_DETAILS_KEY, from_rpc_error
from tandem.v1 import generation_service_pb2 as pb
from tandem.v1 import generation_service_pb2_grpc, types_pb2
from tests.checkpoints import make_tiny_pair
from tests.e2e.conftest import Up
from tests.rpc.random_requests import (
    API_KEY,
    EOS_TOKEN_IDS,
    KV_TOKENS,
    VOCABULARY_SIZE,
    RandomRequest,
    Refusal,
    random_requests,
)
from tests.unit.gateway.conftest import GEMMA_TEMPLATE, byte_level_tokenizer, save_checkpoint

NUM_BATCHES, BATCH_SIZE = 77, 65
MAX_SEQUENCES = 32  # the others of a batch wait
K = 3
MAX_BUSY_ANSWERS = 50  # a format that is checked for the first time may have to wait for a busy machine
SYSTEM_COMES_FIRST = """\
{%- for message in messages[1:] -%}
{%- if message.role == 'system' -%}{{- raise_exception('system comes first') -}}{%- endif -%}
{%- endfor -%}
"""


@pytest.fixture(scope="module")
def replica(tmp_path_factory):
    """`tandem up` on a tiny pair: gateway, verifier and drafter, a process each."""
    folder = tmp_path_factory.mktemp("replica")
    target, drafter = make_tiny_pair(
        folder, vocab_size=VOCABULARY_SIZE, num_hidden_layers=3, drafter={"num_hidden_layers": 2}
    )
    save_checkpoint(target, byte_level_tokenizer(), SYSTEM_COMES_FIRST + GEMMA_TEMPLATE)
    (folder / "keys").write_text(API_KEY)
    up = Up(
        *(f"--target={target}", f"--draft-model={drafter}", f"--api-keys-file={folder / 'keys'}"),
        *(
            f"--kv-tokens={KV_TOKENS}",
            f"--max-sequences={MAX_SEQUENCES}",
            f"--num-speculative-tokens={K}",
            "--draft-timeout-ms=2000",
        ),
    )
    try:
        assert up.address
        yield up
    finally:
        up.close()
        print(up.output[-5000:])  # why, if something failed


class Client:
    """Sends batches of requests over one channel, from a loop of its own."""

    def __init__(self, address):
        self._runner = asyncio.Runner()
        self._channel = self._runner.run(self._open(address))
        self._stub = generation_service_pb2_grpc.GenerationServiceStub(self._channel)
        self.num_refused = self.num_served = self.num_repeated = 0

    async def _open(self, address):
        return grpc.aio.insecure_channel(address)

    def close(self):
        self._runner.run(self._channel.close())
        self._runner.close()

    def check(self, requests):
        """Sends all at once; fails unless each gets the answer it must get."""

        async def check_all():
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                for request in requests:
                    group.create_task(self._check(request))

        self._runner.run(check_all())

    async def _check(self, request: RandomRequest):
        try:
            if request.refusal:
                await self._check_refused(request)
                self.num_refused += 1
            elif request.is_dropped:
                await self._drop(request)
            else:
                await self._check_served(request)
                self.num_served += 1
        except (AssertionError, grpc.aio.AioRpcError) as error:
            raise AssertionError(f"{error}\nafter {request}") from error

    def _stream(self, request):
        metadata = () if request.api_key is None else (("authorization", f"Bearer {request.api_key}"),)
        return self._stub.StreamGenerate(pb.StreamGenerateRequest(spec=request.spec), metadata=metadata)

    async def _check_refused(self, request):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self._events(request)
        assert refusal_of(caught.value) == request.refusal

    async def _events(self, request):
        """All of a stream; of one with an output format as often as the machine is too busy to look at that."""
        for _ in range(MAX_BUSY_ANSWERS if request.spec.HasField("output_format") else 0):
            try:
                return [event async for event in self._stream(request)]
            except grpc.aio.AioRpcError as error:
                if from_rpc_error(error).reason != "QUEUE_FULL":
                    raise
                await asyncio.sleep(0.2)
        return [event async for event in self._stream(request)]

    async def _drop(self, request):
        call = self._stream(request)
        await call.read()
        call.cancel()

    async def _check_served(self, request):
        events = await self._events(request)
        kinds = [event.WhichOneof("event") for event in events]
        assert kinds == ["started", *["delta"] * (len(events) - 2), "finished"]
        started, finished = events[0].started, events[-1].finished
        output = pb.GenerateResponse().output
        for event in events[1:-1]:
            output.text += event.delta.text
            output.thought += event.delta.thought
            output.tool_calls.extend(event.delta.tool_calls)
            output.num_tokens += event.delta.num_tokens
            output.num_drafted_tokens += event.delta.num_drafted_tokens
            output.tokens.extend(event.delta.tokens)
        check_limits(request.spec, started, output, finished)
        if started.seed % 2:  # half of them
            await self._check_again(request, started, output, finished)
            self.num_repeated += 1

    async def _check_again(self, request, started, output, finished):
        """The same answer, whole and drafted for in another way."""
        again = types_pb2.GenerationSpec()
        again.CopyFrom(request.spec)
        again.sampling.seed = started.seed
        again.speculation.num_speculative_tokens = 0 if output.num_drafted_tokens else K
        response = await self._stub.Generate(
            pb.GenerateRequest(spec=again), metadata=(("authorization", f"Bearer {request.api_key}"),)
        )
        assert (response.output.text, response.output.thought) == (output.text, output.thought)
        assert list(response.output.tool_calls) == list(output.tool_calls)
        assert [token.id for token in response.output.tokens] == [token.id for token in output.tokens]
        assert response.finished.reason == finished.reason
        assert response.finished.usage.num_output_tokens == finished.usage.num_output_tokens


def refusal_of(error):
    """The row of the error table that a refusal is of; its details must be those of the row."""
    details = {}
    for packed in status_pb2.Status.FromString(error.trailing_metadata()[STATUS_DETAILS_KEY]).details:
        name = packed.type_url.rpartition(".")[2]
        details[name] = getattr(error_details_pb2, name)()
        packed.Unpack(details[name])
    info = details.pop("ErrorInfo")
    assert info.domain == ERROR_DOMAIN
    field = None
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        (violation,) = details.pop("BadRequest").field_violations
        assert violation.description
        field = violation.field
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        milliseconds = details.pop("RetryInfo").retry_delay.ToMilliseconds()
        assert error.trailing_metadata()[RETRY_PUSHBACK_KEY] == str(milliseconds)
    assert not details
    return Refusal(error.code(), info.reason, field)


def joined(output, *parts):
    return "".join(token.text for token in output.tokens if token.part in parts)


def check_limits(spec, started, output, finished):
    """Fails unless an answer keeps to what was asked."""
    stopping, asked, usage, speculation = spec.stopping, spec.output, finished.usage, finished.speculation
    assert started.request_id == spec.request_id if spec.request_id else started.request_id
    assert not spec.sampling.HasField("seed") or started.seed == spec.sampling.seed
    assert spec.WhichOneof("prompt") != "token_ids" or started.num_prompt_tokens == len(spec.token_ids.ids)
    assert 0 <= started.num_cached_tokens < started.num_prompt_tokens == usage.num_prompt_tokens

    assert output.num_tokens == usage.num_output_tokens
    assert output.num_drafted_tokens <= speculation.num_accepted_tokens <= speculation.num_draft_tokens
    if spec.speculation.HasField("num_speculative_tokens"):
        most = spec.speculation.num_speculative_tokens
        assert speculation.num_draft_tokens <= speculation.num_rounds * most
    match finished.reason, finished.WhichOneof("match"):
        case types_pb2.FINISH_REASON_LENGTH, None:
            assert output.num_tokens == stopping.max_tokens
        case types_pb2.FINISH_REASON_STOP, "stop_text":
            assert finished.stop_text in stopping.stop and output.num_tokens <= stopping.max_tokens
            assert not stopping.include_stop or output.text.endswith(finished.stop_text)
        case types_pb2.FINISH_REASON_STOP, "stop_token_id":
            assert finished.stop_token_id in {*stopping.stop_token_ids, *([] if stopping.ignore_eos else EOS_TOKEN_IDS)}
            assert stopping.min_tokens < output.num_tokens <= stopping.max_tokens
        case types_pb2.FINISH_REASON_STOP, None:  # nothing may follow a text that is complete
            assert spec.HasField("output_format") and output.num_tokens <= stopping.max_tokens
        case other:
            pytest.fail(f"ended by {other}")
    if not stopping.include_stop and not stopping.min_tokens:  # what is complete before those is passed over
        assert not any(stop in output.text for stop in stopping.stop)

    is_listed = asked.token_ids or asked.HasField("top_logprobs")
    assert len(output.tokens) == (output.num_tokens if is_listed else 0)
    if is_listed:
        assert joined(output, types_pb2.OUTPUT_PART_UNSPECIFIED, types_pb2.OUTPUT_PART_TEXT) == output.text
        assert joined(output, types_pb2.OUTPUT_PART_THOUGHT) == output.thought
    for token in output.tokens:
        assert token.HasField("logprob") == asked.HasField("top_logprobs")
        assert len(token.top_logprobs) == asked.top_logprobs
    assert len(started.prompt_tokens) == (started.num_prompt_tokens - 1 if asked.prompt_logprobs else 0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_request_gets_its_answer_and_the_replica_stays_whole(replica):
    client = Client(replica.address)
    num_sent = 0

    @settings(
        max_examples=NUM_BATCHES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # the answer depends on what else is under way: a smaller batch may say nothing
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(random_requests(), min_size=BATCH_SIZE, max_size=BATCH_SIZE))
    def check(requests):
        nonlocal num_sent
        num_sent += len(requests)
        client.check(requests)

    try:
        check()
        # One more: the engine was idle before, and looked whether it is whole.
        client.check([RandomRequest(types_pb2.GenerationSpec(text="hello", stopping={"max_tokens": 4}))])
    finally:
        client.close()
    assert num_sent >= 5000 and client.num_refused > 1000
    assert client.num_served > 2000 and client.num_repeated > 1000
    assert " died " not in replica.output and "Traceback" not in replica.output
