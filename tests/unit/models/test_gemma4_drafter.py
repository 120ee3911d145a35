"""The drafter's step against transformers' assistant over the same keys and values."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma4AssistantForCausalLM, Gemma4ForCausalLM

from tandem.attention.metadata import QueryBatch
from tandem.models.gemma4.drafter import Gemma4MtpDrafter
from tandem.models.gemma4.weights import load_drafter, load_target
from tests.checkpoints import FULL, SLIDING, make_tiny_pair
from tests.unit.models.paged import BLOCK_SIZE, PagedRunner

WINDOW = 8
VARIANTS: dict[str, dict[str, Any]] = {
    "k_eq_v": {},
    "own values": {"attention_k_eq_v": False},
    "shared kv in the target": {"num_kv_shared_layers": 2},
}


class Pair:
    """Both networks, ours and theirs, over one prompt a sequence."""

    def __init__(self, paths: tuple[Path, Path], lengths: dict[str, int]) -> None:
        target_path, drafter_path = paths
        target = load_target(target_path, torch.float32, "cpu")
        self.drafter = load_drafter(drafter_path, target.config, torch.float32, "cpu", target.embed_tokens)
        self.their_target = Gemma4ForCausalLM.from_pretrained(target_path).eval()
        self.their_drafter = Gemma4AssistantForCausalLM.from_pretrained(drafter_path).eval()
        generator = torch.Generator().manual_seed(0)
        self.texts = {n: torch.randint(0, 64, (count,), generator=generator) for n, count in lengths.items()}
        self.runner = PagedRunner(target)
        self.hidden = {n: self.runner.step({n: text.tolist()})[n][-1] for n, text in self.texts.items()}

    def ours(self, names: list[str], token_ids: list[int], hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        metadata = self.drafter.backend.prepare(self.runner.drafter_batch(names), self.drafter.kv_groups, BLOCK_SIZE)
        inputs = self.drafter.inputs_of(metadata)
        scores, rows = self.drafter.forward(torch.tensor(token_ids), hidden, inputs, self.runner.drafter_kv)
        assert scores.token_ids is None
        return scores.logits, rows

    @torch.no_grad()
    def theirs(self, name: str, token_id: int, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step at position P over keys 0..P-1, of which sliding layers are given those inside the window."""
        text = self.texts[name]
        shared = self.their_target.model(text[None], return_shared_kv_states=True).shared_kv_states
        keys = {FULL: shared[FULL], SLIDING: tuple(states[:, :, -(WINDOW - 1) :] for states in shared[SLIDING])}
        embedded = self.their_target.model.embed_tokens(torch.tensor([[token_id]]))
        output = self.their_drafter(
            inputs_embeds=torch.cat((embedded, hidden[None, None]), -1),
            position_ids=torch.tensor([[len(text)]]),
            shared_kv_states=keys,
        )
        return output.logits[0, 0], output.last_hidden_state[0, 0]


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5 * float(theirs.abs().max()), rtol=0.0)


@pytest.mark.parametrize("length", [1, 5, 7, 8, 9, 33])
@pytest.mark.parametrize("name", VARIANTS)
def test_three_steps(name: str, length: int, tmp_path: Path) -> None:
    pair = Pair(make_tiny_pair(tmp_path, **VARIANTS[name]), {"a": length})
    hidden = their_hidden = pair.hidden["a"]
    for token_id in (11, 45, 3):
        logits, rows = pair.ours(["a"], [token_id], hidden[None])
        expected, their_hidden = pair.theirs("a", token_id, their_hidden)
        assert_close(logits[0], expected)
        assert_close(rows[0], their_hidden)
        hidden = rows[0]


def test_a_batch_equals_each_alone(tmp_path: Path) -> None:
    pair = Pair(make_tiny_pair(tmp_path), {"a": 3, "b": 40, "c": 17})
    names, token_ids = ["a", "b", "c"], [5, 6, 7]
    logits, rows = pair.ours(names, token_ids, torch.stack([pair.hidden[name] for name in names]))
    for index, name in enumerate(names):
        expected, their_hidden = pair.theirs(name, token_ids[index], pair.hidden[name])
        assert_close(logits[index], expected)
        assert_close(rows[index], their_hidden)


def test_nothing_at_or_after_the_last_token_is_read(tmp_path: Path) -> None:
    """Rejected rows stay in the cache; here they turn into NaN."""
    pair = Pair(make_tiny_pair(tmp_path), {"a": 18})
    before = pair.ours(["a"], [9], pair.hidden["a"][None])
    pair.runner.step({"a": [1, 2, 3]})
    pair.runner.reject("a", 3)
    for group, by_name in pair.runner.tables.items():
        for position in range(18, 21):
            slot = by_name["a"][position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE
            pair.runner.drafter_kv[group][slot] = torch.nan
    after = pair.ours(["a"], [9], pair.hidden["a"][None])
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_the_position_is_the_plans(tmp_path: Path) -> None:
    """An engine may put the query at P-1 instead: the same keys, another angle."""
    pair = Pair(make_tiny_pair(tmp_path), {"a": 6})
    batch = pair.runner.drafter_batch(["a"])
    earlier = QueryBatch(batch.query_lens, (5,), batch.num_keys, batch.block_tables)
    metadata = pair.drafter.backend.prepare(earlier, pair.drafter.kv_groups, BLOCK_SIZE)
    arguments = torch.tensor([9]), pair.hidden["a"][None]
    moved, _ = pair.drafter.forward(*arguments, pair.drafter.inputs_of(metadata), pair.runner.drafter_kv)
    assert not torch.allclose(moved.logits, pair.ours(["a"], [9], pair.hidden["a"][None])[0])


def test_padded_steps_are_a_defect(tmp_path: Path) -> None:
    pair = Pair(make_tiny_pair(tmp_path), {"a": 6})
    metadata = pair.runner.target.backend.prepare(pair.runner.drafter_batch(["a"]), pair.drafter.kv_groups, BLOCK_SIZE)
    with pytest.raises(AssertionError, match="padded"):
        pair.drafter.inputs_of(metadata)


def test_the_targets_table_is_used_in_place(tmp_path: Path) -> None:
    target_path, drafter_path = make_tiny_pair(tmp_path)
    target = load_target(target_path, torch.float32, "cpu")
    drafter = load_drafter(drafter_path, target.config, torch.float32, "cpu", target.embed_tokens)
    assert isinstance(drafter, Gemma4MtpDrafter)
    assert drafter.target_embedding is target.embed_tokens
