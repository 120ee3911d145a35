"""DrafterLink against drafters that are honest, late, gone and hostile: it costs drafts, never more."""

import asyncio
import logging
import os
import socket
import stat
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tandem.core.errors import Unavailable
from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.engine.draft_source import DrafterInfo, Drafts, Fallback
from tandem.exchange.shared_exchange import SharedExchange
from tandem.rpc.server import RpcServer
from tandem.telemetry import metrics as names
from tandem.telemetry.metrics import Metrics
from tandem.verifier import drafter_link, peer
from tandem.verifier.drafter_link import DrafterLink
from tandem.verifier.memory_carrier import MemoryCarrier
from tandem.verifier.peer import NobodyListens, PeerRefused, check_peer
from tests.engines import wanted
from tests.rpc.fake_drafter import SPEC, FakeDrafter, answer, drafting, drafts_of, honest

TIMEOUT_SECONDS = 0.1


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(drafter_link, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(drafter_link, "MAX_RETRY_SECONDS", 0.04)


@pytest.fixture
def address(tmp_path):
    return f"unix:{tmp_path}/drafter.sock"


@pytest.fixture
def exchange(tmp_path):
    exchange = SharedExchange(SPEC, tmp_path)
    yield exchange
    exchange.close()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
async def link(address, exchange, metrics):
    link = DrafterLink(address, MemoryCarrier(exchange), "target-rev", TIMEOUT_SECONDS, metrics)
    following = asyncio.create_task(link.follow())
    yield link
    assert not following.done(), "whatever a drafter did, the link goes on"
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def until(condition, seconds=3.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def attached(fake, address, link):
    async with drafting(fake, address) as server:
        await until(lambda: link.info)
        yield server
    await until(lambda: link.info is None)


async def play_round(link, slots=(0, 3), num_tokens=3):
    """What a round of the engine sees."""
    assert link.begin(wanted(list(slots), num_tokens))
    return await asyncio.to_thread(link.collect)


def drafts(slots=(0, 3), num_tokens=3):
    return Drafts([drafts_of(slot, num_tokens) for slot in slots])


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
        assert link.begin(wanted([0], 4)) == (ours > 0)


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
        assert link.begin(wanted([0], 2))
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
        await until(lambda: link.begin(wanted([0, 3], 3)))
        assert await asyncio.to_thread(link.collect) == drafts()
        assert len(fake.attached) == 2


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


async def test_rounds_without_drafts_share_a_line(address, link, caplog):
    async with attached(FakeDrafter(miscounting()), address, link):
        with caplog.at_level(logging.WARNING, "tandem.verifier"):
            for _ in range(20):
                assert (await play_round(link)).fallback is Fallback.INVALID
    assert [r.message for r in caplog.records if "rounds" in r.message] == [
        "rounds without drafts since the last such line: 1 invalid"
    ]


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


def listen(path, mode=0o600):
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    os.chmod(path, mode)
    server.listen()
    return server


def test_a_socket_of_this_user_alone_is_trusted(tmp_path):
    with listen(tmp_path / "s"):
        check_peer(tmp_path / "s")


@pytest.mark.parametrize("mode", [0o606, 0o660, 0o666, 0o620])
def test_a_socket_open_to_others_is_not(tmp_path, mode):
    with listen(tmp_path / "s", mode), pytest.raises(PeerRefused, match="mode 0600"):
        check_peer(tmp_path / "s")


def test_a_directory_open_to_others_is_not(tmp_path):
    directory = tmp_path / "open"
    directory.mkdir()
    with listen(directory / "s"):
        directory.chmod(0o777)
        with pytest.raises(PeerRefused, match="directory"):
            check_peer(directory / "s")
        directory.chmod(0o777 | stat.S_ISVTX)
        check_peer(directory / "s")


def test_what_is_no_socket_is_not(tmp_path):
    (tmp_path / "file").touch(0o600)
    with listen(tmp_path / "s"):
        (tmp_path / "link").symlink_to(tmp_path / "s")
        for name in ("file", "link"):
            with pytest.raises(PeerRefused, match="socket"):
                check_peer(tmp_path / name)


def test_nobody_listens(tmp_path):
    with pytest.raises(NobodyListens):
        check_peer(tmp_path / "absent")
    listen(tmp_path / "s").close()
    with pytest.raises(NobodyListens):
        check_peer(tmp_path / "s")


def test_another_users_socket_is_not_trusted(tmp_path, monkeypatch):
    with listen(tmp_path / "s"):
        user = os.geteuid()
        monkeypatch.setattr(peer, "_listener", lambda _path: user + 1)
        with pytest.raises(PeerRefused, match=f"user {user + 1} listens"):
            check_peer(tmp_path / "s")
        monkeypatch.undo()
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
        with pytest.raises(PeerRefused):
            check_peer(tmp_path / "s")


LISTEN_AS_ANOTHER = """
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o600)
os.setuid(65534)
server.listen()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can listen as somebody else")
def test_it_is_the_listener_that_counts_not_the_sockets_owner(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN_AS_ANOTHER, str(tmp_path / "s")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b"ready\n"
        assert Path(tmp_path / "s").stat().st_uid == 0
        with pytest.raises(PeerRefused, match="user 65534 listens"):
            check_peer(tmp_path / "s")
        other.stdin.close()


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


def test_servers_and_links_agree_on_a_sockets_mode(tmp_path):
    async def main():
        server = RpcServer()
        await server.start(f"unix:{tmp_path}/s")
        check_peer(tmp_path / "s")
        await server.stop(0)

    asyncio.run(main())
