"""The one table that a benchmark prints."""

from collections.abc import Iterator
from statistics import median

from tandem.cli.bench.goals import goals
from tandem.cli.bench.latency import percentile
from tandem.cli.bench.results import Results

GIBIBYTE = 1 << 30
NAME_WIDTH = 48
QUIET_LOAD = 0.5


def render(results: Results) -> str:
    """The results for people."""
    sections = (_head, _throughput, _texts, _acceptance, _first_token, _features, _goals)
    return "\n\n".join("\n".join(lines) for section in sections if (lines := list(section(results)))) + "\n"


def _head(results: Results) -> Iterator[str]:
    machine, config = results.machine, results.config
    memory = f", {machine.memory_bytes / GIBIBYTE:.1f} GiB" if machine.memory_bytes else ""
    yield f"{machine.processor}, {machine.num_cores} cores{memory}"
    yield ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    yield (
        f"float32 on the CPU, {machine.num_threads} torch threads, K = {config.num_speculative_tokens}, "
        f"medians of {config.runs} runs, {results.seconds:.0f} s in all"
    )
    if machine.load is not None and machine.load > QUIET_LOAD:
        yield f"Other work was running (load {machine.load:.1f} before the start): no figure here is the machine's own"


def _throughput(results: Results) -> Iterator[str]:
    config = results.config
    if not results.throughput:
        return
    yield (
        f"Throughput: {results.num_prompts} prompts, {config.max_tokens} tokens each, greedy; "
        "asked of the verifier itself, with token ids"
    )
    columns = f"{'tokens/s':>10}{'after first':>13}{'ms a round':>12}{'tokens a round':>16}"
    yield f"{'':<{NAME_WIDTH}}{columns}"
    for measured in results.throughput:
        name, medians = f"batch {measured.batch}, {measured.how.value}", measured.medians
        yield (
            f"{name:<{NAME_WIDTH}}{medians.tokens_per_second:>10.1f}{medians.decode_tokens_per_second:>13.1f}"
            f"{medians.ms_per_round:>12.1f}{medians.tokens_per_round:>16.2f}"
        )


def _texts(results: Results) -> Iterator[str]:
    for how, count in results.equal_texts.items():
        yield f"Same tokens {how.value} as with drafter: {count} of {results.num_prompts} texts"


def _acceptance(results: Results) -> Iterator[str]:
    if not results.acceptance:
        return
    yield (
        f"Acceptance length (output tokens a verify round), up to {results.config.max_tokens} tokens a prompt: "
        "over all rounds, and of each prompt"
    )
    yield f"{'':<20}{'all rounds':>12}{'mean':>8}{'median':>8}{'min':>8}   accepted by draft position"
    for found in results.acceptance:
        name = f"T = {found.temperature:g}, {len(found.prompt_lengths)} prompts"
        yield (
            f"{name:<20}{found.length:>12.2f}{found.mean_prompt_length:>8.2f}{found.median_prompt_length:>8.2f}"
            f"{found.min_prompt_length:>8.2f}   {' '.join(f'{share:.2f}' for share in found.accepted_shares)}"
        )
    for found in results.acceptance:
        if found.num_short_texts:
            yield f"T = {found.temperature:g}: {found.num_short_texts} more texts ended with their first token"
    num_undrafted = sum(found.num_undrafted_rounds for found in results.acceptance)
    if num_undrafted:
        yield f"{num_undrafted} of {sum(found.num_rounds for found in results.acceptance)} rounds had no drafts in time"


def _first_token(results: Results) -> Iterator[str]:
    found = results.first_token
    if found is None:
        return
    yield f"Time to the first token, {len(found.gateway_ms)} short prompts each{'median':>13}{'p95':>12}"
    for name, waits in (("from the verifier", found.verifier_ms), ("through the gateway", found.gateway_ms)):
        yield f"{name:<{NAME_WIDTH}}{median(waits):>9.2f} ms{percentile(waits, 95):>9.2f} ms"


def _features(results: Results) -> Iterator[str]:
    for number, section in enumerate(results.sections):
        if number:
            yield ""
        yield from section.lines


def _goals(results: Results) -> Iterator[str]:
    yield f"{'':<{NAME_WIDTH}}{'measured':>10}   goal"
    for goal in goals(results):
        yield goal.line(NAME_WIDTH)
