"""One benchmark, from its settings to its table."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

from tandem.cli import console
from tandem.cli.bench.adaptive_k import measure_adaptive_k
from tandem.cli.bench.centroids import measure_centroids
from tandem.cli.bench.config import SPEED, BenchConfig
from tandem.cli.bench.field import open_field
from tandem.cli.bench.fp8 import measure_fp8
from tandem.cli.bench.http import measure_http
from tandem.cli.bench.lookup import measure_lookup
from tandem.cli.bench.machine import describe_machine
from tandem.cli.bench.measuring import (
    measure_acceptance,
    measure_first_token,
    measure_throughput,
)
from tandem.cli.bench.prefix_cache import measure_prefix_cache
from tandem.cli.bench.prompts import encode, read_texts, shorten, spread
from tandem.cli.bench.replica import Journal
from tandem.cli.bench.results import Results
from tandem.cli.bench.section import Section
from tandem.cli.bench.structured_output import measure_structured_output
from tandem.cli.bench.table import render
from tandem.cli.bench.telemetry import measure_telemetry
from tandem.cli.bench.throughput import count_equal_texts
from tandem.core.errors import ConfigError, TandemError

WARM_UP_TOKENS = 16

Measure = Callable[[BenchConfig, Journal], Awaitable[Section]]
# What `--only` may name, each with services of its own.
FEATURES: dict[str, Measure] = {
    "prefix-cache": measure_prefix_cache,
    "adaptive-k": measure_adaptive_k,
    "lookup": measure_lookup,
    "centroids": measure_centroids,
    "structured-output": measure_structured_output,
    "fp8": measure_fp8,
    "telemetry": measure_telemetry,
    "http": measure_http,
}


def bench(config: BenchConfig) -> int:
    """Measures. The table goes to stdout, how far it has come to stderr.

    Raises:
        TandemError: something could not be measured.
    """
    check_writable("--json", config.json)
    started_at = time.monotonic()

    def progress(text: str) -> None:
        console.notice(f"{time.monotonic() - started_at:4.0f} s  {text}")

    journal = Journal(progress)
    try:
        results = asyncio.run(_bench(config, journal))
    except TandemError:
        for line in journal.lines:
            console.notice(line)
        raise
    if config.json:
        Path(config.json).write_text(results.to_json(), encoding="utf-8")
    console.status(f"\n{render(results)}")
    return 0


async def _bench(config: BenchConfig, journal: Journal) -> Results:
    started_at = time.monotonic()
    machine = describe_machine(config.threads)  # before anything of ours burdens it
    results = Results(config=config, machine=machine)
    if config.only in ("", SPEED):
        results = await _measure_speed(results, journal)
    features = [name for name in FEATURES if config.only in ("", name)]
    sections = tuple([await FEATURES[name](config, journal) for name in features])
    journal.check()
    return replace(results, sections=sections, seconds=time.monotonic() - started_at)


async def _measure_speed(results: Results, journal: Journal) -> Results:
    config = results.config
    texts = read_texts(config.prompts)
    every_prompt = await encode(texts, config.target)
    prompts = spread(every_prompt, config.batch)
    short = await encode([shorten(text) for text in islice(cycle(texts), config.first_token_requests)], config.target)
    async with open_field(config, journal) as field:
        for contender in field.contenders:
            await contender.generate(prompts[0], WARM_UP_TOKENS)
        journal.on_event("all are warm")
        written = await measure_throughput(field.contenders, prompts, config, journal.on_event)
        acceptance = []
        for temperature in (0.0, config.temperature):
            found = await measure_acceptance(field.verifier, every_prompt, temperature, config)
            if found:
                acceptance.append(found)
                journal.on_event(f"acceptance length at T = {temperature:g}: {found.length:.2f}")
        first_token = await measure_first_token(field.verifier, field.gateway, short, config) if short else None
        journal.check()
    return replace(
        results,
        num_prompts=len(prompts),
        throughput=written.measured,
        equal_texts=count_equal_texts(written.token_ids),
        acceptance=tuple(acceptance),
        first_token=first_token,
    )


def check_writable(option: str, path: str) -> None:
    """Opens a file for the figures before minutes are spent on them; an empty path is none.

    Raises:
        ConfigError: it cannot be written.
    """
    if path:
        try:
            Path(path).open("a", encoding="utf-8").close()
        except OSError as error:
            raise ConfigError(f"{option} {path}: {error.strerror}") from None
