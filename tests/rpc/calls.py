"""What a client asks of a gateway, and what it is told."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from tandem.rpc.errors import STATUS_DETAILS_KEY
from tandem.v1 import generation_service_pb2 as pb
from tandem.v1 import types_pb2


def spec(text="the fox", **fields):
    return types_pb2.GenerationSpec(text=text, **fields)


async def stream(client, given, **options):
    """The three parts of a stream, which must come in order."""
    events = [e async for e in client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=given), **options)]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["started", *["delta"] * (len(events) - 2), "finished"]
    return events[0].started, [event.delta for event in events[1:-1]], events[-1].finished


async def refusal(call):
    """The status of a refused call, and its details by name."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if isinstance(call, grpc.aio.UnaryStreamCall):
            async for _ in call:
                pass
        else:
            await call
    error = caught.value
    details = {}
    for packed in status_pb2.Status.FromString(error.trailing_metadata()[STATUS_DETAILS_KEY]).details:
        name = packed.type_url.rpartition(".")[2]
        details[name] = getattr(error_details_pb2, name)()
        packed.Unpack(details[name])
    assert details["ErrorInfo"].domain == "tandem"
    return error, details


async def refused(client, given, **options):
    """Both kinds of generation refuse alike; returns the stream's refusal."""
    error, details = await refusal(client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=given), **options))
    unary, _ = await refusal(client.generation.Generate(pb.GenerateRequest(spec=given), **options))
    assert unary.code() is error.code()
    return error, details
