"""Who `tandem bench` asks for what, and in which order; nobody here takes any time."""

import json
from dataclasses import replace

import pytest

from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.failure import MeasurementFailed
from tandem.cli.bench.measuring import Contender, measure_acceptance, measure_first_token, measure_throughput
from tandem.cli.bench.prompts import Prompt, read_texts, shorten, spread
from tandem.cli.bench.replica import Journal
from tandem.cli.bench.stream import Arrival, Stream
from tandem.cli.bench.throughput import How
from tandem.cli.figures import Figures
from tandem.cli.main import main
from tandem.core.errors import ConfigError

CONFIG = BenchConfig(batch=2, runs=2, max_tokens=3, seed=10)
PROMPTS = [Prompt(f"text {index}", (2, index)) for index in range(4)]


class Asked:
    """Answers everybody at once, and notes who was asked for what."""

    def __init__(self):
        self.asked = []

    def contender(self, how, batches):
        async def generate(prompt, max_tokens):
            self.asked.append((how, prompt.text, max_tokens))
            return self._stream(prompt.token_ids)

        return Contender(how, batches, generate)

    async def generate(self, prompt_token_ids, ask):
        self.asked.append(ask)
        return self._stream(prompt_token_ids)

    def _stream(self, token_ids):
        arrivals = (Arrival(1.0, 1), Arrival(2.0, 2, 4, 1))
        return Stream(0.0, (*token_ids, 0), arrivals)


class Gateway:
    def __init__(self, asked):
        self.asked = asked

    async def generate(self, spec, on_delta):
        self.asked.append(spec)
        return Figures(1, 0, 0, 0, 1.0, 0.25)


async def test_everybody_runs_in_turn_at_each_batch():
    asked = Asked()
    contenders = [asked.contender(How.SPLIT, (1, 2)), asked.contender(How.ASSISTED, (1,))]
    lines = []
    texts = await measure_throughput(contenders, PROMPTS, CONFIG, lines.append)
    turns = [how for how, text, _ in asked.asked if text == "text 0"]
    assert turns == [How.SPLIT, How.ASSISTED, How.SPLIT] * 2, "batch 1, then the larger one; twice"
    assert [(found.how, found.batch, len(found.runs)) for found in texts.measured] == [
        (How.SPLIT, 1, 2),
        (How.ASSISTED, 1, 2),
        (How.SPLIT, 2, 2),
    ]
    assert all(len(samples) == len(PROMPTS) for found in texts.measured for samples in found.samples)
    assert texts.token_ids[How.ASSISTED] == [(2, index, 0) for index in range(4)]
    assert len(lines) == 6 and lines[0].startswith("run 1 of 2, batch 1, with drafter: ")


async def test_a_batch_of_one_stream_is_measured_once():
    asked = Asked()
    texts = await measure_throughput([asked.contender(How.SPLIT, (1,))], PROMPTS, CONFIG, lambda line: None)
    assert len(asked.asked) == len(PROMPTS) * CONFIG.runs and len(texts.measured) == 1


async def test_acceptance_asks_for_seeds_of_their_own_and_natural_ends():
    verifier = Asked()
    found = await measure_acceptance(verifier, PROMPTS, 0.8, CONFIG)
    assert [ask.seed for ask in verifier.asked] == [10, 11, 12, 13]
    assert {(ask.temperature, ask.ignore_eos, ask.num_speculative_tokens) for ask in verifier.asked} == {
        (0.8, False, 4)
    }
    assert found.length == 2.0 and found.temperature == 0.8
    assert await measure_acceptance(verifier, [], 0.8, CONFIG) is None


async def test_the_next_prompt_takes_the_place_of_a_text_that_ended_at_once():
    class Terse(Asked):
        def _stream(self, token_ids):
            return Stream(0.0, (0,), (Arrival(1.0, 1),)) if token_ids[1] < 2 else super()._stream(token_ids)

    verifier = Terse()
    found = await measure_acceptance(verifier, PROMPTS, 0.0, replace(CONFIG, acceptance_prompts=1))
    assert len(found.prompt_lengths) == 1 and found.num_short_texts == 2
    assert [ask.seed for ask in verifier.asked] == [10, 11, 12], "and nobody is asked for more than is wanted"
    found = await measure_acceptance(Terse(), PROMPTS, 0.0, replace(CONFIG, acceptance_prompts=3))
    assert len(found.prompt_lengths) == 2, "there are no more"


async def test_first_tokens_are_measured_in_pairs():
    asked = Asked()
    found = await measure_first_token(asked, Gateway(asked.asked), PROMPTS[:3], CONFIG)
    assert found.gateway_ms == (250.0,) * 3 and found.verifier_ms == (1000.0,) * 3
    is_gateway = [hasattr(request, "text") for request in asked.asked]
    assert is_gateway == [True, False, False, True, True, False], "who comes first changes"
    salts = [request.cache_salt for request in asked.asked if hasattr(request, "text")]
    assert len(set(salts)) == 3


def test_prompts_come_from_all_over_the_list():
    assert spread(list("abcdefgh"), 4) == ["a", "c", "e", "g"]
    assert spread(list("abc"), 3) == ["a", "b", "c"]
    with pytest.raises(ConfigError, match="--batch 4"):
        spread(list("abc"), 4)


def test_short_prompts_are_beginnings():
    assert shorten("x" * 1000) == "x" * 60 and shorten("short") == "short"


def test_prompts_of_ones_own(tmp_path):
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps([{"text": "def f():"}]))
    assert read_texts(str(file)) == ["def f():"]
    for bad in ("[]", "{}", "[1]", '[{"text": ""}]', '[{"text": 1}]', "nonsense"):
        file.write_text(bad)
        with pytest.raises(ConfigError, match="holds no prompts"):
            read_texts(str(file))


def test_a_service_that_died_makes_figures_worthless():
    journal = Journal(lambda line: None)
    journal.check()
    journal.on_trouble("drafter died (killed by SIGKILL); starts again in 0.5 s")
    with pytest.raises(MeasurementFailed, match="drafter died"):
        journal.check()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--runs=0", "--runs must be at least 1"),
        ("--max-tokens=1", "--max-tokens must be at least 2"),
        ("--temperature=0", "--temperature must be above 0"),
        ("--seed=-1", "--seed cannot be negative"),
        ("--compare=vllm", "--compare must be one of transformers, none"),
        ("--target=/else", "--draft-model is required"),
        ("--prompts=/nowhere.json", "holds no prompts"),
        ("--json=/nowhere/x.json", "--json /nowhere/x.json: No such file"),
    ],
)
def test_bad_settings_are_one_line_and_exit_code_2(option, message, capsys):
    assert main(["bench", option]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tandem bench: error: ") and message in error and error.count("\n") == 1


def test_without_transformers_there_is_a_clear_line(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["bench"]) == 2
    assert "install tandem[bench], or leave it out with --compare none" in capsys.readouterr().err
