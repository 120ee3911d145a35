"""`tandem demo`: the three processes on the demo pair, and what drafting changes: the speed, and nothing else."""

import argparse
import asyncio
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tandem.cli import console
from tandem.cli.client import Client, open_client
from tandem.cli.client_config import ClientConfig
from tandem.cli.figures import Figures
from tandem.cli.parser import Parser
from tandem.cli.plan import Plan, make_plan, memory_directory
from tandem.cli.supervisor import Supervisor
from tandem.cli.token_printer import DRAFTED, TokenPrinter
from tandem.cli.up import private_directory
from tandem.cli.up_config import UpConfig
from tandem.core.errors import TandemError
from tandem.demo import held_out_prompts
from tandem.v1 import types_pb2

NUM_TOKENS = 128
WARM_UP_TOKENS = 16
SEED = 7
MAX_KEPT_LINES = 50


class LossFound(TandemError):
    """Drafting changed a text, or did not happen at all."""


@dataclass(frozen=True)
class Comparison:
    """The same prompt with the drafter and without."""

    sampling: str
    drafted: Figures
    plain: Figures
    are_texts_equal: bool


def configure(parser: Parser) -> None:
    """Adds nothing: the demo is the same for everybody."""


def run(_arguments: argparse.Namespace) -> int:
    """Streams a completion and compares; returns 0 if all texts were equal and drafts were accepted."""
    # Nothing of the user's settings: a demo shows what everybody's does.
    up, settings = UpConfig(), argparse.Namespace(listen="127.0.0.1:0", log_level="warning")
    lines: deque[str] = deque(maxlen=MAX_KEPT_LINES)
    with private_directory(memory_directory(settings, up, {})) as folder:
        try:
            asyncio.run(_demo(make_plan(settings, up, folder, {}), lambda name, line: lines.append(f"{name}: {line}")))
        except TandemError:
            for line in lines:
                console.notice(line)
            raise
    return 0


async def _demo(plan: Plan, on_line: Callable[[str, str], None]) -> None:
    console.status("Starting drafter, verifier and gateway, each a process of its own:")
    supervisor = Supervisor(plan, on_line, console.status, console.notice)
    async with supervisor, open_client(ClientConfig(server=plan.gateway)) as client:
        prompt = held_out_prompts()[0]
        await client.generate(_spec(prompt, 0.0, None, WARM_UP_TOKENS), lambda _delta: None)
        console.status(f"\nA beginning that the model never saw:\n\n{console.paint(prompt, console.DIM, sys.stdout)}")
        legend = f" ({console.paint('drafted and accepted', DRAFTED, sys.stdout)})"
        console.status(f"\nIts continuation{legend if console.has_colour(sys.stdout) else ''}:\n")
        greedy = await _compare(client, "greedy", prompt, 0.0, TokenPrinter(sys.stdout))
        sampled = await _compare(client, "T = 0.8", prompt, 0.8, None)
    _show_table([greedy, sampled])
    _judge([greedy, sampled])


async def _compare(
    client: Client, name: str, prompt: str, temperature: float, printer: TokenPrinter | None
) -> Comparison:
    """One prompt, drafted and plain; the drafted text is shown by `printer` as it comes."""
    texts: list[str] = []
    figures: list[Figures] = []
    for num_speculative_tokens in (None, 0):
        deltas: list[types_pb2.Delta] = []

        def keep(delta: types_pb2.Delta, deltas: list[types_pb2.Delta] = deltas) -> None:
            deltas.append(delta)
            if printer and not figures:
                printer.write(delta)

        spec = _spec(prompt, temperature, num_speculative_tokens, NUM_TOKENS)
        spec.output.token_ids = bool(printer and printer.needs_tokens)
        figures.append(await client.generate(spec, keep))
        texts.append("".join(delta.text for delta in deltas))
        if printer and len(figures) == 1:
            printer.finish()
    return Comparison(name, figures[0], figures[1], texts[0] == texts[1])


def _spec(
    prompt: str, temperature: float, num_speculative_tokens: int | None, max_tokens: int
) -> types_pb2.GenerationSpec:
    return types_pb2.GenerationSpec(
        text=prompt,
        # Of its own, so that no run finds the prompt computed by another.
        cache_salt=f"demo {temperature} {num_speculative_tokens} {max_tokens}",
        sampling=types_pb2.SamplingOptions(temperature=temperature, seed=SEED),
        stopping=types_pb2.StoppingOptions(max_tokens=max_tokens, ignore_eos=True),
        speculation=types_pb2.SpeculationOptions(num_speculative_tokens=num_speculative_tokens),
    )


def _show_table(comparisons: list[Comparison]) -> None:
    console.status(f"\n{'':<24}{'tokens':>8}{'seconds':>9}{'tokens/s':>10}{'rounds':>8}{'acceptance length':>19}")
    for comparison in comparisons:
        for how, figures in (("with drafter", comparison.drafted), ("without", comparison.plain)):
            length = figures.acceptance_length
            console.status(
                f"{comparison.sampling:<9}{how:<15}{figures.num_tokens:>8}{figures.seconds:>9.2f}"
                f"{figures.tokens_per_second:>10.1f}{figures.num_rounds:>8}"
                f"{'-' if length is None else f'{length:.2f}':>19}"
            )


def _judge(comparisons: list[Comparison]) -> None:
    """Says whether all was as promised.

    Raises:
        LossFound: it was not.
    """
    different = [comparison.sampling for comparison in comparisons if not comparison.are_texts_equal]
    if different:
        raise LossFound(f"the text with drafter was another than without ({', '.join(different)})")
    if not all(comparison.drafted.num_accepted_tokens for comparison in comparisons):
        raise LossFound("no draft token was accepted: the drafter was not used")
    if any(comparison.plain.num_draft_tokens for comparison in comparisons):
        raise LossFound("tokens were drafted where none were wanted")
    factor = comparisons[0].plain.seconds / comparisons[0].drafted.seconds
    console.status(
        f"\nThe texts were equal, greedy and sampled. The drafter made the greedy one {factor:.2f} times as fast."
    )
