"""The demo pair, its held-out prompts, and what the target alone writes after them."""

import fcntl
import json
from dataclasses import dataclass

import pytest
import torch
from tokenizers import Tokenizer

from tandem.core.sampling_params import StoppingParams
from tandem.demo import DEMO_DRAFTER, DEMO_TARGET, held_out_prompts
from tandem.models.gemma4.weights import load_target
from tests.conftest import NEAR_TIE
from tests.engines import new_sequence, running
from tests.lossless.near_tie import is_near_tie

NUM_PROMPTS = 40
SHORTEST_PROMPT, LONGEST_PROMPT = 16, 176  # tokens: some below the sliding window of 128, some beyond it
MAX_TOKENS = 16
TEMPERATURES = (0.0, 0.8)
TOP_K, TOP_P = 64, 0.95

_near_ties: list[str] = []


@pytest.fixture(autouse=True)
def counted_near_ties(record_property):
    """Tells the near-ties of a test to the summary, which another process may write."""
    yield
    while _near_ties:
        record_property(NEAR_TIE, _near_ties.pop())


@dataclass(frozen=True)
class Reference:
    """Prompts, and the texts that the target alone writes, one sequence at a time."""

    target: object
    prompts: list[list[int]]
    texts: dict[tuple[float, int], list[int]]  # by temperature and prompt

    def sequences(self, k, temperature):
        """One sequence for each prompt; seeds differ."""
        return [_sequence(index, prompt, k, temperature) for index, prompt in enumerate(self.prompts)]

    def share(self, k, temperature):
        """Numbers of a quarter of the prompts, of all lengths; other ones for the next K or temperature."""
        return range((k + (temperature > 0)) % 4, len(self.prompts), 4)

    def check(self, temperature, texts, what, numbers=None):
        """Fails unless the texts after those prompts, or all, are the target's own, or leave it at a near-tie."""
        numbers = range(len(self.prompts)) if numbers is None else numbers
        for index, text in zip(numbers, texts, strict=True):
            prompt, expected = self.prompts[index], self.texts[temperature, index]
            if text == expected:
                continue
            at = next((i for i, (a, b) in enumerate(zip(text, expected, strict=False)) if a != b), None)
            assert at is not None, f"{what}, prompt {index}: {len(text)} tokens instead of {len(expected)}"
            sampling = _sequence(index, prompt, 0, temperature).sampling
            assert is_near_tie(self.target, [*prompt, *expected[:at]], text[at], expected[at], sampling), (
                f"{what}, prompt {index}: token {at} is {text[at]} instead of {expected[at]}"
            )
            _near_ties.append(f"{what}, prompt {index}, token {at}")


def _sequence(index, prompt, k, temperature):
    sampling = {} if temperature == 0.0 else {"top_k": TOP_K, "top_p": TOP_P}
    return new_sequence(
        index, prompt, k=k, seed=1000 + index, temperature=temperature, stopping=StoppingParams(MAX_TOKENS), **sampling
    )


@pytest.fixture(scope="session")
def drafter_path():
    return DEMO_DRAFTER


@pytest.fixture(scope="session")
def reference(tmp_path_factory, worker_id):
    """The first process of a run that needs the texts writes them for all."""
    tokenizer = Tokenizer.from_file(str(DEMO_TARGET / "tokenizer.json"))
    texts = held_out_prompts()[:NUM_PROMPTS]
    step = (LONGEST_PROMPT - SHORTEST_PROMPT) / NUM_PROMPTS
    prompts = [tokenizer.encode(t).ids[-int(SHORTEST_PROMPT + i * step) :] for i, t in enumerate(texts)]
    assert len(prompts) == NUM_PROMPTS
    target = load_target(DEMO_TARGET, torch.float32, "cpu")
    reference = Reference(target, prompts, {})
    own_folder = tmp_path_factory.getbasetemp()
    path = (own_folder if worker_id == "master" else own_folder.parent) / "reference.json"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            path.write_text(json.dumps([texts_alone(reference, temperature) for temperature in TEMPERATURES]))
    for temperature, written in zip(TEMPERATURES, json.loads(path.read_text()), strict=True):
        reference.texts.update({(temperature, index): text for index, text in enumerate(written)})
    return reference


def texts_alone(reference, temperature):
    """What the target writes without drafts, one sequence at a time."""
    with running(reference.target, lambda inputs: [], prefix_cache=False) as under_test:
        return [under_test.generate([sequence])[0] for sequence in reference.sequences(0, temperature)]
