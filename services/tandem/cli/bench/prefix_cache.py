"""What the prefix cache is worth: the wait for the first token of a long prompt, computed and found."""

from itertools import chain, cycle, islice
from statistics import median

from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.failure import MeasurementFailed
from tandem.cli.bench.goal import Goal
from tandem.cli.bench.prompts import encode, read_texts
from tandem.cli.bench.replica import Journal, open_verifier
from tandem.cli.bench.section import Section
from tandem.cli.bench.table import NAME_WIDTH
from tandem.cli.bench.verifier_client import Ask
from tandem.verifier.config import IN_PROCESS

NUM_PROMPT_TOKENS = 1000
NUM_PAIRS = 9
MAX_TOKENS = 8
WARM_GAIN = 3.0


async def measure_prefix_cache(config: BenchConfig, journal: Journal) -> Section:
    """Asks for the same text twice in a row, again and again, each pair with a cache salt of its own.

    Args:
        config: which pair, and how many threads.
        journal: told what happens to the services.

    Raises:
        TandemError: the verifier cannot be asked, or the cache changed a text.
    """
    prompts = await encode(read_texts(config.prompts), config.target)
    token_ids = chain.from_iterable(prompt.token_ids for prompt in cycle(prompts))
    prompt = tuple(islice(token_ids, NUM_PROMPT_TOKENS))
    async with open_verifier(config, IN_PROCESS, journal) as verifier:
        await verifier.generate(prompt, Ask(MAX_TOKENS, config.num_speculative_tokens))  # the first one waits longer
        cold_ms, warm_ms = [], []
        for number in range(NUM_PAIRS):
            ask = Ask(MAX_TOKENS, config.num_speculative_tokens, cache_salt=f"prefix cache {number}")
            cold, warm = await verifier.generate(prompt, ask), await verifier.generate(prompt, ask)
            if cold.token_ids != warm.token_ids:
                raise MeasurementFailed("the prefix cache changed a text")
            cold_ms.append(1000 * cold.sample.first_token_seconds)
            warm_ms.append(1000 * warm.sample.first_token_seconds)
    return _section(cold_ms, warm_ms)


def _section(cold_ms: list[float], warm_ms: list[float]) -> Section:
    cold, warm = median(cold_ms), median(warm_ms)
    return Section(
        name="prefix-cache",
        lines=(
            f"Prefix cache: time to the first token of {NUM_PROMPT_TOKENS} prompt tokens, medians of {NUM_PAIRS} pairs",
            f"{'cold':<{NAME_WIDTH}}{cold:>9.2f} ms",
            f"{'warm':<{NAME_WIDTH}}{warm:>9.2f} ms",
        ),
        goals=(Goal("prefix cache, first token: cold / warm", cold / warm, "x", WARM_GAIN),),
        samples={"cold_first_token_ms": cold_ms, "warm_first_token_ms": warm_ms},
    )
