"""Weights, keys and values of 8 bits: other texts than those of the wider formats, but the same with a drafter."""

from dataclasses import replace

import pytest
import torch

from tandem.demo import DEMO_TARGET
from tandem.models.gemma4.fp8_linear import Fp8Linear
from tandem.models.gemma4.linear import Linear
from tandem.models.gemma4.weights import load_target
from tandem.telemetry import metrics as names
from tests.engines import mtp_drafts, running

STEP = 7  # one prompt in seven, from the shortest to beyond the window: products of 8 bits are slow on a CPU
FORMATS = {"weights": (Fp8Linear, ""), "KV": (Linear, "float8_e4m3fn"), "both": (Fp8Linear, "float8_e4m3fn")}


@pytest.fixture(scope="module", params=FORMATS)
def narrow(request, reference):
    """A target, the format of its KV, and what it writes alone."""
    linear, kv_dtype = FORMATS[request.param]
    target = load_target(DEMO_TARGET, torch.float32, "cpu", linear=linear)
    own = replace(reference, target=target, prompts=reference.prompts[::STEP], texts={})
    with running(target, lambda inputs: [], kv_dtype=kv_dtype, prefix_cache=False) as under_test:
        for sequence in own.sequences(0, 0.0):
            under_test.outputs.clear()
            own.texts[0.0, sequence.sequence_id] = under_test.generate([sequence])[0]
    return own, kv_dtype, request.param


@pytest.mark.parametrize("k", [0, 4])
def test_in_a_mixed_batch(narrow, drafter_path, k):
    own, kv_dtype, name = narrow
    with running(own.target, mtp_drafts(own.target, drafter_path), kv_dtype=kv_dtype) as under_test:
        texts = under_test.generate(own.sequences(k, 0.0))
        accepted = under_test.metrics.value(names.SPEC_ACCEPTED_TOKENS)
    own.check(0.0, texts, f"{name} of 8 bits, K={k}")
    assert accepted > (len(texts) * len(texts[0]) / 3 if k else -1), "the drafter is of use"
