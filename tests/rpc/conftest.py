"""A real server on loopback with one scriptable method, for everything that only a socket can show."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvloop
from tandem.internal.v1 import verifier_service_pb2 as pb
from tandem.internal.v1 import verifier_service_pb2_grpc as pb_grpc
from tandem.rpc.channel import open_channel
from tandem.rpc.server import RpcServer

SERVICE = "tandem.internal.v1.VerifierService"


class ScriptedServicer(pb_grpc.VerifierServiceServicer):
    """Answers with whatever a test puts in."""

    def __init__(self) -> None:
        self.describe: Callable[[], Awaitable[pb.DescribeModelResponse]] | None = None
        self.generate: Callable[[pb.GenerateRequest], AsyncIterator[pb.GenerateResponse]] | None = None

    async def DescribeModel(self, request, context):
        return await self.describe()

    async def Generate(self, request, context):
        async for response in self.generate(request):
            yield response


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def servicer():
    return ScriptedServicer()


@pytest.fixture
async def server(servicer):
    server = RpcServer()
    server.add(pb_grpc.add_VerifierServiceServicer_to_server, servicer, SERVICE)
    server.address = await server.start("127.0.0.1:0")
    yield server
    await server.stop(0)


@pytest.fixture
async def channel(server):
    async with open_channel(server.address) as channel:
        yield channel


@pytest.fixture
def stub(channel):
    return pb_grpc.VerifierServiceStub(channel)
