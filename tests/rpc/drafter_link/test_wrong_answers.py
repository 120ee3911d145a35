"""DrafterLink against drafters that answer what cannot be right: it costs drafts, never more."""

import logging
import os

import pytest

from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.engine.draft_source import Drafts, Fallback
from tests.rpc.fake_drafter import FakeDrafter, answer, drafts_of, honest
from tests.rpc.links import attached, drafts, play_round, until


async def stale_round(drafter, request):
    yield answer(request, [1, 1], round=request.round - 1)


async def later_round(drafter, request):
    yield answer(request, [1, 1], round=request.round + 1)


async def other_generation(drafter, request):
    yield answer(request, [1, 1], generation=request.generation - 1)


@pytest.mark.parametrize("script", [stale_round, later_round, other_generation])
async def test_an_answer_to_something_else_is_stale_and_both_begin_anew(address, link, script):
    async def once(drafter, request):
        async for response in (script if len(drafter.attached) == 1 else honest)(drafter, request):
            yield response

    fake = FakeDrafter(once)
    async with attached(fake, address, link):
        assert await play_round(link) == Drafts((), Fallback.STALE)
        await until(lambda: len(fake.attached) == 2 and link.info)
        assert await play_round(link) == drafts()


async def test_an_answer_that_nobody_asked_for_ends_the_stream(address, link):
    async def twice(drafter, request):
        async for response in honest(drafter, request):
            yield response
            yield response

    fake = FakeDrafter(twice)
    async with attached(fake, address, link):
        assert await play_round(link) == drafts()
        await until(lambda: len(fake.attached) == 2)


def miscounting(*counts, num_written=3):
    async def script(drafter, request):
        drafter.write(request, {slot: drafts_of(slot, num_written) for slot in request.slots})
        yield answer(request, counts)

    return script


async def without_drafts(drafter, request):
    yield answer(request, [2] * len(request.slots))


async def of_another_round(drafter, request):
    other = pb.DraftRequest(generation=request.generation, round=request.round + 1)
    drafter.write(other, {slot: drafts_of(slot, 2) for slot in request.slots})
    yield answer(request, [2] * len(request.slots))


async def cutting_off(drafter, request):
    drafter.write(request, {slot: drafts_of(slot, 2) for slot in request.slots})
    os.truncate(drafter.attached[-1].shared_memory.drafts_path, 70)
    yield answer(request, [2] * len(request.slots))


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(miscounting(3), id="a count missing"),
        pytest.param(miscounting(3, 3, 3), id="a count too many"),
        pytest.param(miscounting(4, 4, num_written=4), id="more than asked for"),
        pytest.param(miscounting(3, 2**32 - 1), id="far more"),
        pytest.param(miscounting(3, 2), id="other than written"),
        without_drafts,
        of_another_round,
        cutting_off,
    ],
)
async def test_an_answer_that_cannot_be_right_is_invalid_and_the_stream_goes_on(address, link, script):
    fake = FakeDrafter(script)
    async with attached(fake, address, link):
        assert await play_round(link) == Drafts((), Fallback.INVALID)
        fake.script = honest
        if script is not cutting_off:
            assert await play_round(link) == drafts()
        assert len(fake.attached) == 1
    async with attached(fake, address, link):
        assert await play_round(link) == drafts(), "a new attachment mends the file"


async def test_any_token_id_is_passed_on_for_the_engine_to_judge(address, link):
    async def out_of_range(drafter, request):
        drafter.write(request, {0: (-1, 2**31 - 1), 3: (-(2**31),)})
        yield answer(request, [2, 1])

    async with attached(FakeDrafter(out_of_range), address, link):
        assert await play_round(link) == Drafts([(-1, 2**31 - 1), (-(2**31),)])


async def test_a_huge_answer_is_refused_unread(address, link):
    async def flood(drafter, request):
        yield answer(request, [1] * (2 << 20))

    fake = FakeDrafter(flood)
    async with attached(fake, address, link):
        link._timeout_seconds = 5.0
        assert await play_round(link) == Drafts((), Fallback.LOST)
        fake.script = honest
        await until(lambda: len(fake.attached) == 2 and link.info)
        assert await play_round(link) == drafts()


async def test_rounds_without_drafts_share_a_line(address, link, caplog):
    async with attached(FakeDrafter(miscounting()), address, link):
        with caplog.at_level(logging.WARNING, "tandem.verifier"):
            for _ in range(20):
                assert (await play_round(link)).fallback is Fallback.INVALID
    assert [r.message for r in caplog.records if "rounds" in r.message] == [
        "rounds without drafts since the last such line: 1 invalid"
    ]
