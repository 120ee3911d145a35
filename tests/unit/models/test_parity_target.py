"""All five targets against transformers, float32, tiny random weights: hidden rows, logits and greedy text."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from tandem.models.gemma4.target import Gemma4Target
from tandem.models.gemma4.weights import load_target
from tests.checkpoints import VARIANTS, make_tiny_pair, write_checkpoint
from tests.unit.models.paged import BLOCK_SIZE, PagedRunner

TOLERANCE = 1e-4
SEED = 7  # of weights whose greedy texts are varied
WINDOW = 8
# Below, at and beyond the window, and on both sides of block borders.
LENGTHS = (1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + 1, 45)
CHUNKS = (3, 1, 5, 2, 8, 9)  # repeated as long as there are tokens


@dataclass(frozen=True)
class Pair:
    """The same weights twice."""

    target: Gemma4Target
    model: PreTrainedModel

    @torch.no_grad()
    def expected(self, token_ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Normed hidden rows and logits of the whole text at once."""
        output = self.model(torch.tensor([token_ids]), output_hidden_states=True)
        return output.hidden_states[-1][0], output.logits[0]

    def assert_alike(self, hidden: torch.Tensor, token_ids: list[int]) -> None:
        rows, logits = self.expected(token_ids)
        torch.testing.assert_close(hidden, rows, atol=TOLERANCE, rtol=0.0)
        torch.testing.assert_close(self.target.compute_logits(hidden), logits, atol=TOLERANCE, rtol=0.0)


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    path, _ = make_tiny_pair(tmp_path_factory.mktemp(request.param), SEED, **VARIANTS[request.param])
    model = AutoModelForCausalLM.from_pretrained(path)
    return Pair(load_target(path, torch.float32, "cpu"), model.eval())


def random_tokens(count: int, seed: int = 0) -> list[int]:
    return torch.randint(0, 64, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def chunks(token_ids: list[int], offset: int = 0) -> Iterator[list[int]]:
    start, index = 0, offset
    while start < len(token_ids):
        length = CHUNKS[index % len(CHUNKS)]
        yield token_ids[start : start + length]
        start, index = start + length, index + 1


@pytest.mark.parametrize("length", LENGTHS)
def test_a_prompt_in_one_go(length: int, pair: Pair) -> None:
    token_ids = random_tokens(length, seed=length)
    pair.assert_alike(PagedRunner(pair.target).step({"a": token_ids})["a"], token_ids)


@pytest.mark.parametrize("length", LENGTHS[3:])
def test_a_prompt_in_chunks(length: int, pair: Pair) -> None:
    token_ids = random_tokens(length, seed=length)
    runner = PagedRunner(pair.target)
    rows = [runner.step({"a": chunk})["a"] for chunk in chunks(token_ids)]
    pair.assert_alike(torch.cat(rows), token_ids)


def test_ragged_batches(pair: Pair) -> None:
    """Whole prompts of all lengths side by side, then chunks of all of them, each at its own place."""
    texts = {str(length): random_tokens(length, seed=length) for length in LENGTHS}
    for name, hidden in PagedRunner(pair.target).step(texts).items():
        pair.assert_alike(hidden, texts[name])
    runner = PagedRunner(pair.target)
    pending = {name: chunks(token_ids, offset) for offset, (name, token_ids) in enumerate(texts.items())}
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in texts}
    while step := {name: chunk for name, left in pending.items() if (chunk := next(left, None))}:
        for name, hidden in runner.step(step).items():
            rows[name].append(hidden)
    for name, token_ids in texts.items():
        pair.assert_alike(torch.cat(rows[name]), token_ids)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_text_decoder_inside_a_multimodal_checkpoint(name: str, tmp_path: Path) -> None:
    path, _ = make_tiny_pair(tmp_path, **VARIANTS[name])
    token_ids = random_tokens(20)
    alone = PagedRunner(load_target(path, torch.float32, "cpu")).step({"a": token_ids})["a"]
    text = json.loads((path / "config.json").read_text())
    wrapper = {"model_type": text["model_type"].removesuffix("_text"), "text_config": text}
    tensors = load_file(path / "model.safetensors")
    renamed = {name.replace("model.", "model.language_model.", 1): tensor for name, tensor in tensors.items()}
    write_checkpoint(path, wrapper, renamed | {"model.embed_vision.patch_dense.weight": torch.ones(2)})
    wrapped = PagedRunner(load_target(path, torch.float32, "cpu")).step({"a": token_ids})["a"]
    assert torch.equal(wrapped, alone)


def test_greedy_text_is_the_same_over_200_tokens(pair: Pair) -> None:
    """Two sequences decode side by side, as transformers does each alone."""
    prompts = {"below the window": random_tokens(5, seed=1), "beyond it": random_tokens(21, seed=2)}
    runner = PagedRunner(pair.target)
    step, texts = prompts, {name: [] for name in prompts}
    for _ in range(200):
        logits = pair.target.compute_logits(torch.stack([rows[-1] for rows in runner.step(step).values()]))
        step = {name: [token_id] for name, token_id in zip(step, logits.argmax(-1).tolist(), strict=True)}
        for name, (token_id,) in step.items():
            texts[name].append(token_id)
    for name, prompt in prompts.items():
        token_ids = pair.model.generate(
            torch.tensor([prompt]), max_new_tokens=200, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        assert texts[name] == token_ids[0, len(prompt) :].tolist()
    assert len({token_id for text in texts.values() for token_id in text}) > 8, "a loop of few tokens shows little"
