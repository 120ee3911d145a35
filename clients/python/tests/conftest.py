"""A server that plays a script, and a call by each client."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from clients.python.tests.fake_server import FakeServer
from tandem_client import AsyncClient, Client
from tandem_client._proto.tandem.v1 import generation_service_pb2_grpc, model_service_pb2_grpc


@pytest.fixture
def server():
    fake = FakeServer()
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        generation_service_pb2_grpc.add_GenerationServiceServicer_to_server(fake, server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(fake, server)
        fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield fake
        server.stop(0).wait()


@pytest.fixture(params=["threads", "asyncio"])
def call(request, server):
    """Makes a call of the server, by either client: a method's name and arguments, and settings of the client."""

    async def call_async(method, arguments, settings, options):
        async with AsyncClient(server.address, **settings) as client:
            return await getattr(client, method)(*arguments, **options)

    def call(method, *arguments, settings=None, **options):
        if request.param == "asyncio":
            return asyncio.run(call_async(method, arguments, settings or {}, options))
        with Client(server.address, **(settings or {})) as client:
            return getattr(client, method)(*arguments, **options)

    return call
