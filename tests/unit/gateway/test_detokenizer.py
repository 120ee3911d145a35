import random

import pytest

from tandem.gateway.detokenizer import detokenizer_for
from tandem.gateway.tokenizer import TextTokenizer
from tests.unit.gateway.conftest import stripping_tokenizer

TEXTS = [
    "hello world",
    "  leading and   inner spaces \n",
    "naïve café, 中文字, ☃, 😀👩‍👩‍👧 and é combining",
    "\u0000 control \ufffd replacement written out",
    "<中>",
]


def run(tokenizer, ids):
    detokenizer = detokenizer_for(tokenizer)
    pushed = [detokenizer.push(token_id) for token_id in ids]
    return pushed, detokenizer.flush()


def texts_of(tokenizer, ids):
    pushed, flushed = run(tokenizer, ids)
    texts = [text for texts in pushed for text in texts] + flushed
    assert len(texts) == len(ids), "every token gets exactly one text"
    return texts


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert "".join(texts_of(tokenizer, ids)) == tokenizer.decode(ids) == text


def test_any_ids_give_what_decoding_them_at_once_gives(tokenizer):
    """Random ids are mostly broken UTF-8, with special tokens and ids beyond the vocabulary in between."""
    chance = random.Random(7)
    size = tokenizer.library.get_vocab_size()
    for _ in range(1500):
        ids = [chance.randrange(size + 5) for _ in range(chance.randrange(1, 24))]
        assert "".join(texts_of(tokenizer, ids)) == tokenizer.decode(ids)


def test_multi_byte_text_with_noise_at_every_place(tokenizer):
    chance = random.Random(8)
    ids = tokenizer.encode("é中😀x é中😀")
    noise = [*tokenizer.special_token_ids, *tokenizer.encode("\u00ff"), 10_000]
    for place in range(len(ids) + 1):
        for length in (1, 2):
            mixed = [*ids[:place], *chance.sample(noise, length), *ids[place:]]
            assert "".join(texts_of(tokenizer, mixed)) == tokenizer.decode(mixed)


def test_every_beginning_is_a_beginning_of_the_whole(tokenizer):
    """What was shown is never taken back, wherever the sequence ends, and never ends inside a character."""
    ids = tokenizer.encode("naïve 中文 😀!")
    whole = "naïve 中文 😀!"
    for length in range(len(ids) + 1):
        pushed, flushed = run(tokenizer, ids[:length])
        shown = "".join(text for texts in pushed for text in texts)
        assert whole.startswith(shown)
        assert shown + "".join(flushed) == tokenizer.decode(ids[:length])


def test_ordinary_tokens_do_not_wait(tokenizer):
    pushed, flushed = run(tokenizer, tokenizer.encode("hello the world"))
    assert all(len(texts) == 1 and texts[0] for texts in pushed) and not flushed


def test_a_character_belongs_to_the_token_that_completes_it(tokenizer):
    ids = tokenizer.encode("a😀b")
    texts = texts_of(tokenizer, ids)
    assert texts == ["a", "", "", "", "😀", "b"]


def test_special_tokens_have_no_text(tokenizer):
    eos = tokenizer.special_tokens["<eos>"]
    assert run(tokenizer, [eos, eos]) == ([[""], [""]], [])


def test_decoders_may_treat_the_first_token_specially():
    tokenizer = TextTokenizer(stripping_tokenizer(), "<bos>")
    encode, eos = tokenizer.encode, tokenizer.special_tokens["<eos>"]
    space, word = encode(" x")[0], encode(" hello")
    for ids in ([space, space, *word], [eos, space, *word, *word], [space, eos, *word, space], encode(" 中 中")):
        assert "".join(texts_of(tokenizer, ids)) == tokenizer.decode(ids)
    chance = random.Random(10)
    odd_bytes = [tokenizer.library.token_to_id(name) for name in ("<0x20>", "<0xFF>", "<0xC3>")]
    for _ in range(1500):
        ids = [chance.choice([space, eos, *word, *odd_bytes, *encode("é中")]) for _ in range(chance.randrange(1, 12))]
        assert "".join(texts_of(tokenizer, ids)) == tokenizer.decode(ids)
