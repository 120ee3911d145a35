"""What ships inside the package is a pair that loads, fits and stays small."""

import json

import pytest
import torch

from tandem.demo import DEMO_DRAFTER, DEMO_TARGET, HELD_OUT_PROMPTS, held_out_prompts
from tandem.gateway.chat_template import ChatTemplate
from tandem.gateway.tokenizer import TextTokenizer
from tandem.models.gemma4.weights import load_drafter, load_target
from tandem.models.generation_config import read_generation_config
from tests.unit.gateway.conftest import conversation
from training.sources import HELD_OUT

END_OF_TURN = "<turn|>"


@pytest.fixture(scope="module")
def tokenizer():
    return TextTokenizer.load(DEMO_TARGET)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_pair_loads_strictly_and_fits(dtype):
    target = load_target(DEMO_TARGET, dtype, "cpu")
    drafter = load_drafter(DEMO_DRAFTER, target.config, dtype, "cpu", target.embed_tokens)
    assert drafter.config.backbone_hidden_size == target.config.hidden_size
    assert torch.isfinite(target.embed_tokens.float()).all()


def test_the_pair_is_small():
    files = [path for folder in (DEMO_TARGET, DEMO_DRAFTER) for path in folder.iterdir()]
    assert sum(path.stat().st_size for path in files) <= 30_000_000


@pytest.mark.parametrize(
    "text", ["def f(x):\n    return x\n", "\t# é 漢字 😀\r\n", "<eos> is text", " ", "x" * 300, "\x00\x7f\ufeff"]
)
def test_every_text_round_trips(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_conversation_renders_with_every_role(tokenizer):
    template = ChatTemplate.load(DEMO_TARGET, tokenizer, 1000)
    ids = template.encode(conversation(("system", "Be brief."), ("user", "Hi"), ("model", "Yes?"), ("user", "Go")))
    assert tokenizer.library.decode(ids, skip_special_tokens=False) == (
        "<bos><|turn>system\nBe brief.<turn|>\n<|turn>user\nHi<turn|>\n<|turn>model\nYes?<turn|>\n"
        "<|turn>user\nGo<turn|>\n<|turn>model\n"
    )


def test_texts_end_at_the_tokens_that_the_tokenizer_ends_them_with(tokenizer):
    generation = read_generation_config(DEMO_TARGET)
    assert generation.eos_token_ids == {tokenizer.special_tokens["<eos>"], tokenizer.special_tokens[END_OF_TURN]}


def test_prompts_are_many_and_from_held_out_files():
    prompts = json.loads(HELD_OUT_PROMPTS.read_text(encoding="utf-8"))
    assert len(held_out_prompts()) >= 48
    assert {prompt["source"] for prompt in prompts} <= HELD_OUT
    assert all(prompt["text"].strip() for prompt in prompts)
