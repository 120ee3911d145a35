"""Grammars over both kinds of tokenizer: what may come next, where a text may end, and what can never be in it."""

import json
import logging

import numpy as np
import pytest
import torch

from tandem.core.errors import ConfigError
from tandem.sampling.grammar_masks import GrammarMasks
from tandem.sampling.vocabulary import Vocabulary
from tests.grammars import grammar, json_schema, lark, regex
from tests.unit.gateway.conftest import byte_fallback_tokenizer, byte_level_tokenizer, save_checkpoint

EOS, TURN_END = 1, 5
MAKERS = {"byte-level": byte_level_tokenizer, "byte-fallback": byte_fallback_tokenizer}
PADDING = 40  # logits without a token, as padded targets have


class Tokens:
    """A checkpoint's tokenizer as text sees it, and as grammars do."""

    def __init__(self, tokenizer, folder, end_token_ids=(EOS, TURN_END)):
        self.tokenizer = tokenizer
        self.size = tokenizer.get_vocab_size() + PADDING
        self.vocabulary = Vocabulary.load(save_checkpoint(folder, tokenizer), self.size, end_token_ids)
        self.bytes = {tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in range(256)}

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def rows(self, state, drafts=()):
        """What each row of a verify may choose."""
        logits = torch.zeros(len(drafts) + 1, self.size)
        masked = GrammarMasks(self.size, torch.device("cpu")).apply(logits, [(state, drafts)])
        return [set(np.flatnonzero(row.isfinite()).tolist()) for row in masked]

    def after(self, state, drafts=()):
        """The same without byte tokens, which are another spelling of everything."""
        return [row - self.bytes for row in self.rows(state, drafts)]


@pytest.fixture(scope="module", params=MAKERS)
def tokens(request, tmp_path_factory):
    return Tokens(MAKERS[request.param](), tmp_path_factory.mktemp("checkpoint") / "target")


@pytest.mark.parametrize(
    "text", ['"hello world"', '"☃ é 中"', '"The lazy  dog"'], ids=["words", "characters of several bytes", "spaces"]
)
def test_every_spelling_of_a_text_is_allowed_and_complete_at_its_end(tokens, text):
    state = grammar(json_schema({"type": "string"}), tokens.vocabulary)
    ids = tokens.encode(text)
    for row, token_id in zip(tokens.rows(state, ids), ids, strict=False):
        assert token_id in row
    for token_id in ids:
        assert not state.is_complete
        assert state.accept(token_id)
    assert state.is_complete


def test_rows_stand_after_their_own_drafts(tokens):
    state = grammar(regex("hello|help|9"), tokens.vocabulary, {EOS})
    h, e, ell = (tokens.encode(text) for text in ("h", "e", "ll"))
    before, after_h, after_he = tokens.after(state, [*h, *e])
    assert set(h) <= before and not set(ell) & before
    assert set(e) <= after_h and not set(h) & after_h
    assert set(ell) <= after_he
    assert not any(EOS in row for row in (before, after_h, after_he))
    assert tokens.after(state) == [before]  # looking ahead changed nothing


def test_a_stop_token_may_be_chosen_exactly_where_the_text_may_end(tokens):
    state = grammar(regex("h+"), tokens.vocabulary, {EOS, TURN_END, 3})
    (h,) = tokens.encode("h")
    assert tokens.after(state) == [{h}]
    assert state.accept(h) and not state.is_complete
    assert tokens.after(state) == [{h, EOS, TURN_END, 3}]
    without = grammar(regex("h+"), tokens.vocabulary, ())
    assert without.accept(h)
    assert tokens.after(without) == [{h}]


def test_a_stop_token_that_writes_text_is_text(tokens):
    (h,) = tokens.encode("h")
    state = grammar(regex("hh"), tokens.vocabulary, {h, EOS})
    assert tokens.after(state) == [{h}]
    (other,) = tokens.encode("o")
    assert tokens.after(grammar(regex("h+"), tokens.vocabulary, {other}))[0] == {h}


@pytest.mark.parametrize("text", ["<turn|>", "<eos>", "<|turn>", "<unk>"])
def test_special_tokens_are_never_text(tokens, text):
    """Not even where a grammar spells them, or takes anything."""
    special = set(range(6))
    for output_format in (lark(f'start: "{text}"'), regex("(?s:.)*"), json_schema({"type": "string"})):
        state = grammar(output_format, tokens.vocabulary, ())
        assert not special & tokens.after(state)[0]
    spelled = grammar(lark(f'start: "{text}"'), tokens.vocabulary)
    assert spelled.num_possible([tokens.tokenizer.token_to_id(text)]) == 0
    tokens.tokenizer.encode_special_tokens = True
    assert all(spelled.accept(token_id) for token_id in tokens.encode(text))
    assert spelled.is_complete


def test_grammars_that_name_tokens_reach_none(tokens):
    """The check refuses them; and if it did not, the mask would."""
    state = grammar(lark('start: "h" (<[5]> | "e")'), tokens.vocabulary, ())
    assert state.accept(tokens.encode("h")[0])
    assert tokens.after(state) == [set(tokens.encode("e"))]


def test_an_end_token_that_the_tokenizer_does_not_mark_is_no_text_either(tmp_path):
    tokenizer = byte_fallback_tokenizer()
    hell = tokenizer.token_to_id("hell")
    tokens = Tokens(tokenizer, tmp_path / "target", (EOS, hell))
    state = grammar(regex("hello+"), tokens.vocabulary, {EOS, hell})
    assert hell not in tokens.after(state)[0]
    assert state.accept(tokenizer.token_to_id("hello"))
    assert {EOS, hell} <= tokens.after(state)[0]


def test_drafts_are_possible_up_to_the_first_that_is_forbidden(tokens):
    state = grammar(regex("hel*o"), tokens.vocabulary)
    h, e, o = (tokens.encode(text)[0] for text in "heo")
    assert state.num_possible([h, e, h, e]) == 2
    assert state.num_possible([o]) == state.num_possible([]) == 0
    assert state.num_possible([h, e, o]) == 3


def test_rows_of_other_sequences_are_left_alone(tokens):
    logits = torch.randn(6, tokens.size)
    state = grammar(regex("h"), tokens.vocabulary)
    allowed = tokens.after(state)[0]
    masked = GrammarMasks(tokens.size, torch.device("cpu")).apply(logits, [(None, [7, 8]), (state, []), (None, [9])])
    assert torch.equal(masked[[0, 1, 2, 4, 5]], logits[[0, 1, 2, 4, 5]])
    assert allowed == set(tokens.encode("h")) and masked[3, list(allowed)].isfinite().all()
    assert masked[3].isfinite().sum() <= 2  # a byte token may spell it, too
    assert logits.isfinite().all()


def test_a_forbidden_token_is_not_accepted(tokens, caplog):
    state = grammar(regex("h"), tokens.vocabulary)
    with caplog.at_level(logging.CRITICAL):
        assert not state.accept(tokens.encode("o")[0])


def test_drafts_on_which_the_library_gives_up_cost_the_text_nothing(tokens):
    """So many of these are too much for its limits, and nobody but the drafter wants them."""
    state = grammar(lark('start: "h" ("o" | (("e"{0,1000}){0,1000}){0,1000})'), tokens.vocabulary)
    h, e, o = (tokens.encode(text)[0] for text in "heo")
    assert state.accept(h)
    tokens.rows(state, [e] * 12)
    assert state.matcher.is_error()
    assert state.accept(o)
    assert state.is_complete


def test_white_space_in_json_is_bounded(tokens):
    state = grammar(json_schema({"type": "array"}), tokens.vocabulary)
    space = tokens.encode(" ")[0]
    assert state.accept(tokens.encode("[")[0])
    assert state.num_possible([space] * 100) == 40


def test_no_tokenizer_is_no_vocabulary(tmp_path):
    assert Vocabulary.load(tmp_path, 64, {1}) is None


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path):
    folder = save_checkpoint(tmp_path / "target", byte_level_tokenizer())
    with pytest.raises(ConfigError, match="tokenizer.json"):
        Vocabulary.load(folder, 100, {EOS})
    (folder / "tokenizer.json").write_text(json.dumps({"model": 5}))
    with pytest.raises(ConfigError, match="tokenizer.json"):
        Vocabulary.load(folder, 400, {EOS})
