"""What the drafter's service drafts: the same as in the verifier's process."""

import json
from dataclasses import replace

import pytest
import torch

from tandem.core.draft_position import BEFORE_P
from tandem.drafter.config import DrafterConfig
from tandem.drafter.device import Device
from tandem.drafter.service import open_drafter
from tandem.engine.draft_source import Drafts
from tandem.engine.mtp_drafter import MtpDrafter
from tandem.exchange.draft_inputs import DTYPES
from tandem.models.gemma4.weights import load_drafter
from tandem.models.weight_files import revision
from tests.checkpoints import make_tiny_pair
from tests.rpc.drafter_service.sharing import LENGTHS, SAMPLED, K, expected, linked, offer, play_round, share
from tests.unit.engine.drafting import GREEDY, Decoding, exchange_spec


async def test_drafts_over_the_split_are_those_in_process(client, config, decoding, exchange, pair):
    async with linked(config.listen, exchange) as link:
        assert (link.info.name, link.info.num_speculative_tokens) == ("drafter", K)
        assert link.info.revision == revision(pair[1])
        both = expected(decoding, exchange, [4, 1])
        assert [len(token_ids) for token_ids in both] == [K, K]
        assert await play_round(link, [4, 1]) == Drafts(both)
        assert await play_round(link, [1], 2) == Drafts(expected(decoding, exchange, [1], 2))
        decoding.write(exchange.inputs, 1, "b", SAMPLED)
        moved = expected(decoding, exchange, [1])
        assert moved != both[1:]
        assert await play_round(link, [1]) == Drafts(moved)


async def test_the_position_of_the_queries_is_a_setting(config, decoding, exchange):
    async with open_drafter(replace(config, draft_position=BEFORE_P)), linked(config.listen, exchange) as link:
        drafts = MtpDrafter(decoding.network, exchange.inputs, BEFORE_P).propose([1, 4], K)
        assert [tuple(token_ids) for token_ids in drafts] != expected(decoding, exchange, [1, 4])
        assert await play_round(link, [1, 4]) == Drafts([tuple(token_ids) for token_ids in drafts])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_a_drafter_with_centroids(tmp_path, dtype):
    pair = make_tiny_pair(tmp_path / "pair", centroids=(16, 3))
    decoding = Decoding(pair, LENGTHS)
    network = load_drafter(pair[1], decoding.target.config, DTYPES[dtype], "cpu", None)
    exchange = share(decoding, replace(exchange_spec(decoding.target), dtype=dtype), tmp_path)
    decoding.write(exchange.inputs, 1, "a", SAMPLED)
    decoding.write(exchange.inputs, 4, "b", GREEDY)
    drafts = MtpDrafter(network, exchange.inputs).propose([1, 4], K)
    config = DrafterConfig(str(pair[1]), str(pair[0]), f"unix:{tmp_path}/drafter.sock", num_speculative_tokens=K)
    async with open_drafter(config), linked(config.listen, exchange) as link:
        assert await play_round(link, [1, 4]) == Drafts([tuple(token_ids) for token_ids in drafts])
    exchange.close()


async def test_slots_that_make_no_sense_have_no_drafts(client, exchange):
    await client.attach(5)
    call = await client.open_stream(5)
    exchange.inputs.token_ids[4] = 64
    response = await client.ask(call, generation=5, round=1, slots=[4, 1, 8, 2**32 - 1, 0], num_tokens=1000)
    assert list(response.num_tokens) == [0, K, 0, 0, 0] and response.round == 1
    assert exchange.read_drafts(5, 1, [1], [K])


@pytest.mark.parametrize("max_draft_tokens", [1, 8])
async def test_no_more_is_drafted_than_there_is_room_or_leave_for(client, decoding, tmp_path, max_draft_tokens):
    client.exchange = share(decoding, exchange_spec(decoding.target, max_draft_tokens=max_draft_tokens), tmp_path)
    decoding.write(client.exchange.inputs, 0, "a", GREEDY)
    await client.attach(5)
    response = await client.ask(await client.open_stream(5), generation=5, round=1, slots=[0], num_tokens=60)
    assert list(response.num_tokens) == [min(K, max_draft_tokens)]
    client.exchange.close()


async def test_a_verifier_of_another_dtype_makes_it_load_again(client, config, decoding, pair, tmp_path):
    exchange = share(decoding, replace(exchange_spec(decoding.target), dtype="bfloat16"), tmp_path)
    decoding.write(exchange.inputs, 0, "b", SAMPLED)
    network = load_drafter(pair[1], decoding.target.config, torch.bfloat16, "cpu", None)
    drafts = MtpDrafter(network, exchange.inputs).propose([0], K)
    async with linked(config.listen, exchange) as link:
        assert await play_round(link, [0]) == Drafts([tuple(token_ids) for token_ids in drafts])
    exchange.close()


@pytest.mark.parametrize(
    ("asked", "checkpoint_says", "k"), [(None, None, 4), (None, 3, 3), (6, 3, 6), (None, 1000, 64)]
)
async def test_how_many_it_drafts_is_asked_for_or_its_checkpoints_own(pair, config, asked, checkpoint_says, k):
    file = pair[1] / "generation_config.json"
    before = file.read_text()
    if checkpoint_says:
        file.write_text(json.dumps({"num_assistant_tokens": checkpoint_says}))
    device = Device(replace(config, num_speculative_tokens=asked))
    try:
        assert (await device.load()).num_speculative_tokens == k
    finally:
        device.close()
        file.write_text(before)


async def test_what_its_checkpoint_suppresses_is_not_drafted(pair, config, exchange):
    file = pair[1] / "generation_config.json"
    before = file.read_text()
    drafted = []
    for suppressed in ([], [0]):
        file.write_text(json.dumps({"suppress_tokens": suppressed and drafted[0]}))
        device = Device(config)
        await device.load()
        exchange.renew(5)
        await device.attach(offer(exchange, 5))
        assert await device.draft(5, 1, [4], K) == [K]
        drafted.append(exchange.read_drafts(5, 1, [4], [K])[0])
        device.close()
    file.write_text(before)
    assert not set(drafted[0]) & set(drafted[1])


async def test_a_round_that_an_attachment_overtook_is_not_drafted(config, exchange):
    """On their way to the device, rounds and attachments of two verifiers can pass each other."""
    device = Device(config)
    await device.load()
    for generation in (5, 6):
        exchange.renew(generation)
        await device.attach(offer(exchange, generation))
        assert await device.draft(generation, 1, [1], 2) == [2]
    assert await device.draft(5, 2, [1], 2) is None
    device.detach(5)
    assert await device.draft(6, 2, [1], 2) == [2]
    device.detach(6)
    assert await device.draft(6, 3, [1], 2) is None
    device.close()
