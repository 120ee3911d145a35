"""What the measurement of the prefix cache asks of a verifier; a real server that plays, in the place of a replica."""

from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from tandem.cli.bench import prefix_cache, replica
from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.failure import MeasurementFailed
from tandem.cli.bench.replica import Journal
from tests.rpc.fake_verifier import FakeVerifier, finished, play, serving, started, verified


@pytest.fixture
def fake(monkeypatch, tmp_path):
    fake = FakeVerifier()

    @asynccontextmanager
    async def open_replica(config, drafter, folder, journal, **settings):
        address = f"unix:{tmp_path}/v.sock"
        async with serving(fake, address):
            yield SimpleNamespace(verifier=address)

    monkeypatch.setattr(replica, "open_replica", open_replica)
    return fake


async def measure(tmp_path):
    return await prefix_cache.measure_prefix_cache(BenchConfig(exchange_directory=str(tmp_path)), Journal(print))


async def test_pairs_share_a_salt_and_nothing_else(fake, tmp_path):
    fake.script = lambda request: play(started(seed=0), verified([5, 6]), finished())
    section = await measure(tmp_path)
    assert {len(request.prompt_token_ids) for request in fake.requests} == {1000}
    assert len({tuple(request.prompt_token_ids) for request in fake.requests}) == 1
    salts = [request.cache_salt for request in fake.requests[1:]]
    assert salts[::2] == salts[1::2]
    assert len(set(salts)) == len(salts) / 2 == prefix_cache.NUM_PAIRS
    assert fake.requests[0].cache_salt not in salts
    (goal,) = section.goals
    assert (goal.bound, goal.is_upper_bound) == (3.0, False)
    assert {len(samples) for samples in section.samples.values()} == {prefix_cache.NUM_PAIRS}


async def test_a_text_that_the_cache_changes_is_no_figure(fake, tmp_path):
    fake.script = lambda request: play(started(seed=0), verified([len(fake.requests)]), finished())
    with pytest.raises(MeasurementFailed, match="changed a text"):
        await measure(tmp_path)
