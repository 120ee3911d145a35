"""TLS and mutual TLS at a gateway's and a verifier's doors; certificates are made anew."""

import asyncio
import os
import ssl
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tandem.core.errors import ConfigError
from tandem.gateway.config import GatewayConfig
from tandem.internal.v1 import verifier_service_pb2_grpc
from tandem.rpc.channel import open_channel
from tandem.rpc.server import RpcServer
from tandem.rpc.tls import server_credentials
from tandem.rpc.tls_files import ClientTls, ServerTls
from tandem.v1 import generation_service_pb2 as pb
from tandem.v1 import generation_service_pb2_grpc
from tandem.verifier.config import VerifierConfig
from tests.rpc.calls import spec
from tests.rpc.fake_verifier import SERVICE, finished, held, verified

CODES = grpc.StatusCode
SERVING = health_pb2.HealthCheckResponse.SERVING


async def peer_serial(address, authority):
    """Serial number of the certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=authority.ca)
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname="localhost")
    serial = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    return serial


async def health_over(address, tls):
    async with open_channel(address, tls=tls) as channel:
        return await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)


async def test_certificates_are_replaced_while_a_stream_runs(open_client, verifier, fake, authority, tmp_path):
    pairs = [authority.issue(name) for name in ("first", "second")]
    certificate, key = tmp_path / "tls.pem", tmp_path / "tls.key"

    def put(pair):
        for source, target in zip(pair, (certificate, key), strict=True):
            (tmp_path / "new").write_bytes(Path(source).read_bytes())
            os.replace(tmp_path / "new", target)

    go_on, fake.script = held(verified([70]), finished())
    put(pairs[0])
    async with open_client(tls_certificate_file=str(certificate), tls_key_file=str(key)) as plain:
        async with open_channel(plain.address, tls=ClientTls(str(authority.ca), "", "", "localhost")) as channel:
            await asyncio.wait_for(_until_serving(channel), 5)
            call = generation_service_pb2_grpc.GenerationServiceStub(channel).StreamGenerate(
                pb.StreamGenerateRequest(spec=spec())
            )
            events = aiter(call)
            await anext(events)
            before = await peer_serial(plain.address, authority)
            certificate.write_text("no certificate")
            assert await peer_serial(plain.address, authority) == before, "a bad file changes nothing"
            put(pairs[1])
            assert await peer_serial(plain.address, authority) != before
            go_on.set()
            assert [event.WhichOneof("event") async for event in events][-1] == "finished"
        with pytest.raises(grpc.aio.AioRpcError):  # plain text at a TLS door
            await plain.health.Check(health_pb2.HealthCheckRequest(), timeout=2)


async def _until_serving(channel):
    async for response in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()):
        if response.status == SERVING:
            return


async def test_mutual_tls_of_gateway_and_verifier(
    open_client, fake, authority, stranger, server_pair, client_pair, tmp_path
):
    server = RpcServer(tls=ServerTls(*server_pair, str(authority.ca)))
    server.add(verifier_service_pb2_grpc.add_VerifierServiceServicer_to_server, fake, SERVICE)
    address = await server.start("127.0.0.1:0")
    server.set_serving(True)
    try:
        for certificate, key in (("", ""), stranger.issue("client")):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health_over(address, ClientTls(str(authority.ca), certificate, key, "localhost"))
            assert caught.value.code() in (CODES.UNAVAILABLE, CODES.DEADLINE_EXCEEDED)
        for ca, name in ((stranger.ca, "localhost"), (authority.ca, "another.name")):  # the client's own checks
            with pytest.raises(grpc.aio.AioRpcError):
                await health_over(address, ClientTls(str(ca), *client_pair, name))
        files = {"verifier_ca_file": str(authority.ca), "verifier_certificate_file": client_pair[0]}
        files |= {"verifier_key_file": client_pair[1], "verifier_tls_name": "localhost"}
        async with open_client(verifier=address, **files) as client:
            await asyncio.wait_for(client.wait_for_health(SERVING), 5)
            await client.generation.Generate(pb.GenerateRequest(spec=spec()))
    finally:
        await server.stop(0)


async def test_public_mutual_tls_needs_a_client_certificate(open_client, verifier, authority, server_pair, client_pair):
    files = {"tls_certificate_file": server_pair[0], "tls_key_file": server_pair[1]}
    async with open_client(**files, tls_client_ca_file=str(authority.ca)) as client:
        with pytest.raises(grpc.aio.AioRpcError):
            await health_over(client.address, ClientTls(str(authority.ca), "", "", "localhost"))
        assert await health_over(client.address, ClientTls(str(authority.ca), *client_pair, "localhost"))


def test_files_that_cannot_be_served_with(server_pair, client_pair, tmp_path):
    for files in ((server_pair[0], client_pair[1], ""), (server_pair[0], "/nowhere", ""), (*server_pair, "/nowhere")):
        with pytest.raises(ConfigError, match="cannot serve TLS"):
            server_credentials(ServerTls(*files))
    with pytest.raises(ConfigError, match="go together"):
        GatewayConfig("x", tls_key_file="only")
    with pytest.raises(ConfigError, match="verifier-ca-file"):
        GatewayConfig("x", verifier_certificate_file="a", verifier_key_file="b")


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "verifier.example:1"])
def test_internal_listeners_are_local_unless_told_otherwise(listen):
    with pytest.raises(ConfigError, match="trust-network"):
        VerifierConfig("x", listen=listen)
    with pytest.raises(ConfigError, match="trust-network"):
        GatewayConfig("x", verifier=listen)
    with pytest.raises(ConfigError, match="client-ca"):
        VerifierConfig("x", listen=listen, tls_certificate_file="a", tls_key_file="b")
    VerifierConfig("x", listen=listen, trust_network=True)
    VerifierConfig("x", listen=listen, tls_certificate_file="a", tls_key_file="b", tls_client_ca_file="c")
    GatewayConfig("x", verifier=listen, verifier_ca_file="a")
    for local in ("unix:/x", "127.0.0.1:1", "[::1]:1", "localhost:1"):
        VerifierConfig("x", listen=local), GatewayConfig("x", verifier=local)
