"""The rules of keeping services running, without a process."""

import asyncio
from types import SimpleNamespace

import pytest

from tandem.cli import supervisor as module
from tandem.cli.plan import Plan, ServicePlan
from tandem.cli.supervisor import StartFailed, Supervisor
from tandem.core.errors import ConfigError

NAMES = ("drafter", "verifier", "gateway")


class FakeChild:
    """Ends when told to, with the exit code it was told."""

    def __init__(self, world, name):
        self.world = world
        self.name = name
        self.pid = len(world.children)
        self.error = ""
        self.ended = asyncio.get_running_loop().create_future()
        self.is_serving = asyncio.Event()

    def die(self, code, error=""):
        self.error = error
        self.ended.set_result(code)

    async def wait(self):
        return await asyncio.shield(self.ended)

    async def stop(self, hurry):
        if not self.ended.done():
            self.world.stopped.append(self.name)
            self.ended.set_result(0)


class World:
    """What a supervisor sees, with time that passes only in its pauses."""

    def __init__(self, monkeypatch):
        self.children = []
        self.stopped = []
        self.events = []
        self.troubles = []
        self.now = 0.0
        plans = tuple(ServicePlan(name, (name,), name, 1.0) for name in NAMES)
        self.supervisor = Supervisor(
            Plan(plans, "gateway", "verifier", has_drafter=False),
            lambda *_: None,
            self.events.append,
            self.troubles.append,
        )
        monkeypatch.setattr(module.Child, "start", self.start)
        monkeypatch.setattr(module, "wait_until_serving", self.wait_until_serving)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.001)
        monkeypatch.setattr(module, "LONGEST_PAUSE_SECONDS", 0.004)

    async def start(self, plan, on_line):
        self.children.append(FakeChild(self, plan.name))
        return self.children[-1]

    async def wait_until_serving(self, address):
        await self.newest(address).is_serving.wait()

    def newest(self, name):
        return [child for child in self.children if child.name == name][-1]

    async def serve(self, *names):
        """Lets services become ready."""
        await self.until(lambda: {child.name for child in self.children} >= set(names))
        for name in names:
            self.newest(name).is_serving.set()

    async def until(self, condition):
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)

    async def restarted(self, name, count):
        await self.until(lambda: sum(child.name == name for child in self.children) == count)
        num_events = len(self.events)
        self.newest(name).is_serving.set()
        await self.until(lambda: len(self.events) > num_events)


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


async def test_inside_all_are_ready_and_after_all_are_stopped_from_the_outside_in(world):
    entering = asyncio.create_task(world.supervisor.__aenter__())
    await world.serve("drafter", "gateway")
    await asyncio.sleep(0.01)
    assert not entering.done()
    await world.serve("verifier")
    await asyncio.wait_for(entering, 5)
    assert sorted(event.split()[0] for event in world.events) == sorted(NAMES)
    await world.supervisor.__aexit__(None, None, None)
    assert world.stopped == ["gateway", "verifier", "drafter"]


@pytest.mark.parametrize(
    ("code", "error", "kind", "message"),
    [
        (2, "no such folder", ConfigError, "^no such folder$"),
        (2, "", ConfigError, "the verifier refuses its settings"),
        (1, "RuntimeError: x", StartFailed, "the verifier did not start: RuntimeError: x"),
        (-9, "", StartFailed, "the verifier did not start: killed by SIGKILL"),
        (0, "", StartFailed, "the verifier did not start: exit code 0"),
    ],
)
async def test_one_that_cannot_start_ends_all(world, code, error, kind, message):
    entering = asyncio.create_task(world.supervisor.__aenter__())
    await world.serve("drafter", "gateway")
    await world.until(lambda: len(world.children) == 3)
    world.newest("verifier").die(code, error)
    with pytest.raises(kind, match=message):
        await asyncio.wait_for(entering, 5)
    assert world.stopped == ["gateway", "drafter"]


async def test_one_that_dies_later_starts_again_after_longer_and_longer_pauses(world):
    serving = asyncio.create_task(world.serve(*NAMES))
    async with world.supervisor:
        await serving
        for count in (2, 3, 4, 5):
            world.newest("drafter").die(-9)
            await world.restarted("drafter", count)
        assert [float(line.split()[-2]) for line in world.troubles] == [0.001, 0.002, 0.004, 0.004]
        assert world.troubles[0].startswith("drafter died (killed by SIGKILL)")
        world.now += module.SETTLED_SECONDS + 1
        world.newest("drafter").die(2, "lost its checkpoint")
        await world.restarted("drafter", 6)
        assert world.troubles[-1] == "drafter died (lost its checkpoint); starts again in 0.001 s"
        assert not world.stopped


async def test_being_cancelled_while_waiting_stops_nothing_out_of_order(world):
    serving = asyncio.create_task(world.serve(*NAMES))
    async with world.supervisor:
        await serving
        waiting = asyncio.create_task(world.supervisor.wait())
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.sleep(0.01)
        assert not world.stopped
    assert world.stopped == ["gateway", "verifier", "drafter"]


async def test_being_cancelled_while_starting_stops_all(world):
    entering = asyncio.create_task(world.supervisor.__aenter__())
    await world.serve("drafter")
    await world.until(lambda: len(world.children) == 3)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(entering, 5)
    assert world.stopped == ["gateway", "verifier", "drafter"]
