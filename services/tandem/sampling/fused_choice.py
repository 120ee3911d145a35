"""The choice from the whole vocabulary by kernels: no sort, no question to the host.

Chooses the tokens that plain torch chooses, for the same reasons; where the two compute a logarithm or an exponential
that differs in the last place, they could part only if two scores were as near as that.
"""

import torch
import triton

from tandem.sampling.choice_kernel import ROUNDS
from tandem.sampling.proposal_kernel import propose, settle
from tandem.sampling.rows import SamplingRows
from tandem.sampling.top_k_kernel import gather, survey

_BLOCK = 64  # tokens that share a maximum
_SURVEY_TILE = 64  # blocks
_GATHER_TILE = 16  # blocks
_SEARCH_TILE = 1024  # tokens
_MAX_TOP_K = 1024  # greater ones are rare, and slow
_FEW_CANDIDATES, _MAX_CANDIDATES = 128, 2048
_NUM_TURNS = 4  # with a top-p of 0.9, one row of 5,000 needs more
_NUM_COLUMNS = ROUNDS.value + 2 * _NUM_TURNS
_NUM_PROGRAMS = 2048  # enough to fill a GPU


def fused_sample(
    logits: torch.Tensor,  # [R, V] float32 or bfloat16
    rows: SamplingRows,
) -> torch.Tensor:  # [R] int64
    """As `sampler.sample`. What the host knows of the batch saves launches, and is not needed."""
    assert logits.dtype in (torch.float32, torch.bfloat16) and logits.stride(1) == 1
    num_rows, vocab_size = logits.shape
    num_blocks = triton.cdiv(vocab_size, _BLOCK)
    token_ids = torch.empty(num_rows, dtype=torch.int64, device=logits.device)
    if num_rows == 0:
        return token_ids
    maxima = torch.empty((num_rows, num_blocks), dtype=torch.int32, device=logits.device)
    ledger = torch.zeros((num_rows, _NUM_COLUMNS), dtype=torch.int64, device=logits.device)
    sizes = vocab_size, num_blocks, _NUM_COLUMNS
    survey[_programs(num_rows, num_blocks, _SURVEY_TILE)](
        logits, logits.stride(0), rows.top_k, maxima, ledger, token_ids, *sizes, _MAX_TOP_K,
        rows.is_all_greedy, _BLOCK, _SURVEY_TILE, triton.next_power_of_2(num_blocks),
    )  # fmt: skip
    if rows.is_all_greedy:
        return token_ids
    fields = rows.temperature, rows.top_k, rows.top_p, rows.min_p, rows.seeds, rows.positions
    given = logits, logits.stride(0), *fields, maxima
    candidates = torch.empty((num_rows, _MAX_CANDIDATES), dtype=torch.int64, device=logits.device)
    gather[_programs(num_rows, num_blocks, _GATHER_TILE)](
        *given, candidates, ledger, token_ids, *sizes, _MAX_TOP_K,
        _BLOCK, _GATHER_TILE, _FEW_CANDIDATES, _MAX_CANDIDATES,
    )  # fmt: skip
    if rows.max_top_k is None or rows.max_top_k >= vocab_size:
        programs = _programs(num_rows, vocab_size, _SEARCH_TILE)
        scores = torch.empty((num_rows, programs[0]), dtype=torch.float64, device=logits.device)
        tokens = torch.empty((num_rows, programs[0]), dtype=torch.int64, device=logits.device)
        for turn in range(_NUM_TURNS):
            propose[programs](
                *given, scores, tokens, ledger, token_ids, *sizes, turn,
                _BLOCK, _SEARCH_TILE, triton.next_power_of_2(programs[0]),
            )  # fmt: skip
    settle[(num_rows,)](*given, ledger, token_ids, *sizes, _BLOCK, _SEARCH_TILE)
    return token_ids


def _programs(num_rows: int, size: int, tile: int) -> tuple[int, int]:
    """A grid in which several programs share a row's tiles: more for fewer rows."""
    return min(triton.cdiv(size, tile), max(8, _NUM_PROGRAMS // num_rows)), num_rows
