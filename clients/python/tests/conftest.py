"""A server that plays a script, and a call by each client."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from clients.python.tests.fake_server import FakeServer
from tandem_client import AsyncClient, Client
from tandem_client._proto.tandem.v1 import generation_service_pb2_grpc


@pytest.fixture
def server():
    fake = FakeServer()
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        generation_service_pb2_grpc.add_GenerationServiceServicer_to_server(fake, server)
        fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield fake
        server.stop(0).wait()


@pytest.fixture(params=["threads", "asyncio"])
def generate(request, server):
    """Asks the server for a whole text, by either client."""

    async def generate_async(prompt, settings, options):
        async with AsyncClient(server.address, **settings) as client:
            return await client.generate(prompt, **options)

    def generate(prompt="hello", settings=None, **options):
        if request.param == "asyncio":
            return asyncio.run(generate_async(prompt, settings or {}, options))
        with Client(server.address, **(settings or {})) as client:
            return client.generate(prompt, **options)

    return generate
