"""The table that a benchmark of a shape prints."""

from collections.abc import Iterator
from statistics import median

from tandem.cli.bench.preset.goals import preset_goals
from tandem.cli.bench.preset.results import PresetResults
from tandem.cli.bench.table import NAME_WIDTH

GIGABYTE = 1e9
_COLUMNS = (
    ("tokens/s", 10),
    ("with prompts", 14),
    ("first token", 13),
    ("tokens a round", 16),
    ("ms a round", 12),
    ("drafter", 9),
    ("verifier", 10),
    ("rest", 7),
    ("floor", 8),
    ("reached", 9),
)


def render(results: PresetResults) -> str:
    """The results for people."""
    sections = (_head, _figures, _peers, _memory, _goals)
    return "\n\n".join("\n".join(lines) for section in sections if (lines := list(section(results)))) + "\n"


def _head(results: PresetResults) -> Iterator[str]:
    config, device = results.config, results.device
    ranks = f"{config.tensor_parallel} ranks, " if config.tensor_parallel > 1 else ""
    yield f"{ranks}{device.name}, reads {device.read_bytes_per_second / 1e12:.2f} TB/s"
    yield ", ".join(f"{name} {version}" for name, version in results.machine.versions.items())
    drafting = f"K = {config.num_speculative_tokens}, acceptance length {config.acceptance_length:g} by schedule"
    yield (
        f"{results.shape}: random {config.dtype} weights, {drafting}, {config.max_tokens} tokens a text, "
        f"T = {config.temperature:g}, medians of {config.runs} runs, {results.seconds:.0f} s in all"
    )


def _figures(results: PresetResults) -> Iterator[str]:
    yield "Asked of the gateway, with token ids. Tokens/s while all texts are written; with prompts: from end to end"
    yield f"{'':<{NAME_WIDTH}}" + "".join(f"{title:>{width}}" for title, width in _COLUMNS)
    for one in results.measured:
        parts = (one.parts.drafter_ms, one.parts.verifier_ms, one.parts.rest_ms) if one.parts else (None,) * 3
        cells = (
            f"{one.median('tokens_per_second'):.1f}",
            f"{one.median('whole_tokens_per_second'):.1f}",
            f"{one.median('first_token_ms'):.0f} ms",
            f"{one.median('acceptance_length'):.2f}",
            f"{one.median('ms_per_round'):.2f}",
            *("-" if part is None else f"{part:.2f}" for part in parts),
            f"{one.floor.milliseconds(results.device.read_bytes_per_second):.2f}",
            f"{results.floor_share(one):.0%}",
        )
        row = "".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
        yield f"{f'{one.way.name}, {one.kind.name}':<{NAME_WIDTH}}{row}"
    if any(one.floor.experts_bytes for one in results.measured):
        for one in results.measured:
            yield (
                f"{f'{one.way.name}, {one.kind.name}':<{NAME_WIDTH}}"
                f"{one.floor.experts_bytes / GIGABYTE:.2f} GB of experts touched, by random routing"
            )


def _peers(results: PresetResults) -> Iterator[str]:
    for peer in results.peers:
        name = f"{peer.name}, batch 1, prompt {peer.prompt_tokens}"
        yield f"{name:<{NAME_WIDTH}}{median(peer.ms_per_round):>10.2f} ms a round"


def _memory(results: PresetResults) -> Iterator[str]:
    yield f"{'Memory, GB':<{NAME_WIDTH}}{'host':>10}{'device':>10}"
    for name, memory in results.memory.items():
        for service, host in memory.host.items():
            yield f"{f'{name}: {service}':<{NAME_WIDTH}}{_size(host):>10}{_size(memory.device.get(service)):>10}"
        if memory.device_in_use is not None:
            yield f"{f'{name}: the whole device':<{NAME_WIDTH}}{'':>10}{_size(memory.device_in_use):>10}"


def _size(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / GIGABYTE:.2f}"


def _goals(results: PresetResults) -> Iterator[str]:
    goals = preset_goals(results)
    if goals:
        yield f"{'':<{NAME_WIDTH}}{'measured':>10}   goal"
        yield from (goal.line(NAME_WIDTH) for goal in goals)
