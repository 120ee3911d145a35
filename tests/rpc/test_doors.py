"""What hostile, mistaken or slow peers can do at a gateway's and a verifier's doors; certificates are made anew."""

import asyncio
import os
import re
import socket
import ssl
import subprocess
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tandem.core.errors import ConfigError
from tandem.gateway import authentication
from tandem.gateway.config import GatewayConfig
from tandem.internal.v1 import verifier_service_pb2_grpc
from tandem.rpc.channel import open_channel
from tandem.rpc.conversion import RequestDefaults, resolve_request
from tandem.rpc.errors import STATUS_DETAILS_KEY
from tandem.rpc.server import RpcServer
from tandem.rpc.tls import server_credentials
from tandem.rpc.tls_files import ClientTls, ServerTls
from tandem.v1 import generation_service_pb2 as pb
from tandem.v1 import generation_service_pb2_grpc, model_service_pb2, types_pb2
from tandem.verifier.config import VerifierConfig
from tests.rpc.fake_verifier import SERVICE, finished, started, verified
from tests.rpc.test_gateway_errors import refusal, refused, spec

CODES = grpc.StatusCode
SERVING = health_pb2.HealthCheckResponse.SERVING
SERVICES = Path(authentication.__file__).parents[1]


class Authority:
    """A certificate authority of this test, and certificates for `localhost` by it."""

    def __init__(self, folder):
        folder.mkdir()
        self.folder, self.ca = folder, folder / "ca.pem"
        self._openssl("req", "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem", *NEW_KEY)

    def issue(self, name):
        """Certificate and key files."""
        (self.folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
        self._openssl("req", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr", *NEW_KEY)
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)
        return str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=20)


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("pki") / "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("pki") / "theirs")


@pytest.fixture(scope="module")
def server_pair(authority):
    return authority.issue("server")


@pytest.fixture(scope="module")
def client_pair(authority):
    return authority.issue("client")


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

    go_on = asyncio.Event()

    async def script(request):
        yield started()
        await go_on.wait()
        yield verified([70])
        yield finished()

    fake.script = script
    put(pairs[0])
    async with open_client(tls_certificate_file=str(certificate), tls_key_file=str(key)) as plain:
        async with open_channel(plain.address, tls=ClientTls(str(authority.ca), "", "", "localhost")) as channel:
            await asyncio.wait_for(_until_serving(channel), 5)
            call = generation_service_pb2_grpc.GenerationServiceStub(channel).StreamGenerate(
                pb.StreamGenerateRequest(spec=spec())
            )
            await call.read()
            before = await peer_serial(plain.address, authority)
            certificate.write_text("no certificate")
            assert await peer_serial(plain.address, authority) == before, "a bad file changes nothing"
            put(pairs[1])
            assert await peer_serial(plain.address, authority) != before
            go_on.set()
            assert [m.WhichOneof("event") async for m in _rest(call)][-1] == "finished"
        with pytest.raises(grpc.aio.AioRpcError):  # plain text at a TLS door
            await plain.health.Check(health_pb2.HealthCheckRequest(), timeout=2)


async def _rest(call):
    while (message := await call.read()) is not grpc.aio.EOF:
        yield message


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


async def test_keys_are_replaced_while_a_stream_runs(open_client, verifier, fake, tmp_path, monkeypatch):
    monkeypatch.setattr(authentication, "REFRESH_SECONDS", 0.02)
    go_on = asyncio.Event()

    async def script(request):
        yield started()
        await go_on.wait()
        yield finished()

    fake.script = script
    path = tmp_path / "keys"
    path.write_text("old\n")
    old, new = ([("authorization", f"Bearer {key}")] for key in ("old", "new"))
    list_models = model_service_pb2.ListModelsRequest()

    async def until(metadata, is_good):
        async with asyncio.timeout(3):
            while True:
                code = await client.models.ListModels(list_models, metadata=metadata).code()
                if (code is CODES.OK) == is_good:
                    return
                await asyncio.sleep(0.02)

    async with open_client(api_keys_file=str(path)) as client:
        await client.wait_for_health(SERVING)
        call = client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=spec()), metadata=old)
        await call.read()
        path.write_text("old\nnew\n")
        await until(new, True)
        await until(old, True)
        path.write_text("new # rotated\nnew\n")
        await until(old, False)
        path.write_text("")
        await asyncio.sleep(0.1)
        await until(new, True)  # a file without keys changes nothing
        go_on.set()
        assert (await call.read()).HasField("finished")


async def test_each_key_has_its_own_streams_and_tokens(open_client, verifier, fake, tmp_path):
    go_on = asyncio.Event()

    async def script(request):
        yield started()
        await go_on.wait()
        yield verified([70] * 20)
        yield finished()

    fake.script = script
    (tmp_path / "keys").write_text("one\ntwo\n")
    one, two = ([("authorization", f"Bearer {key}")] for key in ("one", "two"))
    request = pb.StreamGenerateRequest(spec=spec())
    settings = {"streams_per_key": 1, "tokens_per_minute": 12, "api_keys_file": str(tmp_path / "keys")}
    async with open_client(**settings) as client:
        await client.wait_for_health(SERVING)
        call = client.generation.StreamGenerate(request, metadata=one)
        num_tokens = (await call.read()).started.num_prompt_tokens + 20
        error, details = await refusal(client.generation.StreamGenerate(request, metadata=one, timeout=5))
        assert (error.code(), details["ErrorInfo"].reason) == (CODES.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert "at a time" in error.details() and details["RetryInfo"].retry_delay.ToMilliseconds() == 1000
        other = client.generation.StreamGenerate(request, metadata=two)
        await other.read()
        other.cancel()
        go_on.set()
        assert [m async for m in _rest(call)][-1].HasField("finished")
        error, details = await refusal(client.generation.StreamGenerate(request, metadata=one))
        assert "tokens" in error.details()
        seconds = details["RetryInfo"].retry_delay.ToMilliseconds() / 1000
        owed = num_tokens - 12
        assert owed > 8 and (owed + 1) * 5 - 3 < seconds <= (owed + 1) * 5  # until one more is there


def _lines(pattern):
    return [
        f"{path}:{line}"
        for path in SERVICES.rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(pattern, line)
    ]


def test_nothing_is_pickled_and_no_request_reaches_json_format():
    """CVE-2026-3059, CVE-2025-32444, CVE-2025-62164; CVE-2026-0994."""
    assert not _lines(r"\b(import|from) (pickle|marshal|shelve|dill|cloudpickle)\b|torch\.load\(|json_format")


def test_requests_name_no_file_address_template_or_memory():
    """CVE-2026-24208, CVE-2026-5760, CVE-2025-23319, SSRF; nor has one a Struct or Any, CVE-2025-4565."""
    seen, left = set(), [pb.DESCRIPTOR.message_types_by_name[n] for n in pb.DESCRIPTOR.message_types_by_name]
    while left:
        message = left.pop()
        if message.full_name in seen:
            continue
        seen.add(message.full_name)
        assert message.file.package == "tandem.v1"
        for field in message.fields:
            assert not re.search(r"path|file|url|uri|template|kwargs|region|handle|shm", field.name), field.full_name
            assert field.type != field.TYPE_BYTES
            left += [field.message_type] if field.message_type else []
    assert "tandem.v1.Conversation" in seen


@pytest.fixture
def real_checks(fake):
    """The fake verifier reads requests as the real one does."""
    defaults = RequestDefaults(
        context_length=256,
        vocabulary_size=512,
        eos_token_ids=frozenset({1}),
        suppress_token_ids=(),
        temperature=1.0,
        top_k=64,
        top_p=0.95,
        num_speculative_tokens=4,
    )

    async def script(request):
        resolve_request(request, defaults)
        yield started()
        yield finished()

    fake.script = script


HOSTILE_SPECS = {
    "CVE-2026-34756 stops": (spec(stopping={"stop": ["x"] * 100_000}), "spec.stopping.stop"),
    "CVE-2026-34756 stop ids": (spec(stopping={"stop_token_ids": range(100)}), "spec.stopping.stop_token_ids"),
    "CVE-2026-34756 bias": (
        spec(sampling={"logit_bias": dict.fromkeys(range(1025), 1.0)}),
        "spec.sampling.logit_bias",
    ),
    "CVE-2026-34756 logprobs": (spec(output={"top_logprobs": 2**31 - 1}), "spec.output.top_logprobs"),
    "CVE-2026-34756 prompt": (spec(text="x" * 2_000_001), "spec.text"),
    "CVE-2025-48944 schema": (spec(output_format={"json_schema": "[" * 70_000}), "spec.output_format"),
    "CVE-2026-24173 ids": (types_pb2.GenerationSpec(token_ids={"ids": [-1]}), "spec.token_ids"),
    "CVE-2026-44223 penalty": (spec(sampling={"repetition_penalty": float("nan")}), "spec.sampling.repetition_penalty"),
    "CVE-2026-24146 messages": (
        types_pb2.GenerationSpec(conversation={"messages": [{"role": 2}] * 5000}),
        "spec.conversation.messages",
    ),
    "CVE-2025-4565 nesting": (
        types_pb2.GenerationSpec(
            conversation={
                "messages": [{"role": 2, "text": "x"}],
                "tools": [{"name": "f", "parameters_json": '{"a":' * 50_000}],
            }
        ),
        "spec.conversation.tools",
    ),
}


@pytest.mark.parametrize("row", HOSTILE_SPECS)
async def test_hostile_fields_are_refused_by_name(client, real_checks, row):
    given, field = HOSTILE_SPECS[row]
    error, details = await refused(client, given)
    assert error.code() is CODES.INVALID_ARGUMENT
    assert details["BadRequest"].field_violations[0].field.startswith(field)
    await client.generation.Generate(pb.GenerateRequest(spec=spec()))  # and it still serves


@pytest.mark.parametrize(
    "metadata",
    [[("x", "y" * 40_000)], [(f"x-{i}", "y" * 1000) for i in range(40)]],
    ids=["one", "many"],
)
async def test_giant_metadata_is_refused(client, fake, metadata):
    """CVE-2025-48956."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.generation.Generate(pb.GenerateRequest(spec=spec()), metadata=metadata)
    assert caught.value.code() is CODES.RESOURCE_EXHAUSTED and not fake.requests


async def test_giant_messages_are_refused_before_they_are_read(client, fake):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.generation.Generate(pb.GenerateRequest(spec=spec(text="x" * (9 << 20))))
    assert caught.value.code() is CODES.RESOURCE_EXHAUSTED and not fake.requests


@pytest.mark.parametrize("authority_name", ["grpc.health.v1.Health", "localhost/grpc.health.v1.Health/Check"])
async def test_neither_authority_nor_path_tricks_open_the_door(open_client, verifier, fake, tmp_path, authority_name):
    """CVE-2026-48746, CVE-2026-33186, CVE-2026-59822, CVE-2026-24207."""
    (tmp_path / "keys").write_text("key\n")
    async with open_client(api_keys_file=str(tmp_path / "keys")) as client:
        await client.wait_for_health(SERVING)
        body = pb.GenerateRequest(spec=spec()).SerializeToString()
        options = [("grpc.default_authority", authority_name)]
        async with grpc.aio.insecure_channel(client.address, options=options) as channel:
            for method in (
                "/tandem.v1.GenerationService/Generate",
                "tandem.v1.GenerationService/Generate",
                "//tandem.v1.GenerationService/Generate",
                "/grpc.health.v1.Health/../tandem.v1.GenerationService/Generate",
                "/grpc.health.v1.Health/Generate",
                "/tandem.internal.v1.VerifierService/Generate",
            ):
                with pytest.raises(grpc.aio.AioRpcError):
                    await channel.unary_unary(method)(body, timeout=2)
        assert not fake.requests


async def test_a_method_without_a_rule_does_not_exist(fake):
    """Even where it is registered."""
    server = RpcServer([authentication.AuthenticationInterceptor(authentication.Authentication(None))])
    server.add(verifier_service_pb2_grpc.add_VerifierServiceServicer_to_server, fake, SERVICE)
    async with open_channel(await server.start("127.0.0.1:0")) as channel:
        call = channel.unary_unary(f"/{SERVICE}/DescribeModel")(b"")
        assert await call.code() is CODES.UNIMPLEMENTED
    await server.stop(0)


async def test_peers_that_connect_and_say_nothing_or_nonsense(client):
    host, _, port = client.address.rpartition(":")
    peers = []
    for words in (b"", b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000, b"\x00" * 4096):
        peer = socket.create_connection((host, int(port)))
        peer.sendall(words)
        peers.append(peer)
    async with asyncio.timeout(2):
        await client.generation.Generate(pb.GenerateRequest(spec=spec()))
    for peer in peers:
        peer.close()


async def test_special_tokens_in_text_are_text(client, tokenizer):
    """CVE-2026-44222."""
    special = next(iter(tokenizer.special_tokens))
    count = await client.generation.CountTokens(pb.CountTokensRequest(spec=spec(text=special)))
    assert count.num_tokens > 2


async def test_errors_tell_nothing_of_the_inside(client, fake):
    """CVE-2026-22778, CVE-2025-23320."""

    def fail(request):
        raise OSError(2, "No such file", "/dev/shm/tandem-secret")

    fake.script = fail
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.generation.Generate(pb.GenerateRequest(spec=spec()))
    assert caught.value.code() is CODES.INTERNAL
    told = caught.value.details().encode() + caught.value.trailing_metadata()[STATUS_DETAILS_KEY]
    assert b"shm" not in told and b"secret" not in told


async def test_streams_over_one_connection_are_bounded(open_client, verifier, fake):
    async def script(request):
        yield started()
        await asyncio.Event().wait()

    fake.script = script
    async with open_client(max_concurrent_streams=3) as client:
        await client.wait_for_health(SERVING)  # its watch has ended
        calls = [client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=spec())) for _ in range(6)]
        await asyncio.sleep(0.3)
        assert 1 <= len(fake.requests) <= 3
        for call in calls:
            call.cancel()
