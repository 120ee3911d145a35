"""Asks a replica for texts, kind after kind and again."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence

from tandem.cli.bench.failure import MeasurementFailed
from tandem.cli.bench.preset.figures import Run, Text, run_figures
from tandem.cli.bench.preset.kind import Kind, Way
from tandem.cli.bench.replica import Journal
from tandem.cli.bench.stream import Arrival
from tandem.cli.client import Client
from tandem.v1 import types_pb2

# Of the family's published generation configuration.
TOP_K, TOP_P = 64, 0.95
# Far apart and without a common factor, so that no two prompts are alike.
TOKEN_STEP, PROMPT_STEP = 7919, 104_729


class Reader:
    """A client of a gateway that never asks for the same prompt twice."""

    def __init__(self, gateway: Client, vocab_size: int, temperature: float) -> None:
        """Asks `gateway` for texts."""
        self._gateway = gateway
        self._vocab_size = vocab_size
        self._temperature = temperature
        self._numbers: Iterator[int] = itertools.count()

    async def texts(self, kind: Kind, decoding: asyncio.Event | None = None) -> list[Text]:
        """Texts of a kind, together.

        Args:
            kind: how many, and how long.
            decoding: set once all of them have begun.

        Raises:
            MeasurementFailed: one was too short to measure anything.
        """
        num_begun = 0

        def on_begin() -> None:
            nonlocal num_begun
            num_begun += 1
            if decoding and num_begun == kind.batch:
                decoding.set()

        return await asyncio.gather(*(self._text(kind, on_begin) for _ in range(kind.batch)))

    async def _text(self, kind: Kind, on_begin: Callable[[], None]) -> Text:
        arrivals: list[Arrival] = []

        def on_delta(delta: types_pb2.Delta) -> None:
            if delta.num_tokens:
                arrivals.append(Arrival(time.perf_counter(), delta.num_tokens))
                if len(arrivals) == 1:
                    on_begin()

        spec = self._spec(kind, next(self._numbers))
        started_at = time.perf_counter()
        figures = await self._gateway.generate(spec, on_delta)
        if len(arrivals) < 2:
            raise MeasurementFailed("a text came in one piece: ask for more tokens with --max-tokens")
        return Text(started_at, tuple(arrivals), figures.num_rounds, figures.num_accepted_tokens)

    def _spec(self, kind: Kind, number: int) -> types_pb2.GenerationSpec:
        ids = prompt_ids(kind.prompt_tokens, number, self._vocab_size)
        sampling = types_pb2.SamplingOptions(temperature=self._temperature, seed=number)
        if self._temperature:
            sampling.top_k, sampling.top_p = TOP_K, TOP_P
        return types_pb2.GenerationSpec(
            token_ids=types_pb2.TokenIds(ids=ids),
            cache_salt=f"bench {number}",
            sampling=sampling,
            stopping=types_pb2.StoppingOptions(max_tokens=kind.max_tokens, ignore_eos=True),
        )


def prompt_ids(num_tokens: int, number: int, vocab_size: int) -> list[int]:
    """The prompt of that number: token ids from 1 on."""
    return [1 + (TOKEN_STEP * place + PROMPT_STEP * number) % (vocab_size - 1) for place in range(num_tokens)]


async def measure(
    reader: Reader, way: Way, kinds: Sequence[Kind], num_runs: int, journal: Journal
) -> dict[Kind, list[Run]]:
    """Each kind in turn, and all again; before that each once, for what is made at first use.

    Raises:
        TandemError: a text did not come.
    """
    for kind in kinds:
        await reader.texts(kind)
    journal.on_event(f"{way.name}: all is warm")
    runs: dict[Kind, list[Run]] = {kind: [] for kind in kinds}
    for number in range(1, num_runs + 1):
        for kind in kinds:
            run = run_figures(await reader.texts(kind))
            runs[kind].append(run)
            journal.on_event(
                f"run {number} of {num_runs}, {way.name}, {kind.name}: "
                f"{run.tokens_per_second:.1f} tokens/s, {run.ms_per_round:.2f} ms a round, "
                f"first token after {run.first_token_ms:.0f} ms"
            )
    return runs
