"""The most likely tokens of a row, in an order that does not depend on chance.

Logits that come out of 16-bit arithmetic tie all the time, and `torch.topk` promises no order among equals. Here
equal logits are ordered by token id, so that a filter cuts between them the same way on every device.
"""

from math import isqrt

import torch

_INT32_MAX = 0x7FFFFFFF
_MIN_BLOCK_SIZE = 4


def greedy_token_ids(logits: torch.Tensor) -> torch.Tensor:  # [R, V] float32 -> [R] int64
    """The most likely token of each row, the lowest id among equals.

    Looks for the first block that holds the maximum, then inside it: a maximum alone is found several times
    faster than a maximum with its place, and `argmax` returns the first of equals.
    """
    blocks = _blocks(logits, 1)
    if blocks is None:
        return logits.argmax(dim=-1)
    block_ids = blocks.amax(dim=-1).argmax(dim=-1, keepdim=True)
    return block_ids.squeeze(1) * blocks.shape[2] + _select(blocks, block_ids).argmax(dim=-1)


def top_token_ids(logits: torch.Tensor, count: int) -> torch.Tensor:  # [R, V] float32 -> [R, count] int64
    """The `count` most likely tokens of each row, most likely first, equals by ascending id; 0 <= count <= V.

    The best `count` tokens lie in the `count` blocks with the greatest maxima, equal maxima by ascending block:
    each of those blocks holds a token that comes before every token of any other block.
    """
    assert logits.dtype == torch.float32, "the keys below are made of a float32's bits"
    if count == logits.shape[1]:
        return (logits + 0.0).sort(dim=-1, descending=True, stable=True).indices
    return _top_ids(logits, count, is_sorted=True)


def greedy_candidates(
    logits: torch.Tensor,  # [R, C] float32
    token_ids: torch.Tensor,  # [R, C] int64
) -> torch.Tensor:  # [R] int64
    """The most likely token of each row where `token_ids` says which each is, the lowest id among equals."""
    return _ids_of(_keys(logits, token_ids).amax(dim=-1))


def top_candidates(
    logits: torch.Tensor,  # [R, C] float32
    token_ids: torch.Tensor,  # [R, C] int64
    count: int,  # 0..C
) -> torch.Tensor:  # [R, count] int64, indices into C
    """Where the `count` most likely of some tokens are, most likely first, equals by ascending id."""
    return _keys(logits, token_ids).topk(count, dim=-1).indices


def _top_ids(logits: torch.Tensor, count: int, is_sorted: bool) -> torch.Tensor:  # [R, V] -> [R, count]
    device = logits.device
    blocks = _blocks(logits, count)
    if blocks is None:
        return _search(logits, torch.arange(logits.shape[1], device=device), count, is_sorted)
    block_ids = _top_ids(blocks.amax(dim=-1), count, is_sorted=False)
    block_size = blocks.shape[2]
    inside = block_ids.unsqueeze(-1) * block_size + torch.arange(block_size, device=device)
    return _search(_select(blocks, block_ids), inside.flatten(1), count, is_sorted)


def _blocks(logits: torch.Tensor, count: int) -> torch.Tensor | None:  # [R, V] -> [R, V / block_size, block_size]
    """Cuts rows into blocks such that the search among blocks and the search inside `count` of them cost the same.

    The block size is a power of two; None if no useful one divides the vocabulary.
    """
    num_rows, vocab_size = logits.shape
    wanted = isqrt(vocab_size // max(count, 1))
    block_size = min(1 << max(wanted.bit_length() - 1, 0), vocab_size & -vocab_size)
    if block_size < _MIN_BLOCK_SIZE:
        return None
    return logits.reshape(num_rows, vocab_size // block_size, block_size)


def _select(
    blocks: torch.Tensor,  # [R, N, block_size]
    block_ids: torch.Tensor,  # [R, C] int64
) -> torch.Tensor:  # [R, C * block_size]
    """The contents of each row's chosen blocks, one after the other."""
    num_rows, num_blocks, block_size = blocks.shape
    first_blocks = torch.arange(num_rows, device=blocks.device).unsqueeze(-1) * num_blocks
    flat_ids = (block_ids + first_blocks).flatten()
    chosen = blocks.reshape(num_rows * num_blocks, block_size).index_select(0, flat_ids)
    return chosen.view(num_rows, block_ids.shape[1] * block_size)


def _search(
    values: torch.Tensor,  # [R, N] float32
    ids: torch.Tensor,  # [N] or [R, N] int64
    count: int,
    is_sorted: bool,
) -> torch.Tensor:  # [R, count] int64
    """The ids of the greatest values, lower ids before higher ones among equals."""
    return _ids_of(_keys(values, ids).topk(count, dim=-1, sorted=is_sorted).values)


def _keys(
    values: torch.Tensor,  # [R, N] float32
    ids: torch.Tensor,  # [N] or [R, N] int64, below 2^31
) -> torch.Tensor:  # [R, N] int64
    """One integer that holds both, greater for a greater value and for a lower id among equals.

    A float's bits, those of negative numbers turned round, compare as the float does.
    """
    assert values.dtype == torch.float32, "the keys are made of a float32's bits"
    bits = (values + 0.0).view(torch.int32)  # -0 becomes 0, which it equals
    ordered = (bits >> 31).bitwise_and_(_INT32_MAX).bitwise_xor_(bits)
    return torch.add(_INT32_MAX - ids, ordered, alpha=1 << 32)


def _ids_of(keys: torch.Tensor) -> torch.Tensor:  # int64 -> int64
    return _INT32_MAX - keys.bitwise_and_(_INT32_MAX)
