"""A verifier as the benchmark calls it: token ids in, token ids out, no gateway between."""

import itertools
import time
from dataclasses import dataclass

import grpc

from tandem.cli.bench.failure import MeasurementFailed
from tandem.cli.bench.stream import Arrival, Stream
from tandem.internal.v1 import verifier_service_pb2, verifier_service_pb2_grpc
from tandem.v1 import types_pb2


@dataclass(frozen=True)
class Ask:
    """What to generate after a prompt."""

    max_tokens: int
    num_speculative_tokens: int
    temperature: float = 0.0  # above 0, top-k and top-p are the checkpoint's own
    seed: int = 0
    ignore_eos: bool = True
    cache_salt: str = ""  # empty: one that no other text has, so that nothing of it is computed yet
    output_format: types_pb2.OutputFormat | None = None


class VerifierClient:
    """Calls of one verifier."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Calls over `channel`."""
        self._stub = verifier_service_pb2_grpc.VerifierServiceStub(channel)
        self._numbers = itertools.count()

    async def generate(self, prompt_token_ids: tuple[int, ...], ask: Ask) -> Stream:
        """One text, complete.

        Raises:
            MeasurementFailed: it ended early, or never began.
        """
        request = verifier_service_pb2.GenerateRequest(
            prompt_token_ids=prompt_token_ids,
            sampling=types_pb2.SamplingOptions(temperature=ask.temperature, seed=ask.seed),
            max_tokens=ask.max_tokens,
            ignore_eos=ask.ignore_eos,
            num_speculative_tokens=ask.num_speculative_tokens,
            cache_salt=ask.cache_salt or f"bench {next(self._numbers)}",
            output_format=ask.output_format,
        )
        token_ids: list[int] = []
        arrivals: list[Arrival] = []
        started_at = time.perf_counter()
        try:
            async for response in self._stub.Generate(request):
                if response.HasField("round"):
                    at, verified = time.perf_counter(), response.round
                    token_ids.extend(verified.token_ids)
                    arrivals.append(
                        Arrival(at, len(verified.token_ids), verified.num_draft_tokens, verified.num_drafted_tokens)
                    )
        except grpc.aio.AioRpcError as error:
            raise MeasurementFailed(f"the verifier: {error.code().name}: {error.details()}") from None
        if not arrivals:
            raise MeasurementFailed("the verifier ended a text before its first token")
        return Stream(started_at, tuple(token_ids), tuple(arrivals))
