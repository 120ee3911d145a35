"""Same token ids as the target alone: a drafter that is sent tokens, in a process without torch."""

import asyncio
import subprocess
import sys
from contextlib import contextmanager

import pytest

from tandem.telemetry import metrics as names
from tandem.verifier import drafter_link
from tests.engines import new_sequence, running
from tests.lossless.conftest import TEMPERATURES, Reference
from tests.lossless.hostile_drafter import HostileTokens, hostile_drafter
from tests.lossless.test_split import attached_verifier, generate

NUM_PROMPTS = 6
PASSAGE, BEGUN = 64, 12  # tokens
LONG = 120  # tokens of a text that goes on for a while


@contextmanager
def lookup_process(address):
    process = subprocess.Popen([sys.executable, "-m", "tandem.cli", "lookup-drafter", "--listen", address])
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def lookup_socket(tmp_path_factory):
    address = f"unix:{tmp_path_factory.mktemp('lookup')}/lookup.sock"
    with lookup_process(address) as process:
        yield address
        assert process.poll() is None
    assert process.returncode == 0


@pytest.fixture(scope="module")
def copying(reference):
    """Prompts that hold a passage twice and begin it once more."""
    passages = [prompt[:PASSAGE] for prompt in reference.prompts if len(prompt) >= PASSAGE]
    passages = passages[:: len(passages) // NUM_PROMPTS][:NUM_PROMPTS]
    copying = Reference(reference.target, [[*passage, *passage, *passage[:BEGUN]] for passage in passages], {})
    with running(copying.target, lambda inputs: []) as under_test:
        for temperature in TEMPERATURES:
            for sequence in copying.sequences(0, temperature):
                under_test.outputs.clear()
                copying.texts[temperature, sequence.sequence_id] = under_test.generate([sequence])[0]
    return copying


@pytest.fixture(scope="module")
def long(copying):
    """A few of them with longer texts."""
    long = Reference(copying.target, copying.prompts[:3], {})
    with running(long.target, lambda inputs: []) as under_test:
        texts = [under_test.generate([sequence])[0] for sequence in sequences_of(long, 0)]
    long.texts.update({(0.0, index): text for index, text in enumerate(texts)})
    return long


def sequences_of(long, k):
    return [new_sequence(index, prompt, LONG, k) for index, prompt in enumerate(long.prompts)]


async def until(condition, seconds=60):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("k", [1, 4, 7])
async def test_alone_and_in_a_mixed_batch(copying, lookup_socket, tmp_path, k, temperature):
    async with attached_verifier(tmp_path, "none", lookup_drafter=lookup_socket) as (metrics, stub):
        sequences = copying.sequences(k, temperature)
        mixed = await asyncio.gather(*(generate(stub, sequence) for sequence in sequences))
        alone = [await generate(stub, sequence) for sequence in sequences]
        num_rounds, num_accepted = metrics.value(names.SPEC_ROUNDS), metrics.value(names.SPEC_ACCEPTED_TOKENS)
    copying.check(temperature, mixed, f"lookup, K={k}, T={temperature}, mixed")
    copying.check(temperature, alone, f"lookup, K={k}, T={temperature}, alone")
    assert num_accepted > num_rounds / (3 if temperature else 1.5)


async def test_sequences_that_are_preempted(long, lookup_socket, tmp_path):
    """A pool that holds them when they begin, and not when they have grown: they leave their slots and come back."""
    settings = {"lookup_drafter": lookup_socket, "kv_tokens": 560, "max_context": 280}
    async with attached_verifier(tmp_path, "none", **settings) as (metrics, stub):
        texts = await asyncio.gather(*(generate(stub, sequence, LONG) for sequence in sequences_of(long, 7)))
        assert metrics.value(names.PREEMPTIONS) > 0
        assert metrics.value(names.SPEC_ACCEPTED_TOKENS) > metrics.value(names.SPEC_ROUNDS)
    long.check(0.0, texts, "lookup, tiny pool")


async def test_a_killed_lookup_drafter_changes_no_text_and_comes_back(long, tmp_path, monkeypatch):
    monkeypatch.setattr(drafter_link, "RETRY_SECONDS", 0.02)
    address = f"unix:{tmp_path}/lookup.sock"
    with lookup_process(address) as first:
        async with attached_verifier(tmp_path, "none", lookup_drafter=address) as (metrics, stub):
            writing = [asyncio.create_task(generate(stub, sequence, LONG)) for sequence in sequences_of(long, 1)]
            await until(lambda: metrics.value(names.SPEC_ACCEPTED_TOKENS) > 0)
            first.kill()
            assert not any(task.done() for task in writing)
            long.check(0.0, await asyncio.gather(*writing), "lookup, killed")
            await until(lambda: not metrics.value(names.DRAFTER_ATTACHED))
            with lookup_process(address):
                await until(lambda: metrics.value(names.DRAFTER_ATTACHED))
                before = metrics.value(names.SPEC_ACCEPTED_TOKENS)
                texts = await asyncio.gather(*(generate(stub, sequence, LONG) for sequence in sequences_of(long, 4)))
                assert metrics.value(names.SPEC_ACCEPTED_TOKENS) > before + LONG / 2
    long.check(0.0, texts, "lookup, back again")


@pytest.mark.parametrize("temperature", TEMPERATURES)
async def test_a_hostile_one(copying, tmp_path, monkeypatch, temperature):
    monkeypatch.setattr(drafter_link, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(drafter_link, "MAX_RETRY_SECONDS", 0.02)
    address = f"unix:{tmp_path}/hostile.sock"
    async with (
        hostile_drafter(address, HostileTokens()),
        attached_verifier(tmp_path, "none", lookup_drafter=address) as (metrics, stub),
    ):
        for k in (1, 4, 7):
            sequences = copying.sequences(k, temperature)
            mixed = await asyncio.gather(*(generate(stub, sequence) for sequence in sequences))
            alone = [await generate(stub, sequence) for sequence in sequences]
            copying.check(temperature, mixed, f"hostile tokens, K={k}, T={temperature}, mixed")
            copying.check(temperature, alone, f"hostile tokens, K={k}, T={temperature}, alone")
        assert metrics.value(names.SPEC_DRAFT_TOKENS) > metrics.value(names.SPEC_ROUNDS) / 3
        assert all(metrics.value(names.SPEC_FALLBACKS, reason=reason) > 0 for reason in ("invalid", "stale", "lost"))
