"""Real servers on loopback and Unix sockets: a verifier that plays scripts, and a gateway before it."""

import asyncio
from contextlib import asynccontextmanager

import pytest
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from openai import AsyncOpenAI

from tandem.gateway.config import GatewayConfig
from tandem.gateway.service import open_gateway
from tandem.gateway.tokenizer import TextTokenizer
from tandem.internal.v1 import verifier_service_pb2_grpc
from tandem.rpc.channel import open_channel
from tandem.rpc.server import RpcServer
from tandem.v1 import generation_service_pb2_grpc, model_service_pb2_grpc
from tests.authority import Authority
from tests.rpc.fake_verifier import SERVICE, FakeVerifier, serving
from tests.rpc.replicas import replicas
from tests.unit.gateway.conftest import byte_level_tokenizer, save_checkpoint


def pytest_asyncio_loop_factories(config, item):
    # uvloop runs Python between fork and exec, which beside gRPC's threads may crash: browsers are started without it.
    starts_browser = item.get_closest_marker("browser")
    return {"asyncio": asyncio.new_event_loop} if starts_browser else {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def fake():
    return FakeVerifier()


@pytest.fixture
async def server(fake):
    server = RpcServer()
    server.add(verifier_service_pb2_grpc.add_VerifierServiceServicer_to_server, fake, SERVICE)
    server.address = await server.start("127.0.0.1:0")
    yield server
    await server.stop(0)


@pytest.fixture
async def channel(server):
    async with open_channel(server.address) as channel:
        yield channel


@pytest.fixture
def stub(channel):
    return verifier_service_pb2_grpc.VerifierServiceStub(channel)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "target", byte_level_tokenizer())


@pytest.fixture(scope="session")
def tokenizer(checkpoint):
    return TextTokenizer.load(checkpoint)


@pytest.fixture
def verifier_address(tmp_path):
    return f"unix:{tmp_path}/verifier.sock"


@pytest.fixture
async def verifier(fake, verifier_address):
    async with serving(fake, verifier_address) as server:
        yield server


class Client:
    """A gateway and a channel to it."""

    def __init__(self, gateway, channel):
        self.gateway = gateway
        self.server = gateway.server
        self.address = gateway.address
        self.channel = channel
        self.generation = generation_service_pb2_grpc.GenerationServiceStub(channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)
        self.url = f"http://{gateway.http_address}"

    def openai(self, **options):
        """The official client of the gateway's other door."""
        return AsyncOpenAI(**{"base_url": f"{self.url}/v1", "api_key": "none", "max_retries": 0, **options})

    async def wait_for_health(self, status):
        async for response in self.health.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True):
            if response.status == status:
                return


@pytest.fixture
def open_client(checkpoint, verifier_address):
    """Opens a gateway with the given settings, and a client of it that does not wait for a verifier."""

    @asynccontextmanager
    async def open_client(**settings):
        config = GatewayConfig(
            **{
                "tokenizer": str(checkpoint),
                "listen": "127.0.0.1:0",
                "http_listen": "127.0.0.1:0",
                "verifier": verifier_address,
                **settings,
            }
        )
        async with open_gateway(config) as gateway, open_channel(gateway.address) as channel:
            following = asyncio.create_task(gateway.follow_verifiers())
            try:
                yield Client(gateway, channel)
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    return open_client


@pytest.fixture
async def client(open_client, verifier):
    """A client of a gateway whose verifier serves."""
    async with open_client() as client:
        await client.wait_for_health(health_pb2.HealthCheckResponse.SERVING)
        yield client


@pytest.fixture
async def two(open_client, tmp_path):
    """A client, and two verifiers behind its gateway."""
    addresses = [f"unix:{tmp_path}/{number}.sock" for number in range(2)]
    async with replicas(open_client, addresses, resume_seconds=0.5) as all_of_them:
        yield all_of_them


@pytest.fixture
async def openai(client):
    """The official client of that gateway."""
    async with client.openai() as openai:
        yield openai


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
