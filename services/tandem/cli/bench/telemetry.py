"""What telemetry costs: tokens a second of two replicas in turn, of which one traces and sends everything."""

import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import grpc

from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.failure import MeasurementFailed
from tandem.cli.bench.goal import Goal
from tandem.cli.bench.prompts import read_texts, spread
from tandem.cli.bench.replica import Journal, open_replica
from tandem.cli.bench.section import Section
from tandem.cli.bench.table import NAME_WIDTH
from tandem.cli.client import Client, open_client
from tandem.cli.client_config import ClientConfig
from tandem.cli.up import private_directory
from tandem.cli.up_config import SPLIT
from tandem.telemetry.otlp import ENDPOINT
from tandem.v1 import types_pb2

NUM_PROMPTS = 10
NUM_RUNS = 4
LEAST_RATIO = 0.98
# Sends more often than anybody would, so that a short run has its share of it.
SETTINGS = {"OTEL_METRIC_EXPORT_INTERVAL": "1000", "OTEL_TRACES_SAMPLER": "always_on"}


class Collector(grpc.GenericRpcHandler):
    """Takes whatever is sent to it, and counts."""

    def __init__(self) -> None:
        """Nothing came yet."""
        self.num_messages = 0

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """A handler for any method: an empty answer is a good one to all of OTLP."""
        return grpc.unary_unary_rpc_method_handler(self._take)

    async def _take(self, _message: bytes, _context: Any) -> bytes:
        self.num_messages += 1
        return b""


async def measure_telemetry(config: BenchConfig, journal: Journal) -> Section:
    """Asks both gateways for the same texts, one text at a time; who comes first changes each time.

    Args:
        config: which pair, and how many threads.
        journal: told what happens to the services.

    Raises:
        TandemError: a gateway cannot be asked, or nothing was sent.
    """
    prompts = spread(read_texts(config.prompts), NUM_PROMPTS)
    async with _collector() as (collector, endpoint), AsyncExitStack() as replicas:
        off = await replicas.enter_async_context(_open_gateway(config, journal))
        with _environment({ENDPOINT: endpoint, **SETTINGS}):
            on = await replicas.enter_async_context(_open_gateway(config, journal))
        for client in (on, off):
            await _seconds(client, prompts[0], config)  # the first one waits longer
        fastest: dict[Client, list[float]] = {on: [], off: []}
        for prompt in prompts:
            taken: dict[Client, list[float]] = {on: [], off: []}
            for number in range(NUM_RUNS):
                for client in (on, off) if number % 2 else (off, on):
                    taken[client].append(await _seconds(client, prompt, config))
            for client, seconds in taken.items():
                fastest[client].append(min(seconds))
        if not collector.num_messages:
            raise MeasurementFailed("nothing was sent to the collector")
    return _section(fastest[on], fastest[off])


async def _seconds(client: Client, text: str, config: BenchConfig) -> float:
    """The time of one text of `max_tokens` tokens, none of its prompt being cached."""
    spec = types_pb2.GenerationSpec(
        text=text,
        cache_salt=f"telemetry {time.monotonic_ns()}",
        sampling=types_pb2.SamplingOptions(temperature=0.0),
        stopping=types_pb2.StoppingOptions(max_tokens=config.max_tokens, ignore_eos=True),
    )
    figures = await client.generate(spec, lambda _delta: None)
    if figures.num_tokens != config.max_tokens:
        raise MeasurementFailed("a text ended early")
    return figures.seconds


@asynccontextmanager
async def _open_gateway(config: BenchConfig, journal: Journal) -> AsyncIterator[Client]:
    with private_directory(config.exchange_directory) as folder:
        async with open_replica(config, SPLIT, folder, journal) as plan:
            async with open_client(ClientConfig(server=plan.gateway)) as client:
                yield client


@asynccontextmanager
async def _collector() -> AsyncIterator[tuple[Collector, str]]:
    collector, server = Collector(), grpc.aio.server()
    server.add_generic_rpc_handlers([collector])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield collector, f"http://127.0.0.1:{port}"
    finally:
        await server.stop(0)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """For processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, text in before.items():
            if text is None:
                del os.environ[name]
            else:
                os.environ[name] = text


def _section(on: list[float], off: list[float]) -> Section:
    """From the fastest run of each text: whatever else the machine does makes runs slower, and none faster."""
    ratio = sum(off) / sum(on)
    return Section(
        name="telemetry",
        lines=(
            f"Telemetry: {NUM_PROMPTS} texts, the fastest of {NUM_RUNS} runs of each",
            f"{'everything sent':<{NAME_WIDTH}}{sum(on):>9.3f} s",
            f"{'nothing sent':<{NAME_WIDTH}}{sum(off):>9.3f} s",
        ),
        goals=(Goal("telemetry on / off, tokens a second", ratio, "x", LEAST_RATIO),),
        samples={"on_seconds": on, "off_seconds": off},
    )
