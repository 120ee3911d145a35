"""Both sides show a certificate, and the key goes with the call."""

import asyncio

import grpc
import pytest

from clients.python.tests.fake_server import answered, serving
from tandem_client import AsyncClient, Client, Tls, Unavailable
from tests.authority import Authority

NAME = "tandem.example"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A folder with those of a server and of a client."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder / "authority")
    for name, usage in (("server", "server auth"), ("client", "client auth")):
        (folder / name).mkdir()
        authority.fill(folder / name, [NAME], [usage])
    return folder


@pytest.fixture
def server(certificates):
    key, chain, ca = ((certificates / "server" / name).read_bytes() for name in ("tls.key", "tls.crt", "ca.crt"))
    credentials = grpc.ssl_server_credentials([(key, chain)], root_certificates=ca, require_client_auth=True)
    with serving(credentials) as server:
        server.answers = [answered]
        yield server


@pytest.fixture
def tls(certificates):
    own = certificates / "client"
    return Tls(own / "ca.crt", own / "tls.crt", own / "tls.key", server_name=NAME)


def test_with_a_certificate_and_a_key(server, tls):
    async def generate():
        async with AsyncClient(server.address, api_key="secret", tls=tls) as client:
            return await client.generate("hello")

    with Client(server.address, api_key="secret", tls=tls) as client:
        assert client.generate("hello").text == "done"
    assert asyncio.run(generate()).text == "done"
    assert [metadata["authorization"] for _, metadata in server.attempts] == ["Bearer secret"] * 2


@pytest.mark.parametrize("part", ["certificate", "name"])
def test_without_one_or_for_another_name(server, tls, part):
    lacking = (
        Tls(tls.ca_file, server_name=NAME)
        if part == "certificate"
        else Tls(tls.ca_file, tls.certificate_file, tls.key_file)
    )
    with Client(server.address, tls=lacking, max_attempts=1) as client, pytest.raises(Unavailable):
        client.generate("hello")
    assert not server.attempts
