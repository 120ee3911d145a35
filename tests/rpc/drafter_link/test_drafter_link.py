"""DrafterLink against drafters that are honest, late and gone: it costs drafts, never more."""

import asyncio
import logging
import os
import time

import pytest

from tandem.core.errors import Unavailable
from tandem.engine.draft_source import DrafterInfo, Drafts, Fallback
from tandem.telemetry import metrics as names
from tandem.verifier import drafter_link, peer
from tests.engines import wanted
from tests.rpc.fake_drafter import FakeDrafter, answer, drafting, honest
from tests.rpc.links import TIMEOUT_SECONDS, attached, drafts, play_round, until


async def test_drafts_arrive_in_the_order_asked_for(address, link, exchange, metrics):
    fake = FakeDrafter()
    assert link.info is None and not link.begin(wanted([0], 2))
    async with attached(fake, address, link):
        assert link.info == DrafterInfo("fake", 4, "r1")
        assert await play_round(link) == drafts()
        assert await play_round(link, (7, 2, 5), 1) == drafts((7, 2, 5), 1)
        [request] = fake.attached
        assert (request.layout_version, request.num_speculative_tokens, request.target_revision) == (1, 4, "target-rev")
        assert request.shared_memory.target_path == str(exchange.target_path)
        assert [one.num_blocks for one in request.shared_memory.layers] == [4, 4]
        assert [one.round for one in fake.rounds] == [1, 2]
        assert {one.generation for one in fake.rounds} == {request.generation}
        assert metrics.value(names.DRAFTER_ATTACHED) == 1
    await until(lambda: link.info is None)
    assert metrics.value(names.DRAFTER_ATTACHED) == 0 and metrics.value(names.DRAFTER_ATTACHMENTS) == 1


async def test_no_more_is_asked_for_than_the_drafter_drafts(address, link):
    fake = FakeDrafter(num_speculative_tokens=2)
    async with attached(fake, address, link):
        assert link.info.num_speculative_tokens == 2
        assert await play_round(link, num_tokens=4) == drafts(num_tokens=2)
        assert not link.begin(wanted([0], 0))


@pytest.mark.parametrize(("theirs", "ours"), [(2**32 - 1, 4), (0, 0)])
async def test_what_a_drafter_says_of_itself_is_bounded(address, link, theirs, ours):
    fake = FakeDrafter(name="evil\n\x1b[2J" + "x" * 10_000, num_speculative_tokens=theirs, revision="y" * 10_000)
    async with attached(fake, address, link):
        assert link.info.num_speculative_tokens == ours
        assert link.info.name.startswith("evil??[2Jxx") and len(link.info.name) == len(link.info.revision) == 100
        assert await asyncio.to_thread(link.begin, wanted([0], 4)) == (ours > 0)


async def test_fewer_drafts_than_asked_for_are_no_fault(address, link):
    async def some(drafter, request):
        drafter.write(request, {3: (8, 9)})
        yield answer(request, [0, 2, 0])

    async with attached(FakeDrafter(some), address, link):
        assert await play_round(link, (1, 3, 4), 4) == Drafts([(), (8, 9), ()])


async def test_a_killed_drafter_costs_its_round_and_is_found_again(address, link, metrics):
    async def never(drafter, request):
        await asyncio.Event().wait()
        yield

    first = FakeDrafter(never)
    async with attached(first, address, link) as server:
        link._timeout_seconds = 5.0
        assert await asyncio.to_thread(link.begin, wanted([0], 2))
        collected = asyncio.create_task(asyncio.to_thread(link.collect))
        await until(lambda: first.rounds)
        await server.stop(0)
        assert await asyncio.wait_for(collected, 1.0) == Drafts((), Fallback.LOST)
    await until(lambda: link.info is None)
    assert not link.begin(wanted([0], 2))
    second = FakeDrafter(name="second")
    async with attached(second, address, link):
        assert link.info.name == "second"
        assert await play_round(link) == drafts()
    assert second.attached[0].generation != first.attached[0].generation
    assert metrics.value(names.DRAFTER_ATTACHMENTS) == 2


async def test_a_late_answer_costs_rounds_until_it_comes(address, link, metrics):
    async def late_once(drafter, request):
        if request.round == 1:
            await drafter.go_on.wait()
        async for response in honest(drafter, request):
            yield response

    fake = FakeDrafter(late_once)
    async with attached(fake, address, link):
        started = time.monotonic()
        assert await play_round(link) == Drafts((), Fallback.LATE)
        assert TIMEOUT_SECONDS <= time.monotonic() - started < TIMEOUT_SECONDS + 1.0
        assert [link.begin(wanted([0], 2)) for _ in range(3)] == [False] * 3
        assert metrics.value(names.SPEC_FALLBACKS, reason="late") == 3
        assert len(fake.rounds) == 1, "nothing is asked for while an answer is outstanding"
        fake.go_on.set()
        await until(lambda: not link._outstanding)
        assert await play_round(link, (5,), 2) == drafts((5,), 2)
        assert len(fake.attached) == 1


async def test_a_stuck_drafter_is_attached_anew(address, link, monkeypatch):
    async def stuck_once(drafter, request):
        if len(drafter.attached) == 1:
            await asyncio.Event().wait()
        async for response in honest(drafter, request):
            yield response

    monkeypatch.setattr(drafter_link, "STUCK_SECONDS", 0.15)
    fake = FakeDrafter(stuck_once)
    async with attached(fake, address, link):
        assert (await play_round(link)).fallback is Fallback.LATE
        async with asyncio.timeout(5.0):
            while not await asyncio.to_thread(link.begin, wanted([0, 3], 3)):
                await asyncio.sleep(0.005)
        assert await asyncio.to_thread(link.collect) == drafts()
        assert len(fake.attached) == 2


async def test_a_drafter_that_refuses_is_asked_again(address, link, caplog):
    fake = FakeDrafter()
    fake.attach_error = Unavailable("not now")
    async with drafting(fake, address):
        await until(lambda: len(fake.attached) >= 3)
        assert link.info is None and not link.begin(wanted([0], 1))
        assert sum("not now" in record.message for record in caplog.records) == 1, "told once, not each time"
        fake.attach_error = None
        await until(lambda: link.info)
        assert await play_round(link) == drafts()


async def test_a_stream_that_does_not_work_is_no_attachment(address, link, metrics):
    fake = FakeDrafter()
    fake.says_hello = False
    async with drafting(fake, address):
        await until(lambda: len(fake.attached) >= 3)
        assert link.info is None and metrics.value(names.DRAFTER_ATTACHMENTS) == 0


async def test_a_drafter_that_breaks_every_attachment_is_dialled_ever_more_rarely(address, link, caplog, monkeypatch):
    async def refuse(drafter, request):
        raise Unavailable("go away")
        yield

    monkeypatch.setattr(drafter_link, "MAX_RETRY_SECONDS", 60.0)
    fake = FakeDrafter(refuse)
    with caplog.at_level(logging.INFO, "tandem.verifier"):
        async with drafting(fake, address):
            for _ in range(4):
                await until(lambda: link.info)
                assert (await play_round(link)).fallback is Fallback.LOST
                lost_at = time.monotonic()
            await until(lambda: link.info)
            assert time.monotonic() - lost_at >= 0.01 * 2**4
    lines = [record.message for record in caplog.records]
    assert sum("attached" in line for line in lines) == 5
    assert sum(line == "drafter fake lost: UNAVAILABLE: go away" for line in lines) == 4


async def test_after_close_nobody_drafts(address, link):
    fake = FakeDrafter()
    async with attached(fake, address, link):
        assert await play_round(link) == drafts()
        link.close()
        assert not link.begin(wanted([0], 1))
        await until(lambda: link.info is None)
        await asyncio.sleep(0.05)
        assert len(fake.attached) == 1 and link.info is None


async def test_an_ended_loop_is_no_fault_of_the_engine(address, link):
    """The service's loop ends before the engine does: the last rounds then go unanswered."""
    async with attached(FakeDrafter(), address, link):
        ended = asyncio.new_event_loop()
        ended.close()
        link._loop = ended
        assert await play_round(link) == Drafts((), Fallback.LATE)
        link.close()


async def test_the_link_dials_nobody_it_does_not_trust(address, link, monkeypatch, caplog):
    fake = FakeDrafter()
    monkeypatch.setattr(peer, "_listener", lambda _path: os.geteuid() + 1)
    async with drafting(fake, address):
        await asyncio.sleep(0.2)
        assert not fake.attached and link.info is None
        monkeypatch.undo()
        monkeypatch.setattr(drafter_link, "RETRY_SECONDS", 0.01)
        await until(lambda: link.info)
    assert sum("listens there" in record.message for record in caplog.records) == 1
