"""Target and drafter as they are trained: whole sequences at once, parameters named as in Hugging Face's files.

Sizes in shape comments: B sequences, T positions, H query heads, G KV heads, D head size, C hidden size, V vocabulary.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from training.shapes import Shape

Mask = Tensor | BlockMask
Rotation = tuple[Tensor, Tensor]  # cosines and sines, each [T, D]
KeysValues = tuple[Tensor, Tensor]  # keys and values, each [B, G, T, D]
_EPSILON = 1e-6


class RmsNorm(nn.Module):
    """Root-mean-square norm over the last dimension; the scale multiplies as it is."""

    def __init__(self, size: int, initial: float = 1.0) -> None:
        """Start with every scale at `initial`."""
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), initial))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [..., size] in float32."""
        return (_normalise(x) * self.weight).to(x.dtype)


class Attention(nn.Module):
    """Attention with normalised queries and keys and scale 1; without `own_kv` it reads another layer's keys."""

    def __init__(self, shape: Shape, full: bool, own_kv: bool) -> None:
        """Build one layer's projections; full layers have no value projection."""
        super().__init__()
        self.full = full
        self.size = shape.global_head_size if full else shape.head_size
        kv_width = self.size * (shape.global_kv_heads if full else shape.kv_heads)
        self.q_proj = _linear(shape.hidden, shape.heads * self.size)
        self.q_norm = RmsNorm(self.size)
        self.o_proj = _linear(shape.heads * self.size, shape.hidden)
        if own_kv:
            self.k_proj = _linear(shape.hidden, kv_width)
            self.k_norm = RmsNorm(self.size)
            if not full:
                self.v_proj = _linear(shape.hidden, kv_width)

    def keys_values(self, x: Tensor, rotation: Rotation) -> KeysValues:
        """Keys and values [B, G, T, D] of x [B, T, C], as the cache holds them."""
        k = _project(x, self.k_proj).unflatten(-1, (-1, self.size))  # [B, T, G, D]
        v = k if self.full else _project(x, self.v_proj).unflatten(-1, (-1, self.size))
        k = _rotate(self.k_norm(k), rotation)
        return k.transpose(1, 2), _normalise(v).to(x.dtype).transpose(1, 2)

    def queries(self, x: Tensor, rotation: Rotation) -> Tensor:
        """Queries [B, H, T, D] of x [B, T, C]."""
        q = _project(x, self.q_proj).unflatten(-1, (-1, self.size))
        return _rotate(self.q_norm(q), rotation).transpose(1, 2)

    def attend(self, q: Tensor, kv: KeysValues, mask: Mask | None) -> Tensor:
        """Attend from q [B, H, T, D]; without a mask, T is 1 and everything is seen. Returns [B, T, C]."""
        if mask is None:
            grouped = q.squeeze(2).unflatten(1, (kv[0].shape[1], -1))  # [B, G, H / G, D]: copies no key
            out = F.scaled_dot_product_attention(grouped, *kv, scale=1.0).flatten(1, 2).unsqueeze(2)
        elif isinstance(mask, BlockMask):
            out = flex_attention(q, *kv, block_mask=mask, scale=1.0, enable_gqa=True)
        else:
            k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], dim=1) for part in kv)  # [B, H, T, D]
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
        assert isinstance(out, Tensor)
        return _project(out.transpose(1, 2).flatten(2), self.o_proj)


class Mlp(nn.Module):
    """Gated feed-forward block."""

    def __init__(self, shape: Shape) -> None:
        """Build gate, up and down projections."""
        super().__init__()
        self.gate_proj = _linear(shape.hidden, shape.intermediate)
        self.up_proj = _linear(shape.hidden, shape.intermediate)
        self.down_proj = _linear(shape.intermediate, shape.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, T, C] to [B, T, C]."""
        gate = F.gelu(_project(x, self.gate_proj), approximate="tanh")
        return _project(gate * _project(x, self.up_proj), self.down_proj)


class Layer(nn.Module):
    """One decoder layer with its four norms."""

    layer_scalar: Tensor

    def __init__(self, shape: Shape, full: bool, own_kv: bool) -> None:
        """Build the layer; norms behind the blocks start small, so that a deep stack starts near the identity."""
        super().__init__()
        self.self_attn = Attention(shape, full, own_kv)
        self.mlp = Mlp(shape)
        small = 1.0 / math.sqrt(2 * shape.layers)
        self.input_layernorm = RmsNorm(shape.hidden)
        self.post_attention_layernorm = RmsNorm(shape.hidden, small)
        self.pre_feedforward_layernorm = RmsNorm(shape.hidden)
        self.post_feedforward_layernorm = RmsNorm(shape.hidden, small)
        self.register_buffer("layer_scalar", torch.ones(1))

    def forward(self, x: Tensor, rotation: Rotation, kv: KeysValues | None, mask: Mask) -> tuple[Tensor, KeysValues]:
        """Map x [B, T, C] to [B, T, C] and the keys and values used: `kv`, or the layer's own where that is None."""
        normed = self.input_layernorm(x)
        if kv is None:
            kv = self.self_attn.keys_values(normed, rotation)
        attended = self.self_attn.attend(self.self_attn.queries(normed, rotation), kv, mask)
        return self.feed_forward(x + self.post_attention_layernorm(attended)), kv

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half of the layer on x [B, T, C]; layer_scalar stays 1 in this pair."""
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class Stack(nn.Module):
    """Embedding table, layers and final norm."""

    def __init__(self, shape: Shape, own_kv: bool) -> None:
        """Build the stack; embeddings start so that scaled rows and first logits have unit size."""
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        nn.init.normal_(self.embed_tokens.weight, std=shape.hidden**-0.5)
        layers = [Layer(shape, shape.is_full(index), own_kv) for index in range(shape.layers)]
        self.layers: nn.ModuleList = nn.ModuleList(layers)
        self.norm = RmsNorm(shape.hidden)


class Target(nn.Module):
    """The target network over whole sequences."""

    def __init__(self, shape: Shape) -> None:
        """Build the network with fresh weights in float32."""
        super().__init__()
        self.shape = shape
        self.model = Stack(shape, own_kv=True)

    def embed(self, tokens: Tensor, dtype: torch.dtype) -> Tensor:
        """Scaled embeddings [B, T, C] of tokens [B, T]: the input of the target and of the drafter."""
        return F.embedding(tokens, self.model.embed_tokens.weight).to(dtype) * self.shape.hidden**0.5

    def forward(self, tokens: Tensor, masks: dict[bool, Mask], dtype: torch.dtype) -> tuple[Tensor, list[KeysValues]]:
        """Run tokens [B, T]; masks are keyed by `full`. Returns final-norm rows [B, T, C] and every layer's KV."""
        x = self.embed(tokens, dtype)
        rotations = rotate_tables(self.shape, torch.arange(tokens.shape[1], device=tokens.device), dtype)
        kvs: list[KeysValues] = []
        for index, layer in enumerate(self.model.layers):
            full = self.shape.is_full(index)
            x, kv = layer(x, rotations[full], None, masks[full])
            kvs.append(kv)
        return self.model.norm(x), kvs

    def logits(self, rows: Tensor) -> Tensor:
        """Soft-capped logits [..., V] in float32 of final-norm rows [..., C]."""
        cap = self.shape.softcap
        assert cap is not None
        scores = F.linear(rows, self.model.embed_tokens.weight.to(rows.dtype)).float()
        return cap * torch.tanh(scores / cap)

    def shared(self, kvs: list[KeysValues]) -> dict[bool, KeysValues]:
        """The keys and values that the drafter reads: the last sliding layer's and the last full layer's."""
        return {self.shape.is_full(index): kv for index, kv in enumerate(kvs)}


class Drafter(nn.Module):
    """The drafter network: queries only, against the target's keys and values."""

    def __init__(self, shape: Shape, backbone: int) -> None:
        """Build the network for a target of hidden size `backbone`."""
        super().__init__()
        self.shape = shape
        self.model = Stack(shape, own_kv=False)
        self.pre_projection = _linear(2 * backbone, shape.hidden)
        self.post_projection = _linear(shape.hidden, backbone)

    def forward(
        self, embedded: Tensor, rows: Tensor, shared: dict[bool, KeysValues], masks: dict[bool, Mask]
    ) -> tuple[Tensor, Tensor]:
        """One draft step for every position: query i stands at position i + 1 and sees keys 0..i.

        embedded, rows: [B, T, C of the target]. Returns final-norm rows [B, T, c] and projected rows [B, T, C].
        """
        positions = torch.arange(1, rows.shape[1] + 1, device=rows.device)
        return self.step(embedded, rows, shared, masks, rotate_tables(self.shape, positions, rows.dtype))

    def step(
        self,
        embedded: Tensor,
        rows: Tensor,
        shared: dict[bool, KeysValues],
        masks: dict[bool, Mask],
        rotations: dict[bool, Rotation],
    ) -> tuple[Tensor, Tensor]:
        """One draft step for queries at any positions, which `rotations` and `masks` say."""
        x = _project(torch.cat((embedded, rows), dim=-1), self.pre_projection)
        for index, layer in enumerate(self.model.layers):
            full = self.shape.is_full(index)
            x, _ = layer(x, rotations[full], shared[full], masks[full])
        normed = self.model.norm(x)
        return normed, _project(normed, self.post_projection)

    def logits(self, rows: Tensor) -> Tensor:
        """Logits [..., V] in float32 of final-norm rows [..., c]."""
        return F.linear(rows, self.model.embed_tokens.weight.to(rows.dtype)).float()


def build_masks(length: int, window: int, device: torch.device, blocks: bool) -> dict[bool, Mask]:
    """Causal masks over `length` positions, keyed by `full`; `blocks` asks for the compiled kernel's form."""

    def full(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key <= query

    def sliding(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query - key < window)

    if blocks:
        return {
            True: create_block_mask(full, None, None, length, length, device=str(device)),
            False: create_block_mask(sliding, None, None, length, length, device=str(device)),
        }
    query = torch.arange(length, device=device)[:, None]
    key = torch.arange(length, device=device)[None, :]
    return {True: key <= query, False: (key <= query) & (query - key < window)}


def rotate_tables(shape: Shape, positions: Tensor, dtype: torch.dtype) -> dict[bool, Rotation]:
    """Cosines and sines [T, D] of positions [T], keyed by `full`; full layers turn a quarter of each head only."""
    tables: dict[bool, Rotation] = {}
    for full, size, theta, turning in ((False, shape.head_size, 1e4, 1.0), (True, shape.global_head_size, 1e6, 0.25)):
        exponents = torch.arange(0, size, 2, device=positions.device).float() / size
        frequencies = theta**-exponents
        frequencies[int(turning * size // 2) :] = 0.0
        angles = positions.float()[:, None] * frequencies[None, :]
        angles = torch.cat((angles, angles), dim=-1)
        tables[full] = (angles.cos().to(dtype), angles.sin().to(dtype))
    return tables


def _linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(linear.weight, std=0.5 * inputs**-0.5)
    return linear


def _project(x: Tensor, linear: nn.Linear) -> Tensor:
    """Apply a float32 master weight in the dtype of x."""
    return F.linear(x, linear.weight.to(x.dtype))


def _normalise(x: Tensor) -> Tensor:
    wide = x.float()
    return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + _EPSILON)


def _rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn x [B, T, heads, D] by the angles of its positions."""
    cos, sin = (table[:, None, :] for table in rotation)
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin
