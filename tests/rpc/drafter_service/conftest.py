"""The drafter's service with a real network, and what a verifier shares with it."""

import pytest

from tandem.drafter.config import DrafterConfig
from tandem.drafter.service import open_drafter
from tandem.rpc.channel import open_channel
from tests.checkpoints import make_tiny_pair
from tests.rpc.drafter_service.sharing import LENGTHS, SAMPLED, Client, K, share
from tests.unit.engine.drafting import GREEDY, Decoding, exchange_spec


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return make_tiny_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def decoding(pair):
    return Decoding(pair, LENGTHS)


@pytest.fixture
def config(pair, tmp_path):
    target, drafter = pair
    return DrafterConfig(str(drafter), str(target), f"unix:{tmp_path}/drafter.sock", num_speculative_tokens=K)


@pytest.fixture
def exchange(decoding, tmp_path):
    """What a verifier shares that is in the middle of two sequences, in slots 1 and 4."""
    exchange = share(decoding, exchange_spec(decoding.target), tmp_path)
    decoding.write(exchange.inputs, 1, "a", SAMPLED)
    decoding.write(exchange.inputs, 4, "b", GREEDY)
    yield exchange
    exchange.close()


@pytest.fixture
async def client(config, exchange):
    async with open_drafter(config) as drafter, open_channel(drafter.address) as channel:
        yield Client(drafter.server, channel, exchange)
