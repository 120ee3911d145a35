"""The lookup drafter behind its socket: what it is sent, what it answers, whom it refuses."""

import asyncio
import os
import time
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest

from tandem.core.errors import ConfigError
from tandem.drafter.lookup_config import LookupConfig
from tandem.drafter.lookup_service import open_lookup_drafter, run
from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.drafter.v1 import drafter_service_pb2_grpc as pb_grpc
from tandem.engine.draft_source import DrafterInfo, Drafts, Fallback, Wanted
from tandem.exchange.shared_exchange import SharedExchange
from tandem.rpc.channel import open_channel
from tandem.telemetry import metrics as names
from tandem.telemetry.metrics import Metrics
from tandem.verifier import drafter_link, peer
from tandem.verifier.drafter_link import DrafterLink
from tandem.verifier.memory_carrier import MemoryCarrier
from tandem.verifier.token_carrier import MAX_TOKENS_A_REQUEST, TokenCarrier
from tests.rpc.fake_drafter import SPEC, FakeDrafter, answer, drafting

TEXT = [1, 2, 3, 4, 5, 1, 2]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(drafter_link, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(drafter_link, "MAX_RETRY_SECONDS", 0.04)


@pytest.fixture
def address(tmp_path):
    return f"unix:{tmp_path}/lookup.sock"


@pytest.fixture
def metrics():
    return Metrics()


@asynccontextmanager
async def following(address, metrics, carrier=None):
    """The verifier's end, which dials."""
    link = DrafterLink(address, carrier or TokenCarrier(4, 100_000, 4), "rev", 2.0, metrics)
    task = asyncio.create_task(link.follow())
    try:
        yield link
        assert not task.done(), "whatever a drafter did, the link goes on"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def link(address, metrics):
    async with following(address, metrics) as link:
        yield link


async def until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        await asyncio.sleep(0.005)


async def play_round(link, *wanted, num_tokens=3):
    """(slot, sequence, tokens) of each that drafts are wanted for."""
    ones = [Wanted(slot, token_ids, num_tokens, sequence) for slot, sequence, token_ids in wanted]
    assert await asyncio.to_thread(link.begin, ones)
    return await asyncio.to_thread(link.collect)


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 5.0)
    return caught.value.code(), caught.value.details()


async def test_it_drafts_what_followed_before(address, link):
    async with open_lookup_drafter(LookupConfig(address)):
        await until(lambda: link.info)
        assert link.info == DrafterInfo("lookup", 4, "")
        text, other = list(TEXT), [8, 9, 8, 9]
        assert await play_round(link, (3, 1, text), (0, 2, other)) == Drafts([(3, 4, 5), (8, 9, 8)])
        text += [3, 4]
        assert await play_round(link, (3, 1, text), num_tokens=2) == Drafts([(5, 1)])
        assert await play_round(link, (3, 7, [1, 2]), (0, 2, other)) == Drafts([(), (8, 9, 8)]), "slot 3 changed hands"
        assert await play_round(link, (3, 1, text)) == Drafts([(5, 1, 2)]), "and changed back"
    await until(lambda: link.info is None)


async def test_a_long_prompt_is_drafted_for_once_it_is_all_there(address, link):
    async with open_lookup_drafter(LookupConfig(address)):
        await until(lambda: link.info)
        long = [*range(2 * MAX_TOKENS_A_REQUEST), 70, 71]
        rounds = [await play_round(link, (0, 1, long), (1, 2, TEXT)) for _ in range(3)]
        assert [one.token_ids for one in rounds] == [[(), (3, 4, 5)]] * 2 + [[(72, 73, 74), (3, 4, 5)]]
        assert not any(one.fallback for one in rounds)


async def test_a_new_attachment_is_sent_everything_again(address, link, metrics):
    for _ in range(2):
        async with open_lookup_drafter(LookupConfig(address)):
            await until(lambda: link.info)
            assert await play_round(link, (0, 1, TEXT)) == Drafts([(3, 4, 5)])
        await until(lambda: link.info is None)
    assert metrics.value(names.DRAFTER_ATTACHMENTS) == 2


async def test_a_verifier_without_a_token_stream_is_refused(address):
    async with open_lookup_drafter(LookupConfig(address)), open_channel(address) as channel:
        stub = pb_grpc.DrafterServiceStub(channel)
        code, details = await refusal(stub.Attach(pb.AttachRequest(layout_version=1, generation=5)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT and "token_stream: is needed" in details


async def test_only_the_attachment_and_the_slots_there_are_can_be_drafted_for(address):
    async with open_lookup_drafter(LookupConfig(address)), open_channel(address) as channel:
        stub = pb_grpc.DrafterServiceStub(channel)
        new = pb.SlotTokens(slot=4, sequence=1, token_ids=[1])
        for fields, message in [
            ({"generation": 6}, "generation: is not attached"),
            ({"generation": 5, "slots": [4]}, "slots: must be below 4"),
            ({"generation": 5, "tokens": [new]}, "slots: must be below 4"),
        ]:
            await stub.Attach(pb.AttachRequest(generation=5, token_stream={"num_slots": 4}))
            call = stub.Draft()
            await call.write(pb.DraftRequest(round=1, num_tokens=1, **fields))
            assert await refusal(call.read()) == (grpc.StatusCode.INVALID_ARGUMENT, message)


async def test_the_link_dials_nobody_it_does_not_trust(address, link, monkeypatch):
    monkeypatch.setattr(peer, "_listener", lambda _path: os.geteuid() + 1)
    async with open_lookup_drafter(LookupConfig(address)):
        await asyncio.sleep(0.2)
        assert link.info is None
        monkeypatch.undo()
        await until(lambda: link.info)


async def test_memory_and_tokens_side_by_side(address, link, metrics, tmp_path):
    """Each link has its own attachment: what befalls one leaves the other alone."""
    exchange, fake = SharedExchange(SPEC, tmp_path), FakeDrafter()
    async with AsyncExitStack() as stack:
        stack.callback(exchange.close)
        other = await stack.enter_async_context(
            following(f"unix:{tmp_path}/other.sock", metrics, MemoryCarrier(exchange))
        )
        await stack.enter_async_context(drafting(fake, f"unix:{tmp_path}/other.sock"))
        async with open_lookup_drafter(LookupConfig(address)):
            await until(lambda: link.info and other.info)
            assert [metrics.value(names.DRAFTER_ATTACHED, carrier=name) for name in ("memory", "tokens")] == [1, 1]
            assert await play_round(link, (0, 1, TEXT)) == Drafts([(3, 4, 5)])
            assert not fake.attached[0].HasField("token_stream")
        await until(lambda: not link.info)
        assert [metrics.value(names.DRAFTER_ATTACHED, carrier=name) for name in ("memory", "tokens")] == [1, 0]
        assert await play_round(other, (0, 1, TEXT)) == Drafts([(0, 1, 2)])


@pytest.mark.parametrize(
    ("counts", "token_ids"),
    [([3], [1, 2]), ([3], [1, 2, 3, 4]), ([], []), ([1, 1], [1, 2]), ([4], [1, 2, 3, 4]), ([2**32 - 1], [1])],
    ids=str,
)
async def test_an_answer_that_cannot_be_right_is_invalid_and_the_stream_goes_on(address, link, counts, token_ids):
    async def wrong(drafter, request):
        yield answer(request, counts, token_ids=token_ids)

    async def right(drafter, request):
        yield answer(request, [2], token_ids=[-1, 2**31 - 1])

    fake = FakeDrafter(wrong)
    async with drafting(fake, address):
        await until(lambda: link.info)
        assert await play_round(link, (0, 1, TEXT)) == Drafts((), Fallback.INVALID)
        fake.script = right
        assert await play_round(link, (0, 1, TEXT)) == Drafts([(-1, 2**31 - 1)]), "ids are the engine's to judge"
        assert [len(request.tokens) for request in fake.rounds] == [1, 0] and len(fake.attached) == 1
        assert (fake.attached[0].token_stream.num_slots, fake.attached[0].HasField("shared_memory")) == (4, False)


async def test_a_huge_answer_is_refused_unread(address, link):
    async def flood(drafter, request):
        yield answer(request, [3], token_ids=[2**31 - 1] * 300_000)

    fake = FakeDrafter(flood)
    async with drafting(fake, address):
        await until(lambda: link.info)
        assert await play_round(link, (0, 1, TEXT)) == Drafts((), Fallback.LOST)
        await until(lambda: len(fake.attached) == 2)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"listen": "127.0.0.1:0"}, "--listen must be unix:"),
        ({"num_speculative_tokens": 0}, "--num-speculative-tokens"),
        ({"num_speculative_tokens": 65}, "--num-speculative-tokens"),
        ({"memory_tokens": 0}, "--memory-tokens"),
    ],
)
async def test_settings_it_cannot_start_with(settings, match):
    with pytest.raises(ConfigError, match=match):
        await run(LookupConfig(**settings))
