"""AheadLink against scripted drafters: what it puts on the stream, and whose waits it ends. The GPU is a list."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from tandem.core.errors import InvalidRequest
from tandem.engine.draft_source import Drafts, Fallback
from tandem.telemetry import metrics as names
from tandem.telemetry.metrics import Metrics
from tandem.verifier import ahead_link, drafter_link
from tandem.verifier.ahead_link import AheadLink
from tests.engines import wanted
from tests.rpc.fake_drafter import SPEC, FakeDrafter, answer, drafting, drafts_of
from tests.rpc.links import TIMEOUT_SECONDS, attached, until


class ListedExchange:
    """A `CudaExchange` whose stream is a list. It comes to the end of a wait when that is released or drafted."""

    spec = SPEC
    handle, device_uuid, flags_path = bytes(64), "GPU-1", "/dev/shm/flags"

    def __init__(self):
        self.stream = []
        self.releases = []
        self.reached = 0  # round of the drafts' flag

    def renew(self, generation):
        pass

    def post(self, round_number):
        self.stream.append(("post", round_number))

    def wait(self, round_number):
        self.stream.append(("wait", round_number))

    def has_passed(self, round_number):
        return self.reached >= round_number

    def release(self, round_number):
        self.releases.append(round_number)
        self.reached = max(self.reached, round_number)

    def read_drafts(self, round_number, slots, counts):
        return [drafts_of(slot, count) for slot, count in zip(slots, counts, strict=True)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(drafter_link, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(drafter_link, "MAX_RETRY_SECONDS", 0.04)
    monkeypatch.setattr(ahead_link, "STALLED_SECONDS", 0.3)
    monkeypatch.setattr(ahead_link, "AGAIN_SECONDS", 0.02)


@pytest.fixture
def exchange():
    return ListedExchange()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def address(tmp_path):
    return f"unix:{tmp_path}/drafter.sock"


@pytest.fixture
def timeout_seconds():
    return TIMEOUT_SECONDS


@pytest.fixture
async def link(address, exchange, metrics, timeout_seconds):
    link = AheadLink(address, exchange, "target-rev", timeout_seconds, metrics)
    following = asyncio.create_task(link.follow())
    yield link
    assert not following.done()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def handed_over(drafter, request):
    yield answer(request, [request.num_tokens] * len(request.slots))


async def silent(drafter, request):
    await drafter.go_on.wait()
    yield answer(request, [request.num_tokens] * len(request.slots))


@asynccontextmanager
async def attached_silent(address, link):
    """A drafter that answers late, or never."""
    fake = FakeDrafter(silent)
    async with attached(fake, address, link) as server:
        yield fake, server
        fake.go_on.set()


async def test_a_round_is_asked_for_before_its_inputs_are_there(address, link, exchange, metrics):
    fake = FakeDrafter(handed_over)
    assert link.draft_ahead([0], 2) == 0 and not exchange.stream, "nobody would end the wait"
    async with attached(fake, address, link):
        [request] = fake.attached
        assert (request.cuda_memory.handle, request.cuda_memory.device_uuid) == (bytes(64), "GPU-1")
        assert request.cuda_memory.num_slots == 8 and len(request.cuda_memory.layers) == 2
        assert not request.HasField("shared_memory") and not request.HasField("token_stream")
        assert link.draft_ahead([0, 3], 3) == 3
        assert exchange.stream == [("post", 1), ("wait", 1)], "at once, whatever the drafter does"
        await until(lambda: fake.rounds and not link._outstanding)
        assert list(fake.rounds[0].slots) == [0, 3] and not fake.rounds[0].tokens
        assert link.draft_ahead([5], 60) == 4, "no more than the drafter drafts"
        assert exchange.stream[2:] == [("post", 2), ("wait", 2)]
        exchange.reached = 2  # the GPU has drafted
        await until(lambda: len(fake.rounds) == 2 and not link._outstanding)
        await asyncio.sleep(0.4)
        assert not exchange.releases and not metrics.value(names.SPEC_FALLBACKS, reason="late")


@pytest.mark.parametrize("timeout_seconds", [10.0])
async def test_the_host_may_still_wait_for_drafts(address, link, exchange):
    async with attached(FakeDrafter(handed_over), address, link):
        assert await asyncio.to_thread(link.begin, wanted([0, 3], 3))
        assert await asyncio.to_thread(link.collect) == Drafts([drafts_of(0, 3), drafts_of(3, 3)])
        assert exchange.stream == [("post", 1)], "no stream waits"


async def test_a_round_that_is_not_answered_in_time_is_released(address, link, exchange, metrics):
    async with attached_silent(address, link) as (fake, _):
        assert link.draft_ahead([0], 2) == 2
        assert link.draft_ahead([0], 2) == 2, "two rounds may be under way"
        assert link.draft_ahead([0], 2) == 0, "their answers are outstanding"
        assert exchange.stream == [("post", 1), ("wait", 1), ("post", 2), ("wait", 2)] and not exchange.releases
        await until(lambda: exchange.releases == [1, 2])
        assert metrics.value(names.SPEC_FALLBACKS, reason="late") == 3
        fake.go_on.set()
        await until(lambda: not link._outstanding)
        assert link.draft_ahead([0], 2) == 2, "an answer that came after all: it is asked again"


async def test_a_drafter_that_dies_releases_every_wait(address, link, exchange, metrics):
    async with attached_silent(address, link) as (_, server):
        assert link.draft_ahead([0], 2) == 2
        await server.stop(0)
        await until(lambda: link.info is None)
        assert exchange.releases[0] == 1
        assert link.draft_ahead([0], 2) == 0
        await until(lambda: metrics.value(names.SPEC_FALLBACKS, reason=Fallback.LOST.value) == 1)


async def test_one_that_dies_with_rounds_that_it_answered_releases_them_too(address, link, exchange, monkeypatch):
    monkeypatch.setattr(ahead_link, "STALLED_SECONDS", 60.0)  # nobody else releases them
    fake = FakeDrafter(handed_over)
    async with attached(fake, address, link):
        assert link.draft_ahead([0], 2) == 2
        await until(lambda: not link._outstanding and fake.rounds)
    assert exchange.releases == [1]


async def test_a_device_that_stalls_is_released_until_it_goes_on(address, link, exchange, metrics):
    """A drafter that comes too late after all takes the flag back."""
    async with attached(FakeDrafter(handed_over), address, link):
        assert link.draft_ahead([0], 2) == 2
        await until(lambda: exchange.releases == [1])
        exchange.reached = 0
        await until(lambda: len(exchange.releases) == 2)
        await asyncio.sleep(0.1)
        assert exchange.releases == [1, 1], "it went on"
        assert metrics.value(names.SPEC_FALLBACKS, reason="late") == 1, "one round was lost"


async def test_a_wrong_answer_costs_its_round(address, link, exchange, metrics):
    async def miscounting(drafter, request):
        yield answer(request, [1] * (len(request.slots) + 1))

    async with attached(FakeDrafter(miscounting), address, link):
        assert link.draft_ahead([0], 2) == 2
        await until(lambda: exchange.releases == [1])
        assert metrics.value(names.SPEC_FALLBACKS, reason="invalid") == 1


async def test_a_drafter_that_cannot_open_the_memory_is_told_of_once(address, link, exchange, caplog):
    fake = FakeDrafter(handed_over)
    fake.attach_error = InvalidRequest("cuda_memory", f"cannot be opened here ({'x' * 200}): in one PID namespace")
    async with drafting(fake, address):
        await until(lambda: len(fake.attached) >= 3)
        assert link.info is None and link.draft_ahead([0], 2) == 0
    assert sum("in one PID namespace" in record.message for record in caplog.records) == 1
