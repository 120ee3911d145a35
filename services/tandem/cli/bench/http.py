"""The gateway's HTTP door against its gRPC door: the wait for the first token, and many streams at a time."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import httpx

from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.failure import MeasurementFailed
from tandem.cli.bench.goal import Goal
from tandem.cli.bench.latency import percentile
from tandem.cli.bench.measuring import FIRST_TOKEN_TOKENS
from tandem.cli.bench.prompts import read_texts, shorten
from tandem.cli.bench.replica import Journal, open_replica
from tandem.cli.bench.section import Section
from tandem.cli.bench.table import NAME_WIDTH
from tandem.cli.client import Client, open_client
from tandem.cli.client_config import ClientConfig
from tandem.cli.up import private_directory
from tandem.cli.up_config import SPLIT
from tandem.v1 import types_pb2

NAME = "http"
NUM_STREAMS = 64
STREAM_TOKENS = 64
WARM_UP_REQUESTS = 4
MOST_MS = 5.0
REQUEST_SECONDS = 600.0  # many streams wait for their turn
DONE = "[DONE]"


@dataclass(frozen=True)
class Ask:
    """A request that both doors understand."""

    text: str
    max_tokens: int
    cache_salt: str
    temperature: float = 0.0
    seed: int = 0

    def spec(self) -> types_pb2.GenerationSpec:
        """For gRPC."""
        return types_pb2.GenerationSpec(
            text=self.text,
            cache_salt=self.cache_salt,
            sampling=types_pb2.SamplingOptions(temperature=self.temperature, seed=self.seed),
            stopping=types_pb2.StoppingOptions(max_tokens=self.max_tokens, ignore_eos=True),
            output=types_pb2.OutputOptions(token_ids=True),
        )

    def body(self) -> dict[str, Any]:
        """For HTTP."""
        return {
            "prompt": self.text,
            "cache_salt": self.cache_salt,
            "temperature": self.temperature,
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            "ignore_eos": True,
            "stream": True,
            "tandem": {"tokens": True},
        }


@dataclass(frozen=True)
class Told:
    """What one stream told."""

    token_ids: tuple[int, ...]
    first_token_seconds: float


async def measure_http(config: BenchConfig, journal: Journal) -> Section:
    """Asks both doors of one gateway for the same texts.

    Args:
        config: which pair, how many threads, and how many requests for the first token.
        journal: told what happens to the services.

    Raises:
        TandemError: a door cannot be asked, or a stream broke off.
    """
    texts = read_texts(config.prompts)
    with private_directory(config.exchange_directory) as folder:
        async with (
            open_replica(config, SPLIT, folder, journal, http=True) as plan,
            open_client(ClientConfig(server=plan.gateway)) as grpc,
            httpx.AsyncClient(
                base_url=f"http://{plan.http}", timeout=REQUEST_SECONDS, limits=httpx.Limits(), trust_env=False
            ) as http,
        ):
            waits = await _first_tokens(grpc, http, texts, config)
            journal.on_event(f"{NAME}: first tokens")
            streams = [
                Ask(text, STREAM_TOKENS, "streams", config.temperature, config.seed + index)
                for index, text in enumerate(itertools.islice(itertools.cycle(texts), NUM_STREAMS))
            ]
            over_http = await asyncio.gather(*(_ask_http(http, ask) for ask in streams))
            over_grpc = await asyncio.gather(*(_ask_grpc(grpc, ask) for ask in streams))
            journal.on_event(f"{NAME}: {NUM_STREAMS} streams")
    return _section(waits, [told.token_ids for told in over_http], [told.token_ids for told in over_grpc])


async def _first_tokens(
    grpc: Client, http: httpx.AsyncClient, texts: Sequence[str], config: BenchConfig
) -> dict[str, list[float]]:
    """Milliseconds, request by request; who comes first changes each time. The first ones of all are not counted."""
    waits: dict[str, list[float]] = {"gRPC": [], "HTTP": []}
    prompts = itertools.islice(itertools.cycle(texts), WARM_UP_REQUESTS + config.first_token_requests)
    for index, text in enumerate(prompts):
        doors = [
            ("gRPC", _ask_grpc(grpc, _short(text, f"gRPC {index}"))),
            ("HTTP", _ask_http(http, _short(text, f"HTTP {index}"))),
        ]
        for name, asking in doors if index % 2 else reversed(doors):
            seconds = (await asking).first_token_seconds
            if index >= WARM_UP_REQUESTS:
                waits[name].append(1000 * seconds)
    return waits


def _short(text: str, cache_salt: str) -> Ask:
    """A salt of its own: no prompt is found in the cache."""
    return Ask(shorten(text), FIRST_TOKEN_TOKENS, cache_salt)


async def _ask_grpc(client: Client, ask: Ask) -> Told:
    token_ids: list[int] = []
    figures = await client.generate(ask.spec(), lambda delta: token_ids.extend(token.id for token in delta.tokens))
    return Told(tuple(token_ids), figures.first_token_seconds)


async def _ask_http(client: httpx.AsyncClient, ask: Ask) -> Told:
    started_at, first_at = time.perf_counter(), None
    token_ids: list[int] = []
    async with client.stream("POST", "/v1/completions", json=ask.body()) as response:
        async for chunk in _chunks(response):
            new = [token["id"] for token in chunk.get("tandem", {}).get("tokens", ())]
            if new and first_at is None:
                first_at = time.perf_counter()
            token_ids += new
    if first_at is None:
        raise MeasurementFailed("a stream over HTTP had no token")
    return Told(tuple(token_ids), first_at - started_at)


async def _chunks(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    if response.status_code != httpx.codes.OK:
        raise MeasurementFailed(f"the HTTP door answered {response.status_code}: {(await response.aread()).decode()}")
    async for line in response.aiter_lines():
        data = line.removeprefix("data: ")
        if data == DONE:
            return
        if data:
            yield json.loads(data)
    raise MeasurementFailed("a stream over HTTP broke off")


def count_wrong(found: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]) -> int:
    """Tokens that are missing, surplus or another at their place."""
    return sum(
        one != other for streams in zip(found, wanted, strict=True) for one, other in itertools.zip_longest(*streams)
    )


def _section(
    waits: dict[str, list[float]], over_http: Sequence[Sequence[int]], over_grpc: Sequence[Sequence[int]]
) -> Section:
    lines = [f"HTTP: {len(waits['HTTP'])} requests of each door in turn, then {len(over_http)} streams at a time"]
    for name, values in waits.items():
        if values:
            shown = f"{median(values):>9.2f} ms   p90 {percentile(values, 90):.2f} ms"
            lines.append(f"{'first token over ' + name:<{NAME_WIDTH}}{shown}")
    num_tokens = sum(map(len, over_grpc))
    num_equal = sum(tuple(one) == tuple(other) for one, other in zip(over_http, over_grpc, strict=True))
    lines.append(f"{'streams like those of gRPC':<{NAME_WIDTH}}{num_equal:>9} of {len(over_http)}, {num_tokens} tokens")
    adds = median(waits["HTTP"]) - median(waits["gRPC"]) if waits["HTTP"] else None
    wrong = float(count_wrong(over_http, over_grpc))
    return Section(
        name=NAME,
        lines=tuple(lines),
        goals=(
            Goal("HTTP adds to the first token of gRPC", adds, " ms", MOST_MS, is_upper_bound=True),
            Goal(f"tokens lost or misplaced, {len(over_http)} streams", wrong, "", 0.0, is_upper_bound=True),
        ),
        samples={f"first token over {name}, ms": values for name, values in waits.items()},
    )
