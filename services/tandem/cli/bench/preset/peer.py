"""transformers on the same shape and device, with random weights of its own."""

from pathlib import Path

from tandem.cli.bench.preset.config import PresetConfig
from tandem.cli.bench.preset.measuring import prompt_ids
from tandem.cli.bench.preset.results import PeerMeasured
from tandem.cli.bench.preset.shape import Shape, write_shape
from tandem.cli.bench.replica import Journal
from tandem.cli.bench.transformers_client import PairSettings, TransformersClient, open_transformers
from tandem.verifier.config import num_threads

MAX_TOKENS = 16  # a text: random drafts are refused, so each round of it brings one


async def measure_transformers(
    config: PresetConfig, shape: Shape, folder: Path, journal: Journal
) -> tuple[PeerMeasured, ...]:
    """Plain and assisted rounds at batch 1, after a prompt of the first length.

    Raises:
        MeasurementFailed: transformers cannot make the pair.
    """
    target, drafter = write_shape(shape, folder)
    pair = PairSettings(
        target=str(target),
        draft_model=str(drafter),
        threads=num_threads(config.threads),
        num_speculative_tokens=config.num_speculative_tokens,
        dtype=config.dtype,
        device=config.device,
        random_weights=True,
    )
    async with open_transformers(pair) as transformers:
        journal.on_event("transformers is ready")
        return tuple([await _measure(transformers, config, shape, is_assisted) for is_assisted in (False, True)])


async def _measure(
    transformers: TransformersClient, config: PresetConfig, shape: Shape, is_assisted: bool
) -> PeerMeasured:
    samples = []
    for number in range(config.runs + 1):
        prompt = tuple(prompt_ids(config.prompt_list[0], number, shape.vocab_size))
        stream = await transformers.generate(prompt, MAX_TOKENS, is_assisted)
        samples.append(1000 * (stream.ended_at - stream.first_at) / len(stream.rounds))
    return PeerMeasured(is_assisted, config.prompt_list[0], tuple(samples[1:]))  # the first one is for warming up
