"""Engines over small checkpoints, and callers that wait for them."""

import queue
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from tandem.core.draft_position import AT_P
from tandem.core.sampling_params import SamplingParams, StoppingParams
from tandem.core.sequence import Sequence
from tandem.engine.assembly import drafter_kv, make_engine, make_storage
from tandem.engine.draft_source import DrafterInfo, Wanted
from tandem.engine.in_process_drafter import InProcessDrafter
from tandem.engine.limits import EngineLimits
from tandem.engine.mtp_drafter import MtpDrafter
from tandem.engine.shared_scales import scaled_spec
from tandem.exchange.draft_inputs import DTYPES, private_inputs
from tandem.models.gemma4.weights import load_drafter, load_target
from tandem.sampling.judge import judge
from tandem.telemetry.metrics import Metrics

LIMITS = EngineLimits(
    max_sequences=32,
    max_step_tokens=64,
    max_draft_tokens=7,
    max_queue=100,
    max_context=512,
    kv_tokens=4096,
    block_size=16,
)


def new_sequence(sequence_id, prompt, max_tokens=16, k=4, seed=0, temperature=0.0, **kwargs) -> Sequence:
    """A sequence; `kwargs` are fields of `SamplingParams`, or of `Sequence` itself."""
    own = {name: kwargs.pop(name) for name in ("output", "deadline", "cache_salt", "grammar") if name in kwargs}
    stopping = kwargs.pop("stopping", StoppingParams(max_tokens))
    sampling = SamplingParams(temperature=temperature, seed=seed, **kwargs)
    return Sequence(sequence_id, tuple(prompt), sampling, stopping, num_speculative_tokens=k, **own)


def wanted(slots, num_tokens, token_ids=(2,)) -> list[Wanted]:
    """So many drafts for each slot."""
    return [Wanted(slot, list(token_ids), num_tokens, sequence_id=slot) for slot in slots]


class EngineUnderTest:
    """An engine on its own thread, its outputs kept by sequence."""

    def __init__(self, target, drafts_of, limits=LIMITS, adaptive_k=False, judge=judge, kv_dtype=""):
        """`drafts_of(inputs)` makes the `DraftSource`, or several of them; `kv_dtype` is a `SharedLayer`'s."""
        self.metrics = Metrics()
        self.limits = limits
        storage = make_storage(target, limits, kv_dtype=DTYPES.get(kv_dtype))
        spec = limits.exchange_spec(target.config, str(target.embed_tokens.dtype).removeprefix("torch."), kv_dtype)
        self.inputs = private_inputs(
            scaled_spec(spec, target, storage),
            drafter_kv(target, storage),
            target.embed_tokens,
        )
        self.outputs: dict[int, list] = {}
        self._ended: queue.Queue[int] = queue.Queue()
        drafters = drafts_of(self.inputs)
        self.engine = make_engine(
            target,
            storage,
            self.inputs,
            drafters if isinstance(drafters, list) else [drafters],
            limits,
            self.metrics,
            self._publish,
            adaptive_k,
            judge,
        )

    def generate(self, sequences: Iterable[Sequence], seconds: float = 60.0) -> list[list[int]]:
        """Runs all of them together; the tokens of each, in the order given."""
        sequences = list(sequences)
        for sequence in sequences:
            self.engine.submit(sequence)
        self.wait(sequences, seconds)
        return [self.token_ids(sequence) for sequence in sequences]

    def wait(self, sequences, seconds: float = 60.0) -> None:
        left = {sequence.sequence_id for sequence in sequences}
        while left:
            left.discard(self._ended.get(timeout=seconds))

    def token_ids(self, sequence: Sequence) -> list[int]:
        return [token_id for output in self.outputs[sequence.sequence_id] for token_id in output.token_ids]

    def end(self, sequence: Sequence):
        return self.outputs[sequence.sequence_id][-1].end

    def _publish(self, outputs):
        for output in outputs:
            self.outputs.setdefault(output.sequence_id, []).append(output)
            if output.end:
                self._ended.put(output.sequence_id)


@contextmanager
def running(target, drafts_of, adaptive_k=False, judge=judge, kv_dtype="", **limits):
    """An engine that works; at the end it must be idle and whole."""
    under_test = EngineUnderTest(target, drafts_of, replace(LIMITS, **limits), adaptive_k, judge, kv_dtype)
    under_test.engine.start()
    try:
        yield under_test
    finally:
        under_test.engine.stop()
        assert under_test.engine.wait_until_dead() is None


def lenient_judge(own, drafts, counts):
    """Lets one draft more stand than should."""
    return torch.minimum(judge(own, drafts, counts) + 1, counts)


def load_tiny_target(paths: tuple[Path, Path]):
    return load_target(paths[0], torch.float32, "cpu")


def mtp_drafts(target, path: Path, k: int = 7, position: str = AT_P):
    """Makes the `DraftSource` of a real drafter in this process."""

    def make(inputs):
        network = load_drafter(path, target.config, torch.float32, "cpu", inputs.embedding)
        return InProcessDrafter(MtpDrafter(network, inputs, position), DrafterInfo("mtp", k, "test"))

    return make
