"""The one difference between two runs that is allowed: two tokens whose scores lie within the dtype's rounding.

Source: the rule of the design. A forward pass over several rows need not round like one over a single row, unless the
machine's products are batch-invariant.
"""

import torch

from tandem.attention.metadata import QueryBatch
from tandem.core.sampling_params import SamplingParams
from tandem.kv_cache.storage import KvStorage
from tandem.sampling.noise import gumbel

BLOCK_SIZE = 16
TOLERANCE = 1e-4  # float32 logits up to 30, after some thousand sums


def scores(target, token_ids, sampling: SamplingParams):  # -> [V] float64
    """What the choice of the token after `token_ids` is the arg-max of, before filters; from one pass over all."""
    num_blocks = -(-len(token_ids) // BLOCK_SIZE)
    names = [group.name for group in target.kv_groups]
    kv = KvStorage(target.kv_groups, dict.fromkeys(names, num_blocks), BLOCK_SIZE, torch.float32, "cpu")
    tables = {name: [list(range(num_blocks))] for name in names}
    batch = QueryBatch((len(token_ids),), (0,), (len(token_ids),), tables)
    metadata = target.backend.prepare(batch, target.kv_groups, BLOCK_SIZE)
    hidden = target.forward(torch.tensor(token_ids), metadata, kv)
    logits = target.compute_logits(hidden[-1:])[0].double()
    if sampling.is_greedy:
        return logits
    everything = torch.arange(len(logits)).unsqueeze(0)
    noise = gumbel(torch.tensor([sampling.seed]), torch.tensor([len(token_ids)]), everything)[0]
    return logits / sampling.temperature + noise


def is_near_tie(target, before, one, other, sampling) -> bool:
    """Whether the target can hardly tell `one` from `other` as the token after `before`."""
    both = scores(target, before, sampling)
    return abs(float(both[one] - both[other])) <= TOLERANCE * max(1.0, 1.0 / (sampling.temperature or 1.0))
