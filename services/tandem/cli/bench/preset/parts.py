"""What a round is made of, by the kernels of the processes that take part."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tandem.cli.bench.preset.figures import Text
from tandem.cli.bench.preset.kind import Kind
from tandem.cli.bench.preset.measuring import Reader
from tandem.cli.bench.preset.replica import Replica

PROFILE_SECONDS = 0.25
FIRST_PROFILE_SECONDS = 0.01  # of one that is thrown away: the profiler takes a while to start
MIN_ROUNDS = 3


@dataclass(frozen=True)
class Parts:
    """Milliseconds of one round, on average. A drafter inside the verifier counts as part of it."""

    verifier_ms: float  # the device works for the verifier
    drafter_ms: float  # the device works for the drafter's process
    rest_ms: float  # it works for neither
    waits: Mapping[str, float]  # calls a round that wait for the device, by service and call
    kernels: Mapping[str, list[tuple[str, float, float]]]  # by service: name, ms a round, calls a round


async def measure_parts(reader: Reader, replica: Replica, kind: Kind) -> Parts | None:
    """Profiles texts of their own; None where no device has kernels to show, or texts were too short.

    Raises:
        TandemError: a text did not come.
    """
    await replica.probe(FIRST_PROFILE_SECONDS)
    decoding = asyncio.Event()
    writing = asyncio.create_task(reader.texts(kind, decoding))
    waiting = asyncio.create_task(decoding.wait())
    try:
        await asyncio.wait([writing, waiting], return_when=asyncio.FIRST_COMPLETED)
        answers = await replica.probe(PROFILE_SECONDS)
        return parts(await writing, {name: answer.get("profile") for name, answer in answers.items()})
    finally:
        waiting.cancel()
        writing.cancel()


def parts(texts: Sequence[Text], profiles: Mapping[str, dict[str, Any] | None]) -> Parts | None:
    """A round's parts from the texts that were read meanwhile and each service's profile."""
    busy: dict[str, float] = {}
    ms_per_round = 0.0  # while the verifier was profiled, which slows it down
    waits: dict[str, float] = {}
    kernels: dict[str, list[tuple[str, float, float]]] = {}
    for service, profile in profiles.items():
        num_rounds = _num_rounds(texts, profile["started_at"], profile["ended_at"]) if profile else 0.0
        if profile is None or num_rounds < MIN_ROUNDS:
            return None
        busy[service] = 1000 * profile["busy_seconds"] / num_rounds
        if service == "verifier":
            ms_per_round = 1000 * (profile["ended_at"] - profile["started_at"]) / num_rounds
        waits |= {f"{service} {call}": count / num_rounds for call, count in profile["waits"].items()}
        kernels[service] = [
            (name, 1000 * seconds / num_rounds, count / num_rounds) for name, seconds, count in profile["kernels"]
        ]
    verifier_ms, drafter_ms = busy.get("verifier", 0.0), busy.get("drafter", 0.0)
    rest_ms = ms_per_round - verifier_ms - drafter_ms
    return Parts(verifier_ms, drafter_ms, rest_ms, waits, kernels)


def _num_rounds(texts: Sequence[Text], begin: float, end: float) -> float:
    """Rounds of each text whose tokens arrived in that time."""
    return sum(begin < arrival.at <= end for text in texts for arrival in text.arrivals[1:]) / len(texts)
