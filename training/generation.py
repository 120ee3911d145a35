"""Texts that the target writes itself, many at once: for the drafter's training and for measuring acceptance."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from training.network import KeysValues, Layer, Target, rotate_tables

Chooser = Callable[[Tensor, int], Tensor]  # (scores [B, V], position of the token to choose) -> tokens [B]


@torch.no_grad()
def write(
    target: Target,
    prompts: Tensor,
    lengths: Tensor,
    choose: Chooser,
    dtype: torch.dtype,
    ends: float = math.inf,
) -> Tensor:
    """Continue prompts [B, T], of which the first `lengths` [B] tokens a row are given, up to T tokens each.

    Raises:
        TimeoutError: it was not done at `ends`, on time.monotonic()'s clock.
    """
    tokens = prompts.clone()
    count, total = tokens.shape
    caches = _caches(target, count, total, tokens.device, dtype)
    rotations = rotate_tables(target.shape, torch.arange(total, device=tokens.device), dtype)
    for position in range(total - 1):
        if position % 16 == 0 and ends < math.inf:
            float(tokens[0, position])  # so that the clock is read when the device has come so far
            if time.monotonic() > ends:
                raise TimeoutError
        x = target.embed(tokens[:, position : position + 1], dtype)
        for index, layer in enumerate(target.model.layers):
            full = target.shape.is_full(index)
            cos, sin = rotations[full]
            rotation = (cos[position : position + 1], sin[position : position + 1])
            first = 0 if full else max(0, position + 1 - target.shape.window)
            assert isinstance(layer, Layer)
            x = _layer(layer, x, rotation, caches[index], first, position)
        scores = target.logits(target.model.norm(x[:, 0]))
        chosen = choose(scores, position + 1)
        tokens[:, position + 1] = torch.where(position + 1 < lengths, tokens[:, position + 1], chosen)
    return tokens


def greedy(scores: Tensor, _position: int) -> Tensor:
    """The best token of each row of scores [B, V]."""
    return scores.argmax(-1)


class Gumbel:
    """Sampling with noise that depends on the seed, the row and the position alone, so that a drafter can share it."""

    def __init__(self, temperature: float, top_k: int, top_p: float, seed: int) -> None:
        """Filter by `top_k` and `top_p` after dividing by `temperature`."""
        self.temperature, self.top_k, self.top_p, self.seed = temperature, top_k, top_p, seed

    def __call__(self, scores: Tensor, position: int) -> Tensor:
        """Tokens [B] for scores [B, V] at one position."""
        return self.choose(scores, self.noise(scores, position))

    def noise(self, like: Tensor, position: int) -> Tensor:
        """Standard Gumbel noise shaped as `like` [B, V]."""
        generator = torch.Generator(like.device).manual_seed(self.seed * 1_000_003 + position)
        exponential = torch.empty_like(like, dtype=torch.float32).exponential_(generator=generator)
        return -exponential.clamp_min(1e-20).log()

    def choose(self, scores: Tensor, noise: Tensor) -> Tensor:
        """The argmax [...] of filtered scores plus noise, both [..., V]."""
        scaled = scores / self.temperature
        best, ids = scaled.topk(self.top_k, dim=-1)
        chances = best.softmax(-1)
        keep = chances.cumsum(-1) - chances < self.top_p
        noisy = (best + noise.gather(-1, ids)).masked_fill(~keep, -torch.inf)
        return ids.gather(-1, noisy.argmax(-1, keepdim=True)).squeeze(-1)


def self_written(
    target: Target, tokens: Tensor, count: int, length: int, prompt: int, seed: int, ends: float
) -> Tensor:
    """`count` texts [count, length] (int16) after `prompt` tokens of the corpus `tokens`: 2 in 3 greedy, 1 sampled.

    Raises:
        TimeoutError: it was not done at `ends`, on time.monotonic()'s clock.
    """
    dtype = torch.bfloat16 if tokens.device.type == "cuda" else torch.float32
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(tokens) - length, (count,), generator=generator).to(tokens.device)
    prompts = tokens[starts[:, None] + torch.arange(length, device=tokens.device)].long()
    lengths = torch.full((count,), prompt, device=tokens.device)
    sample = Gumbel(0.8, 64, 0.95, seed)
    is_greedy = torch.arange(count, device=tokens.device) % 3 < 2

    def choose(scores: Tensor, position: int) -> Tensor:
        return torch.where(is_greedy, scores.argmax(-1), sample(scores, position))

    return write(target, prompts, lengths, choose, dtype, ends).short()


def _caches(target: Target, count: int, total: int, device: torch.device, dtype: torch.dtype) -> list[KeysValues]:
    """Empty keys and values of every layer, each [B, G, T, D]."""
    shape = target.shape
    caches = []
    for index in range(shape.layers):
        full = shape.is_full(index)
        heads, size = (shape.global_kv_heads, shape.global_head_size) if full else (shape.kv_heads, shape.head_size)
        keys, values = torch.zeros(2, count, heads, total, size, device=device, dtype=dtype).unbind()
        caches.append((keys, values))
    return caches


def _layer(
    layer: Layer, x: Tensor, rotation: tuple[Tensor, Tensor], cache: KeysValues, first: int, position: int
) -> Tensor:
    """One layer on one new position x [B, 1, C], which is written into `cache` and sees `first`..`position`."""
    normed = layer.input_layernorm(x)
    for stored, new in zip(cache, layer.self_attn.keys_values(normed, rotation), strict=True):
        stored[:, :, position : position + 1] = new
    seen = (cache[0][:, :, first : position + 1], cache[1][:, :, first : position + 1])
    attended = layer.self_attn.attend(layer.self_attn.queries(normed, rotation), seen, None)
    return layer.feed_forward(x + layer.post_attention_layernorm(attended))
