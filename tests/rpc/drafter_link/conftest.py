"""A verifier's link to a drafter that plays scripts, over a real socket and shared memory."""

import asyncio

import pytest

from tandem.exchange.shared_exchange import SharedExchange
from tandem.telemetry.metrics import Metrics
from tandem.verifier import drafter_link
from tandem.verifier.drafter_link import DrafterLink
from tandem.verifier.memory_carrier import MemoryCarrier
from tests.rpc.fake_drafter import SPEC
from tests.rpc.links import TIMEOUT_SECONDS


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
