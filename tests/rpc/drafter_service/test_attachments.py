"""What the drafter's service maps, whom it refuses, what it lets go of."""

import asyncio

import grpc
import pytest

from tandem.drafter.v1 import drafter_service_pb2 as pb
from tests.rpc.drafter_service.sharing import (
    K,
    refusal,
    until,
)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layout_version": 2}, "layout_version: must be 1"),
        ({"target_path": "relative"}, "absolute"),
        ({"target_path": "/nowhere/file"}, "cannot open the file: No such file"),
        ({"drafts_path": "/dev/null"}, "regular"),
        ({"num_slots": 9}, "bytes long"),
        ({"num_slots": 0}, "num_slots must be between"),
        ({"num_slots": 2**32 - 1}, "num_slots must be between"),
        ({"dtype": "float64"}, "dtype"),
        ({"vocabulary_size": 65}, "vocabulary_size is 64 in the drafter, 65 in the target"),
        ({"hidden_size": 16}, "hidden_size is 32"),
    ],
    ids=str,
)
async def test_an_attachment_that_is_wrong_is_refused_and_the_right_one_stays(client, exchange, fields, message):
    await client.attach(5)
    call = await client.open_stream(5)
    exchange.renew(6)
    code, details = await refusal(client.stub.Attach(client.attachment(6, **fields)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and message in details
    response = await client.ask(call, generation=5, round=1, slots=[1], num_tokens=2)
    assert list(response.num_tokens) == [2]


async def test_layers_that_do_not_fit_are_refused(client, decoding):
    for change, message in [
        (lambda layers: layers[0].MergeFrom(pb.SharedLayer(num_kv_heads=1)), "num_kv_heads of sliding_attention is 2"),
        (lambda layers: layers[1].MergeFrom(pb.SharedLayer(head_dim=8)), "head_dim of full_attention is 16"),
        (lambda layers: layers.pop(), "full_attention layer, which is not shared"),
        (lambda layers: layers[0].MergeFrom(pb.SharedLayer(num_blocks=2**32 - 1)), "num_blocks must be between"),
    ]:
        request = client.attachment(6)
        change(request.shared_memory.layers)
        code, details = await refusal(client.stub.Attach(request))
        assert code is grpc.StatusCode.INVALID_ARGUMENT and message in details


async def test_a_verifier_that_only_sends_tokens_is_refused(client):
    request = pb.AttachRequest(generation=6, token_stream=pb.TokenStream(num_slots=8, vocabulary_size=64))
    code, details = await refusal(client.stub.Attach(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and details.startswith("shared_memory: is needed")


async def test_a_verifier_on_a_gpu_is_told_what_the_drafter_lacks(client):
    files = client.attachment(6).shared_memory
    sizes = {name: getattr(files, name) for name in ("dtype", "num_slots", "max_draft_tokens", "max_blocks")}
    sizes |= {name: getattr(files, name) for name in ("block_size", "vocabulary_size", "hidden_size", "layers")}
    memory = pb.CudaMemory(handle=bytes(64), device_uuid="0", flags_path="/dev/shm/flags", **sizes)
    code, details = await refusal(
        client.stub.Attach(pb.AttachRequest(layout_version=1, generation=6, cuda_memory=memory))
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details == "cuda_memory: the verifier shares GPU memory, with a drafter that has --device cuda"


async def test_files_of_another_attachment_are_refused(client, exchange):
    exchange.renew(5)
    code, details = await refusal(client.stub.Attach(client.attachment(6)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "header" in details


async def test_a_later_attachment_ends_the_earlier_ones_stream(client):
    await client.attach(5)
    first = await client.open_stream(5)
    await client.attach(6)
    assert await refusal(first.read()) == (grpc.StatusCode.UNAVAILABLE, "another verifier attached")
    second = await client.open_stream(6)
    await asyncio.sleep(0.05)  # the end of the first one's stream must not take the second one's memory
    assert list((await client.ask(second, generation=6, round=1, slots=[1], num_tokens=1)).num_tokens) == [1]


@pytest.mark.parametrize("generation", [0, 4, 6])
async def test_only_the_attachment_there_is_can_be_drafted_for(client, generation):
    for is_attached in (False, True):
        if is_attached:
            await client.attach(5)
        call = client.stub.Draft()
        await call.write(pb.DraftRequest(generation=generation, round=1, slots=[1], num_tokens=1))
        assert await refusal(call.read()) == (grpc.StatusCode.INVALID_ARGUMENT, "generation: is not attached")


def read_only_mappings(exchange):
    lines = open("/proc/self/maps").read().splitlines()  # noqa: SIM115
    return sum("r--s" in line and str(exchange.target_path) in line for line in lines)


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_the_memory_is_let_go_of_when_the_stream_ends(client, exchange, is_cancelled):
    await client.attach(5)
    call = await client.open_stream(5)
    await client.ask(call, generation=5, round=1, slots=[1, 4], num_tokens=K)
    assert read_only_mappings(exchange) == 1
    await client.attach(6)
    await until(lambda: read_only_mappings(exchange) == 1)
    call = await client.open_stream(6)
    call.cancel() if is_cancelled else await call.done_writing()
    await until(lambda: read_only_mappings(exchange) == 0)
    assert (await client.attach(7)).name == "drafter"
