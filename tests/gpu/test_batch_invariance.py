"""A row of a step rounds the same whatever else the step holds, up to 128 rows, in layers of full width."""

import json
from dataclasses import dataclass

import pytest
import torch

from tandem.attention.device_batch import DeviceBatch
from tandem.attention.metadata import QueryBatch
from tandem.kv_cache.storage import KvStorage
from tandem.models.gemma4.presets import TARGETS
from tandem.models.gemma4.random_weights import RandomWeights
from tandem.models.gemma4.target import Gemma4Target
from tandem.models.gemma4.weights import load_target

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

NUM_LAYERS = 6  # five sliding ones and a full one
BLOCK_SIZE = 32
NUM_ROWS = 8  # K = 7
STARTS = (0, 1, 15, 100, 127, 128, 500, 700, 1020, 1023, 1024, 1500, 2040, 2043, 2047, 2100)  # 16 sequences
MAX_POSITION = 2200
WIDTH = -(-MAX_POSITION // BLOCK_SIZE)


@dataclass
class Problem:
    """Sequences whose earlier keys and values are random numbers, in scattered blocks."""

    target: Gemma4Target
    tables: torch.Tensor  # [sequences, WIDTH] int32
    token_ids: torch.Tensor  # [sequences, NUM_ROWS] int64

    def fresh_kv(self) -> KvStorage:
        """The same numbers every time."""
        groups = self.target.kv_groups
        num_blocks = dict.fromkeys([group.name for group in groups], self.tables.numel())
        kv = KvStorage(groups, num_blocks, BLOCK_SIZE, torch.bfloat16, "cuda")
        generator = torch.Generator("cuda").manual_seed(2)
        for group in groups:
            for layer_id in group.layer_ids:
                kv[layer_id].normal_(0.0, group.head_dim**-0.25, generator=generator)
        return kv

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:  # [T, hidden_size] -> [T, V]
        return self.target.compute_logits(hidden)

    def on_device(
        self,
        kv: KvStorage,
        sequences: torch.Tensor,  # [B] int64
        starts: torch.Tensor,  # [B] int64
        token_ids: torch.Tensor,  # [B, rows] int64
        max_position: int = MAX_POSITION - 1,
    ) -> torch.Tensor:  # [B * rows, hidden_size]
        """As a round that runs ahead of the host plans it."""
        names = [group.name for group in self.target.kv_groups]
        num_rows = token_ids.shape[1]
        tables = dict.fromkeys(names, self.tables)
        spare = dict.fromkeys(names, 0)
        batch = DeviceBatch(sequences, starts, starts + num_rows, num_rows, max_position, tables, spare)
        plan = self.target.backend.prepare_on_device(batch, self.target.kv_groups, BLOCK_SIZE)
        return self.target.forward(token_ids.flatten(), plan, kv)

    def on_host(self, kv: KvStorage, sequences: list[int], lengths: list[int]) -> torch.Tensor:  # [T, hidden_size]
        """As a step is planned that the host takes part in."""
        starts = [STARTS[one] for one in sequences]
        names = [group.name for group in self.target.kv_groups]
        tables = dict.fromkeys(names, [self.tables[one].tolist() for one in sequences])
        ends = [start + length for start, length in zip(starts, lengths, strict=True)]
        batch = QueryBatch(tuple(lengths), tuple(starts), tuple(ends), tables)
        plan = self.target.backend.prepare(batch, self.target.kv_groups, BLOCK_SIZE)
        rows = [self.token_ids[one, :length] for one, length in zip(sequences, lengths, strict=True)]
        return self.target.forward(torch.cat(rows), plan, kv)


@pytest.fixture(scope="module", params=["gemma-4-31b", "gemma-4-26b-a4b"])
def problem(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shape")
    config = dict(TARGETS[request.param])
    text = config.get("text_config", config)
    text = {**text, "layer_types": text["layer_types"][:NUM_LAYERS], "num_hidden_layers": NUM_LAYERS}
    config = {**config, "text_config": text} if "text_config" in config else text
    (folder / "config.json").write_text(json.dumps(config))
    target = load_target(folder, torch.bfloat16, "cuda", weights=RandomWeights("cuda"))
    generator = torch.Generator().manual_seed(1)
    blocks = torch.randperm(len(STARTS) * WIDTH, generator=generator).view(len(STARTS), WIDTH)
    token_ids = torch.randint(target.config.vocab_size, (len(STARTS), NUM_ROWS), generator=generator)
    return Problem(target, blocks.int().cuda(), token_ids.cuda())


@pytest.fixture(scope="module")
def alone(problem):
    """Hidden rows [sequences, NUM_ROWS, hidden_size] of one sequence and one row at a time: batch 1, K = 0."""
    kv, starts = problem.fresh_kv(), torch.tensor(STARTS, device="cuda")
    sequences = torch.arange(len(STARTS), device="cuda")
    rows = [
        problem.on_device(
            kv, sequences[one : one + 1], starts[one : one + 1] + row, problem.token_ids[one, row : row + 1, None]
        )
        for one in range(len(STARTS))
        for row in range(NUM_ROWS)
    ]
    return torch.cat(rows).view(len(STARTS), NUM_ROWS, -1)


def test_batch_16_and_k_7(problem, alone):
    """128 rows."""
    starts, sequences = torch.tensor(STARTS, device="cuda"), torch.arange(len(STARTS), device="cuda")
    hidden = problem.on_device(problem.fresh_kv(), sequences, starts, problem.token_ids)
    assert torch.equal(hidden.view_as(alone), alone)
    logits = problem.logits(hidden)
    assert all(torch.equal(problem.logits(row[None])[0], logits[number]) for number, row in enumerate(hidden))


def test_batch_1_and_k_7(problem, alone):
    kv = problem.fresh_kv()
    for one, start in enumerate(STARTS):
        places = torch.tensor([one], device="cuda"), torch.tensor([start], device="cuda")
        reach = next(reach for reach in (2047, MAX_POSITION) if start + NUM_ROWS <= reach)
        assert torch.equal(problem.on_device(kv, *places, problem.token_ids[one : one + 1], reach), alone[one])


@pytest.mark.parametrize("lengths", [[NUM_ROWS] * len(STARTS), [1] * len(STARTS), [1, 8, 3, 5] * 4])
def test_steps_that_the_host_plans(problem, alone, lengths):
    hidden = problem.on_host(problem.fresh_kv(), list(range(len(STARTS))), lengths)
    expected = torch.cat([rows[:length] for rows, length in zip(alone, lengths, strict=True)])
    assert torch.equal(hidden, expected)
