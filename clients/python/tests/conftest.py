"""A server that plays a script, and a call by each client."""

import asyncio

import pytest

from clients.python.tests.fake_server import serving
from tandem_client import AsyncClient, Client


@pytest.fixture
def server():
    with serving() as fake:
        yield fake


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
