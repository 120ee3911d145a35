"""One benchmark of a shape, from its settings to its table."""

import asyncio
import json
import time
from dataclasses import asdict
from pathlib import Path

from tandem.cli import console
from tandem.cli.bench.preset.config import PresetConfig
from tandem.cli.bench.preset.kinds import kinds_of
from tandem.cli.bench.preset.measuring import Reader, measure
from tandem.cli.bench.preset.replica import open_replica
from tandem.cli.bench.preset.shape import find_shape, write_shape
from tandem.cli.bench.replica import Journal
from tandem.cli.up import private_directory
from tandem.core.errors import TandemError


def bench_preset(config: PresetConfig) -> int:
    """Measures."""
    started_at = time.monotonic()

    def progress(text: str) -> None:
        console.notice(f"{time.monotonic() - started_at:4.0f} s  {text}")

    journal = Journal(progress)
    try:
        asyncio.run(_bench(config, journal))
    except TandemError:
        for line in journal.lines:
            console.notice(line)
        raise
    return 0


async def _bench(config: PresetConfig, journal: Journal) -> None:
    shape = find_shape(config.preset)
    kinds = kinds_of(config)
    found = []
    for drafter in config.drafter_list:
        with private_directory(config.exchange_directory) as folder:
            paths = write_shape(shape, folder)
            async with open_replica(config, drafter, kinds, paths, folder, journal) as replica:
                print(await replica.probe())
                reader = Reader(replica, config, shape.vocab_size)
                found += await measure(reader, drafter, kinds, config.runs, journal)
                print(await replica.probe())
                if config.profile:
                    for kind in kinds:
                        task = asyncio.create_task(reader.run(kind))
                        await asyncio.sleep(0.2)
                        print(kind, json.dumps(await replica.probe(0.3)))
                        print(await task)
    print(json.dumps([asdict(one) for one in found]))
