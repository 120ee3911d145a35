"""What the lookup drafter is worth where there is something to copy, beside the MTP drafter and none."""

from contextlib import AsyncExitStack
from dataclasses import replace

from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.field import our_contender
from tandem.cli.bench.goal import Goal
from tandem.cli.bench.measuring import measure_throughput
from tandem.cli.bench.prompts import Prompt, encode, read_texts, spread
from tandem.cli.bench.replica import Journal, open_verifier
from tandem.cli.bench.section import Section
from tandem.cli.bench.throughput import How, Measured, count_equal_texts
from tandem.cli.up_config import SPLIT
from tandem.verifier.config import NO_DRAFTER

NAME = "lookup"
MAX_PROMPTS = 4
PASSAGE_TOKENS = 96
BEGUN_TOKENS = 16  # of the passage, once more: what follows is plain
WARM_UP_TOKENS = 16


async def measure_lookup(config: BenchConfig, journal: Journal) -> Section:
    """Batch 1, greedy, in turns: the end of a passage that stands in the prompt twice and is begun once more."""
    passages = [
        prompt
        for prompt in await encode(read_texts(config.prompts), config.target)
        if len(prompt.token_ids) >= PASSAGE_TOKENS
    ]
    prompts = [copying(prompt) for prompt in spread(passages, min(MAX_PROMPTS, len(passages)))]
    if not prompts:
        return Section(NAME, (f"Lookup: no prompt has {PASSAGE_TOKENS} tokens",), (), {})
    k, copied = config.num_speculative_tokens, replace(config, max_tokens=PASSAGE_TOKENS - BEGUN_TOKENS)
    async with AsyncExitStack() as stack:
        verifiers = []
        for drafter, lookup in ((NO_DRAFTER, True), (SPLIT, False)):
            verifiers.append(await stack.enter_async_context(open_verifier(config, drafter, journal, lookup=lookup)))
        looked_up, drafted = verifiers
        contenders = [
            our_contender(How.LOOKUP, looked_up, k, (1,)),
            our_contender(How.SPLIT, drafted, k, (1,)),
            our_contender(How.PLAIN, drafted, 0, (1,)),
        ]
        for contender in contenders:
            await contender.generate(prompts[0], WARM_UP_TOKENS)
        texts = await measure_throughput(contenders, prompts, copied, journal.on_event)
    return _section(texts.measured, count_equal_texts(texts.token_ids), len(prompts), copied.max_tokens)


def copying(prompt: Prompt) -> Prompt:
    """The beginning of a prompt twice, and begun once more."""
    passage = prompt.token_ids[:PASSAGE_TOKENS]
    return Prompt("", (*passage, *passage, *passage[:BEGUN_TOKENS]))


def _section(measured: tuple[Measured, ...], equal_texts: dict[How, int], num_prompts: int, max_tokens: int) -> Section:
    speeds = {one.how: one.medians.decode_tokens_per_second for one in measured}
    return Section(
        NAME,
        (
            f"Lookup: {num_prompts} prompts that hold a passage twice and begin it again, {max_tokens} tokens each, "
            "greedy, batch 1",
            f"{'':<32}{'tokens/s after first':>21}{'ms a round':>12}{'tokens a round':>16}{'same texts':>12}",
            *(
                f"{one.how.value:<32}{one.medians.decode_tokens_per_second:>21.1f}{one.medians.ms_per_round:>12.1f}"
                f"{one.medians.tokens_per_round:>16.2f}{equal_texts.get(one.how, num_prompts):>12}"
                for one in measured
            ),
        ),
        (
            Goal("copying: lookup against none", speeds[How.LOOKUP] / speeds[How.PLAIN], "x"),
            Goal("copying: lookup against the MTP drafter", speeds[How.LOOKUP] / speeds[How.SPLIT], "x"),
        ),
        {
            f"{one.how.value}, decode tokens a second": [run.decode_tokens_per_second for run in one.runs]
            for one in measured
        },
    )
