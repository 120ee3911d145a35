"""A tiny pair in the middle of decoding: prompts computed, one token chosen after each, inputs written."""

from pathlib import Path

import torch

from tandem.core.sampling_params import SamplingParams
from tandem.exchange.draft_inputs import DraftInputs, private_inputs
from tandem.exchange.spec import ExchangeSpec, SharedLayer
from tandem.models.gemma4.target import Gemma4Target
from tandem.models.gemma4.weights import load_drafter, load_target
from tests.unit.models.paged import BLOCK_SIZE, PagedRunner

NUM_BLOCKS = 200
MAX_BLOCKS = 64
GREEDY = SamplingParams(temperature=0.0)


def exchange_spec(target: Gemma4Target, num_slots: int = 8, max_draft_tokens: int = 8) -> ExchangeSpec:
    return ExchangeSpec(
        dtype="float32",
        num_slots=num_slots,
        max_draft_tokens=max_draft_tokens,
        max_blocks=MAX_BLOCKS,
        block_size=BLOCK_SIZE,
        vocabulary_size=target.config.vocab_size,
        hidden_size=target.config.hidden_size,
        layers=tuple(SharedLayer(g.name, NUM_BLOCKS, g.num_kv_heads, g.head_dim) for g in target.kv_groups),
    )


class Decoding:
    """Sequences named by a letter; `write` puts one into a slot."""

    def __init__(self, paths: tuple[Path, Path], lengths: dict[str, int]) -> None:
        target_path, drafter_path = paths
        self.target = load_target(target_path, torch.float32, "cpu")
        self.network = load_drafter(drafter_path, self.target.config, torch.float32, "cpu", self.target.embed_tokens)
        self.runner = PagedRunner(self.target, NUM_BLOCKS)
        generator = torch.Generator().manual_seed(0)
        self.lengths = lengths
        self.hidden: dict[str, torch.Tensor] = {}
        self.last: dict[str, int] = {}
        for name, count in lengths.items():
            text = torch.randint(0, 64, (count,), generator=generator).tolist()
            self.hidden[name] = self.runner.step({name: text})[name][-1].clone()
            self.last[name] = int(self.target.compute_logits(self.hidden[name][None]).argmax())

    def inputs(self, num_slots: int = 8) -> DraftInputs:
        return private_inputs(exchange_spec(self.target, num_slots), self.runner.drafter_kv, self.target.embed_tokens)

    def write(self, inputs: DraftInputs, slot: int, name: str, params: SamplingParams = GREEDY) -> None:
        inputs.set_sampling(slot, params)
        for group, tables in self.runner.tables.items():
            inputs.set_blocks(slot, group, 0, tables[name])
        inputs.advance(
            torch.tensor([slot]),
            torch.tensor([self.last[name]]),
            torch.tensor([self.lengths[name]]),
            self.hidden[name][None].to(inputs.hidden.dtype),
        )
