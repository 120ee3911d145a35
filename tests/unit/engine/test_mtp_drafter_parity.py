"""Whole rounds against transformers' assistant: the same ids, the same scores, over the same keys.

The two do not see the same keys by themselves (see `test_transformers_sees_two_keys_more`): ours are 0..P-1, and
P-W+1..P-1 of a sliding layer. Those are what theirs is handed here; in our cache, everything else is NaN.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tandem.core.draft_position import AT_P, BEFORE_P
from tandem.engine.mtp_drafter import MtpDrafter
from tandem.exchange.draft_inputs import DraftInputs, private_inputs
from tandem.models.gemma4.draft_head import DraftScores
from tandem.models.gemma4.weights import load_drafter, load_target
from tests.checkpoints import FULL, SLIDING, VARIANTS, make_tiny_pair
from tests.unit.engine.drafting import MAX_BLOCKS, NUM_BLOCKS, exchange_spec
from tests.unit.models.paged import BLOCK_SIZE

WINDOW = 8
K = 6
LENGTHS = [1, 5, 7, 8, 9, 33]
CENTROIDS = (16, 3)
PAIRS: dict[str, dict[str, Any]] = {
    **VARIANTS,
    "e4b with fewer heads": {**VARIANTS["e4b"], "num_attention_heads": 8, "drafter": {"num_attention_heads": 4}},
    "31b with centroids": {**VARIANTS["31b"], "centroids": CENTROIDS},
    "12b with centroids": {**VARIANTS["12b"], "centroids": CENTROIDS},
}
Keys = Mapping[str, tuple[torch.Tensor, torch.Tensor]]  # layer type -> keys and values [1, heads, length, head_dim]


@dataclass(frozen=True)
class Text:
    """A prompt that their target has read, and the token after it."""

    length: int
    token_id: int
    hidden: torch.Tensor  # [backbone]
    keys: Keys

    def visible(self, window: int) -> Keys:
        """What a query at the token after the prompt sees, itself left out."""
        return {FULL: self.keys[FULL], SLIDING: tuple(one[:, :, -(window - 1) :] for one in self.keys[SLIDING])}


class Pair:
    """Both drafters over the keys of their target."""

    def __init__(self, folder: Path, **overrides: Any) -> None:
        target_path, path = make_tiny_pair(folder, seed=1, **overrides)
        self.target = load_target(target_path, torch.float32, "cpu")
        self.network = load_drafter(path, self.target.config, torch.float32, "cpu", self.target.embed_tokens)
        self.their_target = AutoModelForCausalLM.from_pretrained(target_path).eval()
        self.their_drafter = AutoModelForCausalLM.from_pretrained(path).eval()

    @torch.no_grad()
    def read(self, length: int) -> Text:
        generator = torch.Generator().manual_seed(length)
        token_ids = torch.randint(0, 64, (1, length), generator=generator)
        output = self.their_target.model(token_ids, return_shared_kv_states=True)
        hidden = output.last_hidden_state[0, -1]
        return Text(length, int(self.their_target.lm_head(hidden).argmax()), hidden, output.shared_kv_states)

    @torch.no_grad()
    def their_round(self, text: Text, keys: Keys, position: int) -> tuple[list[int], torch.Tensor]:
        """Draft ids, and the logits [K, V] that they are chosen by."""
        token_ids, hidden, logits = [text.token_id], text.hidden, []
        for _ in range(K):
            embedded = self.their_target.model.embed_tokens(torch.tensor([token_ids[-1:]]))
            output = self.their_drafter(
                inputs_embeds=torch.cat((embedded, hidden[None, None]), -1),
                position_ids=torch.tensor([[position]]),
                shared_kv_states=keys,
            )
            logits.append(output.logits[0, 0])
            hidden = output.last_hidden_state[0, 0]
            token_ids.append(int(logits[-1].argmax()))
        return token_ids[1:], torch.stack(logits)

    def our_round(self, texts: list[Text], window: int, position: str) -> tuple[list[list[int]], list[DraftScores]]:
        """Draft ids of every text, and the scores of every step."""
        inputs = self._inputs(texts, window)
        scores: list[DraftScores] = []
        forward = self.network.forward
        self.network.forward = recording(forward, scores)  # type: ignore[method-assign]
        try:
            return MtpDrafter(self.network, inputs, position).propose(range(len(texts)), K), scores
        finally:
            self.network.forward = forward  # type: ignore[method-assign]

    def _inputs(self, texts: list[Text], window: int) -> DraftInputs:
        """Every text in blocks of its own; a slot that a round must not see is NaN."""
        spec = exchange_spec(self.target)
        kv = {
            layer.group: torch.full((NUM_BLOCKS * BLOCK_SIZE, 2, layer.num_kv_heads, layer.head_dim), torch.nan)
            for layer in spec.layers
        }
        inputs = private_inputs(spec, kv, self.target.embed_tokens)
        generator = torch.Generator().manual_seed(0)
        for group, slots in kv.items():
            blocks = torch.randperm(NUM_BLOCKS, generator=generator).view(-1, NUM_BLOCKS // len(texts))[: len(texts)]
            for slot, (text, block_ids) in enumerate(zip(texts, blocks, strict=True)):
                inputs.set_blocks(slot, group, 0, block_ids[:MAX_BLOCKS].tolist())
                keys, values = text.visible(window)[group]
                positions = torch.arange(text.length - keys.shape[2], text.length)
                places = block_ids[positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE
                slots[places] = torch.stack((keys[0], values[0])).permute(2, 0, 1, 3)
        for slot, text in enumerate(texts):
            inputs.advance(
                torch.tensor([slot]), torch.tensor([text.token_id]), torch.tensor([text.length]), text.hidden[None]
            )
        return inputs


def recording(forward: Callable[..., Any], scores: list[DraftScores]) -> Callable[..., Any]:
    def record(*arguments: Any) -> Any:
        result = forward(*arguments)
        scores.append(result[0])
        return result

    return record


def assert_same_scores(ours: list[DraftScores], index: int, theirs: torch.Tensor) -> None:
    """On our candidates; theirs has one and the same low value everywhere else."""
    for scores, expected in zip(ours, theirs, strict=True):
        logits = scores.logits[index]
        if scores.token_ids is None:
            torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-5)
            continue
        token_ids = scores.token_ids[index]
        assert len(token_ids) == CENTROIDS[1] * 64 // CENTROIDS[0] == len(set(token_ids.tolist()))
        torch.testing.assert_close(logits, expected[token_ids], atol=1e-4, rtol=1e-5)
        others = expected[[token_id for token_id in range(64) if token_id not in token_ids]]
        assert others.unique().numel() == 1 and others[0] < logits.min()


@pytest.fixture(scope="module", params=PAIRS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("pair"), **PAIRS[request.param])


@pytest.mark.parametrize(("position", "distance"), [(AT_P, 0), (BEFORE_P, -1)])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_round(pair: Pair, length: int, position: str, distance: int) -> None:
    text = pair.read(length)
    expected, logits = pair.their_round(text, text.visible(WINDOW), length + distance)
    drafts, scores = pair.our_round([text], WINDOW, position)
    assert drafts == [expected]
    assert_same_scores(scores, 0, logits)


@pytest.mark.parametrize(("position", "distance"), [(AT_P, 0), (BEFORE_P, -1)])
def test_a_ragged_batch(pair: Pair, position: str, distance: int) -> None:
    texts = [pair.read(length) for length in (40, 1, 8, 18)]
    drafts, scores = pair.our_round(texts, WINDOW, position)
    for index, text in enumerate(texts):
        expected, logits = pair.their_round(text, text.visible(WINDOW), text.length + distance)
        assert drafts[index] == expected
        assert_same_scores(scores, index, logits)


@pytest.mark.parametrize("length", LENGTHS)
def test_transformers_sees_two_keys_more(pair: Pair, length: int) -> None:
    """Handed all keys, its assistant sees the last W+1 in a sliding layer, ours W-1. Below that, both see all."""
    text = pair.read(length)
    expected, logits = pair.their_round(text, text.keys, length)
    groups = pair.network.kv_groups
    wider = tuple(group if group.window is None else replace(group, window=WINDOW + 2) for group in groups)
    pair.network.kv_groups = wider
    try:
        drafts, scores = pair.our_round([text], WINDOW + 2, AT_P)
    finally:
        pair.network.kv_groups = groups
    assert drafts == [expected]
    assert_same_scores(scores, 0, logits)
    _, [first, *_] = pair.our_round([text], WINDOW, AT_P)
    of_ours = logits[0] if first.token_ids is None else logits[0][first.token_ids[0]]
    assert torch.allclose(first.logits[0], of_ours, atol=1e-4) == (length < WINDOW)
