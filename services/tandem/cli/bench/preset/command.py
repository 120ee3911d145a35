"""One benchmark of a shape, from its settings to its table."""

import asyncio
import json
import sys
import time
from pathlib import Path

from tandem.cli import console
from tandem.cli.bench.command import check_writable
from tandem.cli.bench.config import TRANSFORMERS
from tandem.cli.bench.failure import MeasurementFailed
from tandem.cli.bench.machine import describe_machine
from tandem.cli.bench.preset.config import PresetConfig
from tandem.cli.bench.preset.floor import Floors
from tandem.cli.bench.preset.goals import preset_goals
from tandem.cli.bench.preset.kind import Way, kinds_of, ways_of
from tandem.cli.bench.preset.measuring import Reader, measure
from tandem.cli.bench.preset.memory import Memory
from tandem.cli.bench.preset.parts import measure_parts
from tandem.cli.bench.preset.peer import measure_transformers
from tandem.cli.bench.preset.plot import require_matplotlib, write_plot
from tandem.cli.bench.preset.replica import open_replica
from tandem.cli.bench.preset.results import Device, Measured, PeerMeasured, PresetResults
from tandem.cli.bench.preset.shape import Shape, find_shape, write_shape
from tandem.cli.bench.preset.table import render
from tandem.cli.bench.replica import Journal
from tandem.cli.bench.transformers_client import require_transformers
from tandem.cli.up import private_directory
from tandem.core.errors import TandemError


def bench_preset(config: PresetConfig) -> int:
    """Measures. The table goes to stdout, how far it has come to stderr.

    Raises:
        TandemError: something could not be measured.
    """
    check_writable("--json", config.json)
    check_writable("--plot", config.plot)
    if config.plot:
        require_matplotlib()
    if config.compare == TRANSFORMERS:
        require_transformers()
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
        Path(config.json).write_text(results.to_json(preset_goals(results)), encoding="utf-8")
    if config.plot:
        write_plot(results, config.plot)
    console.status(f"\n{render(results)}")
    return 0


async def _bench(config: PresetConfig, journal: Journal) -> PresetResults:
    started_at = time.monotonic()
    shape = find_shape(config.preset)
    machine = describe_machine(config.threads)
    device = await _measure_device(config.device)
    journal.on_event(f"{device.name} reads {device.read_bytes_per_second / 1e9:.0f} GB/s")
    floors = Floors(shape, config)
    measured: list[Measured] = []
    memory: dict[str, Memory] = {}
    for way in ways_of(config):  # one after the other: two would not fit
        found, memory[way.name] = await _measure_way(config, shape, way, floors, journal)
        measured += found
    peers: tuple[PeerMeasured, ...] = ()
    if config.compare == TRANSFORMERS:
        with private_directory(config.exchange_directory) as folder:
            peers = await measure_transformers(config, shape, folder, journal)
    journal.check()
    return PresetResults(
        config=config,
        shape=shape.name,
        machine=machine,
        device=device,
        measured=tuple(measured),
        memory=memory,
        peers=peers,
        seconds=time.monotonic() - started_at,
    )


async def _measure_way(
    config: PresetConfig, shape: Shape, way: Way, floors: Floors, journal: Journal
) -> tuple[list[Measured], Memory]:
    kinds = kinds_of(config)
    with private_directory(config.exchange_directory) as folder:
        paths = write_shape(shape, folder)
        async with open_replica(config, way, kinds, paths, folder, journal) as replica:
            reader = Reader(replica.gateway, shape.vocab_size, config.temperature)
            runs = await measure(reader, way, kinds, config.runs, journal)
            memory = await replica.memory()
            parts = {kind: await measure_parts(reader, replica, kind) for kind in kinds if config.profile}
    return [Measured(way, kind, tuple(runs[kind]), floors.of(way, kind), parts.get(kind)) for kind in kinds], memory


async def _measure_device(device: str) -> Device:
    """Reads much of it in a process of its own, which leaves nothing behind.

    Raises:
        MeasurementFailed: there is no such device.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "tandem.cli.bench.preset.bandwidth", device),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    answer, errors = await process.communicate()
    if process.returncode:
        said = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise MeasurementFailed(f"--device {device} cannot be read: {said}")
    return Device(**json.loads(answer))
