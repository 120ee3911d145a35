"""The small kernels of a layer, interpreted on the CPU, against the plain operations that a CPU runs."""

import pytest
import torch
import torch.nn.functional as F

from tandem.kv_cache.scales import UNSCALED
from tandem.models.gemma4.activation_kernel import gate_rows
from tandem.models.gemma4.attention_config import FULL, SLIDING
from tandem.models.gemma4.config import drafter_text_config, target_config
from tandem.models.gemma4.embed_kernel import embed_beside
from tandem.models.gemma4.fields import Fields
from tandem.models.gemma4.layers import DecoderLayer, LayerInputs
from tandem.models.gemma4.norm import RmsNorm
from tandem.models.gemma4.norm_kernel import norm_rows
from tandem.models.gemma4.presets import DRAFTERS, TARGETS
from tandem.models.gemma4.softcap_kernel import cap_rows

CPU = torch.device("cpu")
HIDDEN_SIZE = 48


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def norm(seed, size=HIDDEN_SIZE):
    made = RmsNorm((size,), 1e-6, torch.float32, CPU)
    made.destination().write(random(size, seed=seed))
    return made, random(size, seed=seed)


@pytest.mark.parametrize("num_rows", [1, 5])
def test_a_norm_with_what_stands_around_it(num_rows):
    first, weight = norm(1)
    second, next_weight = norm(2)
    x, residual, scalar = random(num_rows, HIDDEN_SIZE), random(num_rows, HIDDEN_SIZE, seed=3), torch.tensor([0.3])
    torch.testing.assert_close(norm_rows(x, weight, 1e-6)[0], first(x))
    expected = first.add_to(residual, x.clone())
    total, following = norm_rows(x, weight, 1e-6, residual, None, next_weight, 1e-6)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(following, second(expected))
    total, following = norm_rows(x, weight, 1e-6, residual, scalar, next_weight, 1e-6)
    torch.testing.assert_close(total, expected * 0.3)
    torch.testing.assert_close(following, second(expected * 0.3))


def test_an_activation():
    product = random(3, 2 * 1500) * 3
    gate, up = product.chunk(2, -1)
    torch.testing.assert_close(gate_rows(product), F.gelu(gate, approximate="tanh") * up)


def test_tokens_beside_hidden_rows():
    table, hidden, scale = random(7, 1500), random(3, 1500, seed=1), torch.tensor(1.3)
    token_ids = torch.tensor([6, 0, 3])
    expected = torch.cat((table[token_ids] * scale, hidden), -1)
    assert embed_beside(token_ids, table, scale, hidden).equal(expected)


def test_a_softcap():
    """From logits that all but vanish to those that the cap is."""
    product = torch.cat([sign * torch.logspace(-6, 3, 2500) for sign in (-1, 1)]).repeat(2, 1)
    expected = 30.0 * torch.tanh(product.double() / 30.0)
    torch.testing.assert_close(cap_rows(product, 30.0).double(), expected, rtol=1e-6, atol=0.0)
    assert cap_rows(product[:0], 30.0).shape == (0, 5000)


def small(fields):
    """The shape with small sizes, as different from each other as in the original."""
    text = {**fields["text_config"], "hidden_size": 32, "intermediate_size": 64, "head_dim": 16, "global_head_dim": 32}
    return {**fields, "text_config": {**text, "num_attention_heads": 8, "num_key_value_heads": 4}}


LAYERS = {
    "sliding": ("gemma-4-31b", SLIDING, True),
    "values are keys": ("gemma-4-31b", FULL, True),
    "full": ("gemma-4-e4b", FULL, True),
    "queries only": ("gemma-4-31b", FULL, False),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_heads_are_arranged_as_plain_operations_do(kind):
    name, layer_type, owns_kv = LAYERS[kind]
    preset, read = (TARGETS, target_config) if owns_kv else (DRAFTERS, drafter_text_config)
    config = read(Fields(name, small(preset[name])))
    layer = DecoderLayer(config, config.layer_types.index(layer_type), owns_kv, torch.float32, CPU)
    for number, (tensor, destination) in enumerate(layer.destinations()):
        if "norm" in tensor:
            destination.write(random(*destination.shape, seed=number))
    attention, num_rows = config.attention[layer_type], 3
    num_heads, num_kv_heads, head_dim = config.num_attention_heads, attention.num_kv_heads, attention.head_dim
    num_projected = num_heads + (num_kv_heads * (1 if attention.is_k_eq_v else 2) if owns_kv else 0)
    product = random(num_rows, num_projected, head_dim, seed=20)
    angles = random(num_rows, 1, 2 * head_dim, seed=21)
    # Parts of wider tensors, as in a network.
    inputs = LayerInputs(angles.cos()[..., head_dim:], angles.sin()[..., head_dim:], torch.tensor([5, 0, 7]), None)
    caches = [torch.zeros(9, 2, num_kv_heads, head_dim) for _ in range(2)]
    expected = layer._arrange_plainly(product.clone(), inputs, caches[0], UNSCALED)
    layer._head_norm.weight /= head_dim**0.5  # which a CPU's norm keeps in its weight
    found = layer._arrange_by_kernel(product, inputs, caches[1], UNSCALED)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(caches[1], caches[0])
    assert caches[0].count_nonzero() == (num_rows * 2 * num_kv_heads * head_dim if owns_kv else 0)
    layer._arrange_by_kernel(product.fill_(torch.inf), inputs, caches[1], UNSCALED)
    assert caches[1].count_nonzero() == 0, "what is not finite is stored"
