"""What hostile or mistaken peers can do at a gateway's door."""

import asyncio
import re
import socket
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tandem.gateway import authentication
from tandem.internal.v1 import verifier_service_pb2_grpc
from tandem.rpc.channel import open_channel
from tandem.rpc.conversion import RequestDefaults, resolve_request
from tandem.rpc.errors import STATUS_DETAILS_KEY
from tandem.rpc.server import RpcServer
from tandem.v1 import generation_service_pb2 as pb
from tandem.v1 import types_pb2
from tests.rpc.calls import refused, spec
from tests.rpc.fake_verifier import SERVICE, finished, held, started

CODES = grpc.StatusCode
SERVING = health_pb2.HealthCheckResponse.SERVING
SERVICES = Path(authentication.__file__).parents[1]


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
    _, fake.script = held()
    async with open_client(max_concurrent_streams=3) as client:
        await client.wait_for_health(SERVING)  # its watch has ended
        calls = [client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=spec())) for _ in range(6)]
        await asyncio.sleep(0.3)
        assert 1 <= len(fake.requests) <= 3
        for call in calls:
            call.cancel()
