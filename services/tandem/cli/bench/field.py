"""Everybody who takes part in a benchmark: processes that are ready, and how to ask each for a text."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tandem.cli.bench.config import TRANSFORMERS, BenchConfig
from tandem.cli.bench.measuring import Contender
from tandem.cli.bench.prompts import Prompt
from tandem.cli.bench.replica import Journal, open_replica
from tandem.cli.bench.stream import Stream
from tandem.cli.bench.throughput import How
from tandem.cli.bench.transformers_client import (
    TransformersClient,
    checkpoint_pair,
    open_transformers,
    require_transformers,
)
from tandem.cli.bench.verifier_client import Ask, VerifierClient
from tandem.cli.client import Client, open_client
from tandem.cli.client_config import ClientConfig
from tandem.cli.up import private_directory
from tandem.cli.up_config import SPLIT
from tandem.rpc.channel import open_channel
from tandem.verifier.config import IN_PROCESS


@dataclass(frozen=True)
class Field:
    """All that is asked."""

    contenders: tuple[Contender, ...]
    verifier: VerifierClient  # with a drafter of its own
    gateway: Client  # before that verifier


@asynccontextmanager
async def open_field(config: BenchConfig, journal: Journal) -> AsyncIterator[Field]:
    """Starts everything, and stops it.

    Args:
        config: who takes part.
        journal: told what happens to the services.

    Raises:
        TandemError: somebody cannot take part.
    """
    async with AsyncExitStack() as stack:
        if config.compare == TRANSFORMERS:
            require_transformers()
        split = await stack.enter_async_context(open_replica(config, SPLIT, _folder(stack, config), journal))
        inside = await stack.enter_async_context(open_replica(config, IN_PROCESS, _folder(stack, config), journal))
        verifier = VerifierClient(await stack.enter_async_context(open_channel(split.verifier)))
        with_drafter_inside = VerifierClient(await stack.enter_async_context(open_channel(inside.verifier)))
        gateway = await stack.enter_async_context(open_client(ClientConfig(server=split.gateway)))
        transformers = None
        if config.compare == TRANSFORMERS:
            # Last: of a pair that does not fit, our own services say what is wrong.
            transformers = await stack.enter_async_context(open_transformers(await checkpoint_pair(config)))
            journal.on_event("transformers is ready")
        k, batches = config.num_speculative_tokens, tuple(sorted({1, config.batch}))
        contenders = [
            our_contender(How.SPLIT, verifier, k, batches),
            our_contender(How.IN_PROCESS, with_drafter_inside, k, batches),
            our_contender(How.PLAIN, verifier, 0, batches),
        ]
        if transformers:
            contenders += [_theirs(How.ASSISTED, transformers), _theirs(How.UNASSISTED, transformers)]
        yield Field(tuple(contenders), verifier, gateway)


def _folder(stack: AsyncExitStack, config: BenchConfig) -> Path:
    return stack.enter_context(private_directory(config.exchange_directory))


def our_contender(
    how: How, verifier: VerifierClient, num_speculative_tokens: int, batches: tuple[int, ...]
) -> Contender:
    """A verifier of ours that is asked for so many drafts a round."""

    async def generate(prompt: Prompt, max_tokens: int) -> Stream:
        return await verifier.generate(prompt.token_ids, Ask(max_tokens, num_speculative_tokens))

    return Contender(how, batches, generate)


def _theirs(how: How, transformers: TransformersClient) -> Contender:
    async def generate(prompt: Prompt, max_tokens: int) -> Stream:
        return await transformers.generate(prompt.token_ids, max_tokens, how is How.ASSISTED)

    return Contender(how, (1,), generate)
