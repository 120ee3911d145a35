"""The HTTP door itself: who may enter, over what, for how long, and what it tells of them."""

import asyncio
import os
import socket
import ssl
import time
from pathlib import Path

import grpc
import httpx2
import openai as package
import pytest
from grpc_health.v1 import health_pb2
from openai import AsyncOpenAI

from tandem.core.errors import ConfigError
from tandem.gateway.http import certificates, connection
from tandem.v1 import generation_service_pb2 as pb
from tests.rpc.calls import refusal, spec
from tests.rpc.fake_verifier import finished, started, verified

SERVING = health_pb2.HealthCheckResponse.SERVING
ASKED = {"model": "", "prompt": "the fox"}


@pytest.fixture
def endless(fake):
    """Writes a token every few milliseconds, for ever."""

    async def script(request):
        yield started()
        while True:
            yield verified([70])
            await asyncio.sleep(0.005)

    fake.script = script
    return fake


def open_tls(address, ca, pair=None):
    context = ssl.create_default_context(cafile=ca)
    if pair:
        context.load_cert_chain(*pair)
    http = httpx2.AsyncClient(verify=context)
    base_url = f"https://localhost:{address.rpartition(':')[2]}/v1"
    return AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, http_client=http)


async def test_who_goes_away_frees_the_sequence(client, openai, endless):
    stream = await openai.completions.create(**ASKED, stream=True)
    for _ in range(3):
        await anext(stream)
    await stream.close()
    async with asyncio.timeout(1):
        await endless.idle.wait()
    unary = asyncio.create_task(openai.completions.create(**ASKED))
    while endless.num_running == 0:
        await asyncio.sleep(0.01)
    unary.cancel()
    async with asyncio.timeout(1):
        await endless.idle.wait()
    await asyncio.sleep(0.05)
    told = [
        labels for metric, labels, _ in client.gateway.metrics.distributions() if metric.name == "tandem_http_seconds"
    ]
    assert [labels["http_response_status_code"] for labels in told] == ["499"]


async def test_a_reader_that_stops_holds_little(client, fake):
    """What it does not read waits at the verifier, by flow control from end to end."""
    num_sent = 0

    async def script(request):
        nonlocal num_sent
        yield started()
        while True:
            num_sent += 1
            yield verified([70] * 4)

    fake.script = script
    host, _, port = client.gateway.http_address.rpartition(":")
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect((host, int(port)))
        body = b'{"prompt":"x","stream":true,"max_tokens":8000}'
        head = (
            f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        )
        peer.sendall(head.encode() + b"\r\n\r\n" + body)
        settled, before = 0, -1
        async with asyncio.timeout(20):
            while settled < 5:
                await asyncio.sleep(0.1)
                settled, before = (settled + 1 if num_sent == before else 0), num_sent
    # An event has 200 bytes: megabytes of the kernel's buffers at most, and nothing that grows.
    assert 0 < num_sent < 100_000
    async with asyncio.timeout(5):
        await fake.idle.wait()


async def test_keys(open_client, verifier, tmp_path):
    (tmp_path / "keys").write_text("good\n")
    async with open_client(api_keys_file=str(tmp_path / "keys")) as client:
        await client.wait_for_health(SERVING)
        async with client.openai(api_key="good") as openai:
            await openai.completions.create(**ASKED)
            await openai.models.list()
        async with client.openai(api_key="bad") as openai:
            for call in (openai.completions.create(**ASKED), openai.models.list(), openai.models.retrieve("tiny")):
                with pytest.raises(package.AuthenticationError) as caught:
                    await call
                assert caught.value.code == "invalid_api_key"
                assert caught.value.response.headers["www-authenticate"] == "Bearer"
        async with httpx2.AsyncClient(base_url=client.url) as http:
            two = [("authorization", "Bearer good"), ("authorization", "Bearer bad")]
            for headers in ({}, {"authorization": "good"}, two):
                assert (await http.get("/v1/models", headers=headers)).status_code == 401
            large = await http.post("/v1/completions", content=b"x" * (9 << 20))
            assert large.status_code == 401, "nothing is read of who has no key"


async def test_a_key_has_one_share_for_both_doors(open_client, verifier, endless, tmp_path):
    (tmp_path / "keys").write_text("one\ntwo\n")
    settings = {"streams_per_key": 1, "api_keys_file": str(tmp_path / "keys")}
    metadata = [("authorization", "Bearer one")]
    request = pb.StreamGenerateRequest(spec=spec())
    async with open_client(**settings) as client, client.openai(api_key="one") as openai:
        await client.wait_for_health(SERVING)
        stream = await openai.completions.create(**ASKED, stream=True)
        error, _ = await refusal(client.generation.StreamGenerate(request, metadata=metadata, timeout=5))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with client.openai(api_key="two") as other:
            await (await other.completions.create(**ASKED, stream=True)).close()
        await stream.close()
        await endless.idle.wait()
        call = client.generation.StreamGenerate(request, metadata=metadata)
        await call.read()
        with pytest.raises(package.RateLimitError) as caught:
            await openai.completions.create(**ASKED)
        assert caught.value.code == "rate_limited" and caught.value.response.headers["retry-after"] == "1"
        call.cancel()


async def test_tokens_and_requests_a_minute_are_counted_at_both_doors(open_client, verifier, fake):
    async def script(request):
        yield started()
        yield verified([70] * 20)
        yield finished()

    fake.script = script
    async with open_client(tokens_per_minute=12) as client, client.openai() as openai:
        await client.wait_for_health(SERVING)
        await openai.completions.create(**ASKED)
        error, _ = await refusal(client.generation.Generate(pb.GenerateRequest(spec=spec())))
        assert "tokens" in error.details()
    async with open_client(requests_per_minute=1) as client, client.openai() as openai:
        await client.wait_for_health(SERVING)
        await client.generation.Generate(pb.GenerateRequest(spec=spec()))
        with pytest.raises(package.RateLimitError, match="too many requests"):
            await openai.completions.create(**ASKED)
        await openai.models.list()


async def test_tls_with_certificates_that_are_replaced(
    open_client, verifier, endless, authority, tmp_path, monkeypatch
):
    monkeypatch.setattr(certificates, "REFRESH_SECONDS", 0.02)
    pairs = [authority.issue(f"http-{name}") for name in ("first", "second")]
    certificate, key = tmp_path / "tls.pem", tmp_path / "tls.key"

    def put(pair):
        for source, target in zip(pair, (certificate, key), strict=True):
            (tmp_path / "new").write_bytes(Path(source).read_bytes())
            os.replace(tmp_path / "new", target)

    def serial(address):
        context = ssl.create_default_context(cafile=authority.ca)
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port))) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as peer:
                return peer.getpeercert()["serialNumber"]

    put(pairs[0])
    async with open_client(tls_certificate_file=str(certificate), tls_key_file=str(key)) as client:
        address = client.gateway.http_address
        before = await asyncio.to_thread(serial, address)
        certificate.write_text("no certificate")
        await asyncio.sleep(0.1)
        assert await asyncio.to_thread(serial, address) == before, "a bad file changes nothing"
        put(pairs[1])
        async with asyncio.timeout(5):
            while await asyncio.to_thread(serial, address) == before:
                await asyncio.sleep(0.02)
        async with open_tls(address, str(authority.ca)) as openai:
            stream = await openai.with_options(timeout=5).completions.create(**ASKED, stream=True)
            assert (await anext(stream)).model == "tiny"
            await stream.close()
        async with httpx2.AsyncClient() as http:
            with pytest.raises(httpx2.HTTPError):
                await http.get(f"http://{address}/healthz", timeout=2)


async def test_client_certificates_and_their_authorities(
    open_client, authority, stranger, server_pair, client_pair, tmp_path, monkeypatch
):
    monkeypatch.setattr(certificates, "REFRESH_SECONDS", 0.02)
    clients = tmp_path / "clients.pem"
    clients.write_bytes(authority.ca.read_bytes())
    other_pair = stranger.issue("client")
    files = {"tls_certificate_file": server_pair[0], "tls_key_file": server_pair[1], "tls_client_ca_file": str(clients)}

    async def is_let_in(address, pair):
        async with open_tls(address, str(authority.ca), pair) as openai:
            try:
                await openai.with_options(timeout=3).models.list()
            except package.APIConnectionError:
                return False
            except package.InternalServerError:  # there is no verifier
                return True

    async with open_client(**files) as client:
        address = client.gateway.http_address
        assert [await is_let_in(address, pair) for pair in (None, client_pair, other_pair)] == [False, True, False]
        clients.write_bytes(stranger.ca.read_bytes())
        await asyncio.sleep(0.2)
        assert [await is_let_in(address, pair) for pair in (None, client_pair, other_pair)] == [False, False, True]


async def test_heads_that_are_slow_or_large_are_let_go(client, openai, monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)
    host, _, port = client.gateway.http_address.rpartition(":")
    whole = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    for words in (b"", whole[:-2], whole):
        reader, writer = await asyncio.open_connection(host, int(port))
        started_at = time.monotonic()
        writer.write(words)
        if words is whole:
            await reader.readuntil(b"}")
            writer.write(b"GET /")
        async with asyncio.timeout(3):
            await reader.read()
        assert time.monotonic() - started_at > 0.2
        writer.close()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000)
    async with asyncio.timeout(2):
        assert b" 400 " in await reader.readline()
    writer.close()
    await openai.completions.create(**ASKED)


async def test_http_is_off_unless_asked_for(open_client):
    async with open_client(http_listen="") as client:
        assert client.gateway.http_address == ""


@pytest.mark.parametrize("listen", ["nowhere", "127.0.0.1:99999", "256.0.0.1:0"])
async def test_addresses_that_it_cannot_listen_on(open_client, listen):
    with pytest.raises(ConfigError, match="cannot serve HTTP"):
        async with open_client(http_listen=listen):
            pass


async def test_an_address_that_is_taken(open_client, client):
    with pytest.raises(ConfigError, match="cannot serve HTTP"):
        async with open_client(http_listen=client.gateway.http_address):
            pass
