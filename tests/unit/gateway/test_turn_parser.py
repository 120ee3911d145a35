"""The model's turn in parts, through the stream that clients see."""

import json
import random

import pytest

from tandem.gateway.detokenizer import detokenizer_for
from tandem.gateway.stop_matcher import StopMatcher
from tandem.gateway.text_stream import TextStream
from tandem.gateway.turn_parser import TurnParser
from tandem.internal.v1.verifier_service_pb2 import Round
from tandem.v1 import types_pb2

TEXT, THOUGHT, CALL, CONTROL = (
    types_pb2.OUTPUT_PART_TEXT,
    types_pb2.OUTPUT_PART_THOUGHT,
    types_pb2.OUTPUT_PART_TOOL_CALL,
    types_pb2.OUTPUT_PART_CONTROL,
)
CALLED = '<|tool_call>call:weather{city:<|"|>中 😀{"<|"|>,days:[1,2]}<tool_call|>'
ARGUMENTS = {"city": '中 😀{"', "days": [1, 2]}


class Answer:
    """All that a client is told of one turn, each delta checked against what tokens and parts promise."""

    def __init__(self, tokenizer, ids, size=1, prompt=(), stops=(), min_tokens=0):
        stream = TextStream(
            detokenizer_for(tokenizer),
            StopMatcher(stops),
            {tokenizer.special_tokens["<turn|>"]},
            min_tokens,
            False,
            TurnParser(tokenizer, prompt),
        )
        self.deltas = []
        for start in range(0, len(ids), size):
            self.deltas.append(stream.push(Round(token_ids=ids[start : start + size])))
            if stream.match is not None:
                break
        else:
            self.deltas.append(stream.finish())
        self.match = stream.match
        self.text = self.thought = ""
        self.tokens = []
        for delta in self.deltas:
            self.text += delta.text
            self.thought += delta.thought
            self.tokens += delta.tokens
            assert delta.num_tokens == len(delta.tokens)
            assert self.text.startswith(self.of(TEXT)) and self.thought == self.of(THOUGHT)
        assert self.text == self.of(TEXT)
        assert stream.num_released_tokens == len(self.tokens)
        self.calls = [(call.name, json.loads(call.arguments_json)) for d in self.deltas for call in d.tool_calls]
        assert stream.num_tool_calls == len(self.calls)

    def of(self, part):
        return "".join(token.text for token in self.tokens if token.part == part)


@pytest.fixture
def encode(tokenizer, whole):
    """Ids of a turn as it is written, special tokens spelled."""
    return lambda written: whole.encode(written, add_special_tokens=False).ids


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_whole_turn_in_rounds_of_any_size(tokenizer, encode, size):
    written = f"<|channel>thought\nhello 中\n\n😀<channel|>the fox {CALLED}{CALLED}<|tool_response>"
    ids = encode(written)
    answer = Answer(tokenizer, ids, size)
    assert (answer.thought, answer.text) == ("hello 中\n\n😀", "the fox ")
    assert answer.calls == [("weather", ARGUMENTS)] * 2
    assert [token.id for token in answer.tokens] == ids
    assert answer.of(CALL) == CALLED * 2
    assert answer.of(CONTROL) == "thought\n", "special tokens around parts show nowhere, their name only here"


def test_thoughts_stream_and_calls_come_whole(tokenizer, encode):
    ids = encode(f"<|channel>thought\nhello world<channel|>the{CALLED}")
    deltas = Answer(tokenizer, ids).deltas
    thinking = [delta.thought for delta in deltas if delta.thought]
    assert len(thinking) > 1 and "".join(thinking) == "hello world"
    with_call = [delta for delta in deltas if delta.tool_calls]
    assert len(with_call) == 1 and with_call[0].num_tokens == len(encode(CALLED))
    half = Answer(tokenizer, ids[:3]).deltas
    assert not any(delta.text or delta.thought for delta in half), "nor does half a label show"


@pytest.mark.parametrize(
    "empty", ["<|channel>thought\n<channel|>", "<|channel>thought<channel|>", "<|channel><channel|>"]
)
def test_an_empty_thought_is_none(tokenizer, encode, empty):
    answer = Answer(tokenizer, encode(f"{empty}the fox"))
    assert (answer.text, answer.thought) == ("the fox", "")


def test_a_channel_of_another_name_loses_nothing(tokenizer, encode):
    answer = Answer(tokenizer, encode("<|channel>thousand\nfoxes<channel|>the"))
    assert (answer.text, answer.thought) == ("the", "thousand\nfoxes")


@pytest.mark.parametrize("begun", ["", "tho", "thought\n", "thought\nhello "])
def test_the_prompt_may_end_inside_a_thought(tokenizer, encode, begun):
    prompt = encode(f"<bos><|turn>model\n<|channel>{begun}")
    rest = "thought\nhello "[len(begun) :]
    ids = [*tokenizer.encode(rest), *encode("world<channel|>the")] if rest else encode("world<channel|>the")
    answer = Answer(tokenizer, ids, prompt=prompt)
    assert answer.text == "the"
    assert answer.thought == ("world" if begun.endswith("hello ") else "hello world")


def test_a_prompt_with_a_closed_thought_begins_with_text(tokenizer, encode):
    prompt = encode("<bos><|turn>model\n<|channel>thought\n<channel|>")
    assert Answer(tokenizer, encode("the fox"), prompt=prompt).text == "the fox"


def test_text_that_looks_like_special_tokens_is_text(tokenizer):
    looks = f"<|channel>thought\nhello<channel|>{CALLED}"
    answer = Answer(tokenizer, tokenizer.encode(looks))
    assert (answer.text, answer.thought, answer.calls) == (looks, "", [])


def test_inside_a_string_nothing_but_the_quote_token_ends_it(tokenizer, encode):
    looks = '<|"|>}<tool_call|>'
    ids = [*encode('<|tool_call>call:f{a:<|"|>'), *tokenizer.encode(looks), *encode('<|"|>}<tool_call|>')]
    assert Answer(tokenizer, ids).calls == [("f", {"a": looks})]


@pytest.mark.parametrize(
    "written",
    [
        "<|tool_call>call:weather{city:<tool_call|>",
        '<|tool_call>call:weather{city:<|"|>中 <tool_call|>',
        "<|tool_call>no call<tool_call|>",
        "<|tool_call><tool_call|>",
        '<|tool_call>call:weather{city:<|"|>the',
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_a_call_that_is_none_becomes_text_as_it_is_written(tokenizer, encode, written, size):
    answer = Answer(tokenizer, encode(f"the {written}"), size)
    assert (answer.text, answer.calls) == (f"the {written}", [])


def test_a_call_that_breaks_off_ends_where_the_next_part_begins(tokenizer, encode):
    broken = '<|tool_call>call:weather{city:<|"|>Rome'
    answer = Answer(tokenizer, encode(f"{broken}{CALLED}<|tool_call>call:<|channel>thought\nhello<channel|>the<turn|>"))
    assert (answer.text, answer.thought) == (f"{broken}<|tool_call>call:the", "hello")
    assert answer.calls == [("weather", ARGUMENTS)]


def test_a_call_ends_a_thought(tokenizer, encode):
    answer = Answer(tokenizer, encode(f"<|channel>thought\nhello{CALLED}the"))
    assert (answer.thought, answer.text, len(answer.calls)) == ("hello", "the", 1)


def test_an_end_in_the_middle_of_a_character_stays_in_its_part(tokenizer, encode):
    ids = [*encode("<|channel>thought\na"), *tokenizer.encode("😀")[:-1], *encode("<channel|>the")]
    answer = Answer(tokenizer, ids)
    assert answer.text == "the" and answer.thought.startswith("a\ufffd")


def test_stop_texts_are_looked_for_in_the_text_alone(tokenizer, encode):
    ids = encode(f"<|channel>thought\nthe fox<channel|>the{CALLED} fox and the fox")
    for size in (1, 4, 1000):
        answer = Answer(tokenizer, ids, size, stops=["the fox", "weather"])
        assert (answer.text, answer.match) == ("the fox and ", "the fox")
        assert answer.thought == "the fox" and len(answer.calls) == 1


def test_a_malformed_call_may_hold_a_stop_text(tokenizer, encode):
    answer = Answer(tokenizer, encode("a<|tool_call>call:f{hello world}<tool_call|>b"), stops=["hello"])
    assert (answer.text, answer.match) == ("a<|tool_call>call:f{", "hello")


def test_random_tokens_lose_nothing(tokenizer):
    """Any ids whatever: every token comes once and in order, and cutting rounds otherwise changes nothing."""
    chance = random.Random(11)
    control = [*tokenizer.special_token_ids] * 12
    size = tokenizer.library.get_vocab_size()
    words = tokenizer.encode('thought\ncall:f{a:1}the 中😀"')
    for _ in range(400):
        ids = [chance.choice([*control, *words * 4, chance.randrange(size)]) for _ in range(chance.randrange(1, 40))]
        one, many = Answer(tokenizer, ids, 1), Answer(tokenizer, ids, chance.randrange(2, 9))
        assert [token.id for token in one.tokens] == ids
        assert list(one.tokens) == list(many.tokens)
        assert (one.text, one.thought, one.calls) == (many.text, many.thought, many.calls)
