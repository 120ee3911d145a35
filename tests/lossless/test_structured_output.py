"""Under a grammar the text is the same for any K and any drafter, and what the target alone writes under it."""

import json
import re
from dataclasses import dataclass

import pytest
import torch
from tokenizers import Tokenizer

from tandem.core.sampling_params import OutputParams, StoppingParams
from tandem.core.sequence import FinishReason
from tandem.demo import DEMO_TARGET, held_out_prompts
from tandem.models.gemma4.weights import load_target
from tandem.telemetry import metrics as names
from tests.engines import mtp_drafts, new_sequence, running
from tests.grammars import DEMO_END_TOKENS, PERSON, demo_vocabulary, grammar, json_schema, lark, regex
from tests.unit.engine.hostile import ScriptedDrafter, random_tokens

NUM_PROMPTS = 2
MAX_TOKENS = 40
DIGITS_AND_WORDS = r"[0-9]{2,4}( [a-z]+){2,5}\."
SUM = 'start: number ("+" number)+\nnumber: /[0-9]{1,3}/\n'
FORMATS = {"schema": json_schema(PERSON), "regex": regex(DIGITS_AND_WORDS), "grammar": lark(SUM), "none": None}
FIELDS = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 0.8, "top_k": 64, "top_p": 0.95},
    "penalized": {
        "temperature": 0.8,
        "repetition_penalty": 1.3,
        "frequency_penalty": 0.4,
        "logit_bias": ((16, 3.0), (5, 100.0)),
        "min_p": 0.01,
    },
}


@dataclass(frozen=True)
class Confined:
    """A handful of prompts under every format."""

    target: object
    prompts: list[list[int]]
    vocabulary: object
    tokenizer: object

    def sequences(self, k, fields, **stopping):
        stopping = {"stop_token_ids": DEMO_END_TOKENS, **stopping}
        return [
            new_sequence(
                index,
                self.prompts[index % NUM_PROMPTS],
                k=k,
                seed=index,
                stopping=StoppingParams(MAX_TOKENS, **stopping),
                grammar=FORMATS[name] and grammar(FORMATS[name], self.vocabulary, stopping["stop_token_ids"]),
                **FIELDS[fields],
            )
            for index, name in enumerate(name for name in FORMATS for _ in range(NUM_PROMPTS))
        ]

    def alone(self, fields, **stopping):
        """What the target writes without drafts, one sequence at a time, and how each text ended."""
        sequences = self.sequences(0, fields, **stopping)
        with running(self.target, lambda inputs: []) as under_test:
            texts = [under_test.generate([sequence])[0] for sequence in sequences]
        return texts, [sequence.finish_reason for sequence in sequences]


@pytest.fixture(scope="module")
def confined():
    tokenizer = Tokenizer.from_file(str(DEMO_TARGET / "tokenizer.json"))
    prompts = [tokenizer.encode(text).ids[-40:] for text in held_out_prompts()[:NUM_PROMPTS]]
    return Confined(load_target(DEMO_TARGET, torch.float32, "cpu"), prompts, demo_vocabulary(), tokenizer)


@pytest.fixture(scope="module")
def plain(confined):
    return {fields: confined.alone(fields) for fields in FIELDS}


@pytest.mark.parametrize("fields", FIELDS)
def test_a_complete_text_matches_its_format(confined, plain, fields):
    texts, reasons = plain[fields]
    matched = 0
    for index, (token_ids, reason) in enumerate(zip(texts, reasons, strict=True)):
        name = list(FORMATS)[index // NUM_PROMPTS]
        text = confined.tokenizer.decode(token_ids, skip_special_tokens=True)
        assert reason in (FinishReason.STOP, FinishReason.LENGTH)
        if name != "none":
            replayed = grammar(FORMATS[name], confined.vocabulary)
            written = [token_id for token_id in token_ids if token_id not in DEMO_END_TOKENS]
            assert replayed.num_possible(written) == len(written)
        if name == "none" or reason is FinishReason.LENGTH:
            continue
        matched += 1
        if name == "schema":
            value = json.loads(text)
            assert set(value) == set(PERSON["required"]) and 0 <= value["age"] <= 150
            assert set(value["tags"]) <= {"red", "green", "blue"} and len(value["tags"]) <= 3
        else:
            assert re.fullmatch(DIGITS_AND_WORDS if name == "regex" else r"[0-9]{1,3}(\+[0-9]{1,3})+", text)
    assert matched


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize(
    ("drafter", "k"),  # one that is not asked is not hostile
    [("honest", 0), ("honest", 1), ("honest", 4), ("honest", 7), ("hostile", 1), ("hostile", 7)],
)
def test_the_text_does_not_depend_on_drafts(confined, plain, drafter_path, drafter, k, fields):
    """All formats and a text without one in the same batch."""
    target = confined.target
    sources = {
        "honest": mtp_drafts(target, drafter_path),
        "hostile": lambda inputs: ScriptedDrafter(random_tokens(target.config.vocab_size)),
    }
    sequences = confined.sequences(k, fields)
    with running(target, sources[drafter]) as under_test:
        texts = under_test.generate(sequences)
    assert (texts, [sequence.finish_reason for sequence in sequences]) == plain[fields]
    if k and drafter == "honest":
        assert under_test.metrics.value(names.SPEC_ACCEPTED_TOKENS) > 0


def test_preempted_sequences_go_on_where_their_grammar_was(confined, plain, drafter_path):
    target = confined.target
    with running(target, mtp_drafts(target, drafter_path), kv_tokens=192) as under_test:
        texts = under_test.generate(confined.sequences(4, "sampled"))
    assert under_test.metrics.value(names.PREEMPTIONS) > 0
    assert texts == plain["sampled"][0]


@pytest.mark.parametrize("k", [0, 4])
def test_a_complete_text_ends_though_nothing_may_end_it(confined, drafter_path, k):
    """Neither end tokens nor fewer tokens than `min_tokens`: the grammar has the last word."""
    target = confined.target
    name = regex(r"[0-9]{3}-[a-z]{3}")
    sequence = new_sequence(
        0,
        confined.prompts[0],
        k=k,
        stopping=StoppingParams(MAX_TOKENS, min_tokens=40),
        grammar=grammar(name, confined.vocabulary, ()),
    )
    with running(target, mtp_drafts(target, drafter_path)) as under_test:
        (text,) = under_test.generate([sequence])
        end = under_test.end(sequence)
    assert re.fullmatch(r"[0-9]{3}-[a-z]{3}", confined.tokenizer.decode(text))
    assert (end.reason, end.stop_token_id) == (FinishReason.STOP, None)


@pytest.mark.parametrize("k", [0, 4])
def test_end_tokens_are_refused_until_the_text_may_end(confined, drafter_path, k):
    """The end tokens have by far the best logits, everywhere."""
    target = confined.target
    sequences = [
        new_sequence(
            index,
            confined.prompts[0],
            k=k,
            logit_bias=((1, 100.0), (5, 100.0)),
            stopping=StoppingParams(MAX_TOKENS, stop_token_ids=DEMO_END_TOKENS),
            grammar=grammar(output_format, confined.vocabulary),
        )
        for index, output_format in enumerate([regex("[a-z]{4}x*"), json_schema({"type": "string", "minLength": 3})])
    ]
    with running(target, mtp_drafts(target, drafter_path)) as under_test:
        word, quoted = under_test.generate(sequences)
        assert under_test.end(sequences[0]).stop_token_id in DEMO_END_TOKENS
    assert re.fullmatch("[a-z]{4}x*", confined.tokenizer.decode(word[:-1]))
    assert len(json.loads(confined.tokenizer.decode(quoted))) >= 3


def test_a_grammar_that_gives_up_ends_its_own_request_only(confined, plain, drafter_path):
    target = confined.target
    sequences = confined.sequences(4, "greedy")
    broken = sequences[0]
    accept, num_accepted = broken.grammar.accept, 0

    def give_up(token_id):
        nonlocal num_accepted
        num_accepted += 1
        return num_accepted < 5 and accept(token_id)

    broken.grammar.accept = give_up
    with running(target, mtp_drafts(target, drafter_path)) as under_test:
        texts = under_test.generate(sequences)
    expected = plain["greedy"][0]
    assert broken.finish_reason is FinishReason.FAULT
    assert texts[0] == expected[0][:4]
    assert texts[1:] == expected[1:]


@pytest.mark.parametrize(("text", "num_judged"), [("xxxxxxx", 0), ("77777xx", 5)])
def test_drafts_are_cut_where_the_grammar_forbids_them(confined, text, num_judged):
    drafts = [confined.tokenizer.encode(letter, add_special_tokens=False).ids[0] for letter in text]
    sequence = new_sequence(
        0, confined.prompts[0], k=7, max_tokens=12, grammar=grammar(regex("[0-9]{20}"), confined.vocabulary)
    )
    drafter = ScriptedDrafter(lambda slots, k: [drafts[:k] for _ in slots])
    with running(confined.target, lambda inputs: drafter) as under_test:
        under_test.generate([sequence])
    assert under_test.outputs[0][1].num_draft_tokens == num_judged


def test_logprobs_are_those_before_the_mask(confined):
    """The target would rather end here: its own distribution says so, whatever the grammar makes of it."""
    target = confined.target
    prompt = confined.prompts[0]
    free = new_sequence(0, prompt, k=0, max_tokens=1, output=OutputParams(logprobs=True, top_logprobs=3))
    bound = new_sequence(
        1,
        prompt,
        k=0,
        max_tokens=1,
        output=OutputParams(logprobs=True, top_logprobs=3),
        grammar=grammar(regex("[@]{9}"), confined.vocabulary),
    )
    with running(target, lambda inputs: []) as under_test:
        under_test.generate([free])
        under_test.generate([bound])
    (one,), (other,) = under_test.outputs[0][0].logprobs, under_test.outputs[1][0].logprobs
    assert one.top == other.top
    assert other.chosen < one.top[-1][1]
    assert torch.isfinite(torch.tensor(other.chosen))
