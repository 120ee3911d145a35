"""transformers in a process of its own, asked for one text at a time."""

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.failure import MeasurementFailed
from tandem.cli.bench.stream import Arrival, Stream
from tandem.cli.up_config import SPLIT
from tandem.core.errors import ConfigError
from tandem.models.checkpoint import Part, open_checkpoint
from tandem.verifier.config import num_threads

MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True)
class PairSettings:
    """What the worker's first line says."""

    target: str  # folder
    draft_model: str
    threads: int
    num_speculative_tokens: int
    dtype: str = "float32"
    device: str = "cpu"
    random_weights: bool = False  # the folders hold no others


class TransformersClient:
    """The parent's side; the child's is `transformers_worker`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Speaks with `process`."""
        self._process = process

    async def start(self, pair: PairSettings) -> None:
        """Waits until both models are loaded.

        Raises:
            MeasurementFailed: they cannot be loaded.
        """
        await self._ask(asdict(pair))

    async def generate(self, prompt_token_ids: tuple[int, ...], max_tokens: int, is_assisted: bool) -> Stream:
        """One greedy text.

        Raises:
            MeasurementFailed: it did not come.
        """
        answer = await self._ask(
            {"prompt_token_ids": prompt_token_ids, "max_tokens": max_tokens, "is_assisted": is_assisted}
        )
        return Stream(0.0, tuple(answer["token_ids"]), tuple(Arrival(at, count) for at, count in answer["arrivals"]))

    async def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        with suppress(ConnectionError):  # the missing answer tells
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line:
            raise MeasurementFailed("transformers failed on this pair; --compare none leaves it out")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise MeasurementFailed(f"transformers failed: {answer['error']}; --compare none leaves it out")
        return answer


def require_transformers() -> None:
    """Raises ConfigError unless transformers is installed."""
    if importlib.util.find_spec("transformers") is None:
        raise ConfigError("transformers is not installed: install tandem[bench], or leave it out with --compare none")


async def checkpoint_pair(config: BenchConfig) -> PairSettings:
    """The pair that is measured, in float32 on the CPU.

    Raises:
        ConfigError: a checkpoint cannot be had.
    """
    target, draft_model = [
        (await asyncio.to_thread(open_checkpoint, reference, Part.MODEL)).folder
        for reference in (config.target, config.up(SPLIT).draft_model_in_force)
    ]
    return PairSettings(str(target), str(draft_model), num_threads(config.threads), config.num_speculative_tokens)


@asynccontextmanager
async def open_transformers(pair: PairSettings) -> AsyncIterator[TransformersClient]:
    """Both models in transformers, loaded.

    Raises:
        MeasurementFailed: transformers cannot load the pair.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "tandem.cli.bench.transformers_worker"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # what matters of it comes as an answer
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        start_new_session=True,  # Ctrl-C is for us; the child ends with its stdin
        limit=MAX_LINE_BYTES,
    )
    try:
        client = TransformersClient(process)
        await client.start(pair)
        yield client
    finally:
        with suppress(ProcessLookupError):  # it has ended already
            process.kill()
        await process.wait()
