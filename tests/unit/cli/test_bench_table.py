"""What `tandem bench` shows, from results made by hand."""

import json
from dataclasses import replace

import pytest

from tandem.cli.bench.acceptance import Acceptance
from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.goal import Goal
from tandem.cli.bench.goals import goals
from tandem.cli.bench.latency import FirstToken
from tandem.cli.bench.machine import Machine, describe_machine
from tandem.cli.bench.results import Results
from tandem.cli.bench.stream import Sample
from tandem.cli.bench.table import render
from tandem.cli.bench.throughput import How, Measured, Throughput


def measured(how, batch, tokens_per_second):
    figures = Throughput(tokens_per_second, 2 * tokens_per_second, 12.5, 3.25)
    return Measured(how, batch, (figures,), ((Sample(128, 40, 0.01, 1.0),),))


RESULTS = Results(
    config=BenchConfig(),
    machine=Machine("A Processor", 2, 24 << 30, 0.1, 2, {"tandem": "0.1.0", "torch": "2.13.0"}),
    num_prompts=8,
    throughput=(
        measured(How.SPLIT, 1, 100.0),
        measured(How.PLAIN, 1, 50.0),
        measured(How.ASSISTED, 1, 80.0),
        measured(How.SPLIT, 8, 300.0),
    ),
    equal_texts={How.PLAIN: 8, How.ASSISTED: 7},
    acceptance=(
        Acceptance(0.0, 3.1, (2.5, 3.5, 4.5), (0.8, 0.6, 0.5, 0.4), 1000, 0, 0),
        Acceptance(0.8, 2.6, (2.0, 3.0), (0.7, 0.5, 0.4, 0.3), 1000, 3, 2),
    ),
    first_token=FirstToken((10.0, 11.0, 12.0), (14.0, 15.0, 16.0)),
    seconds=200.0,
)


def line_of(text, beginning):
    (line,) = [line for line in text.splitlines() if line.startswith(beginning)]
    return " ".join(line.split())


def test_ratios_stand_beside_their_goals():
    shown = render(RESULTS)
    assert line_of(shown, "with drafter / without, batch 1") == "with drafter / without, batch 1 2.00x >= 1.5x reached"
    assert line_of(shown, "with drafter / transformers").endswith("1.25x >= 2x not reached")
    assert line_of(shown, "batch 8 / batch 1").endswith("3.00x >= 2.5x reached")
    assert line_of(shown, "gateway adds").endswith("4.00 ms <= 5 ms reached")
    assert line_of(shown, "acceptance length, T = 0,").endswith("3.50 >= 3 reached")
    assert line_of(shown, "acceptance length, T = 0.8") == "acceptance length, T = 0.8, mean of prompts 2.50"


def test_what_was_not_measured_is_said():
    shown = render(replace(RESULTS, throughput=(measured(How.SPLIT, 1, 100.0),), acceptance=(), first_token=None))
    assert line_of(shown, "with drafter / without, batch 1").endswith("- >= 1.5x not measured")
    assert line_of(shown, "gateway adds").endswith("- <= 5 ms not measured")
    assert "Time to the first token" not in shown and "Acceptance length" not in shown


def test_the_head_names_machine_and_versions():
    head = render(RESULTS).splitlines()[:3]
    assert head[0] == "A Processor, 2 cores, 24.0 GiB"
    assert head[1] == "tandem 0.1.0, torch 2.13.0"
    assert "2 torch threads, K = 4, medians of 3 runs, 200 s" in head[2]


@pytest.mark.parametrize(("load", "is_told"), [(None, False), (0.4, False), (2.0, True)])
def test_a_busy_machine_is_told(load, is_told):
    shown = render(replace(RESULTS, machine=replace(RESULTS.machine, load=load, memory_bytes=None)))
    assert ("Other work was running" in shown) == is_told


def test_rows():
    shown = render(RESULTS)
    assert line_of(shown, "batch 1, with drafter") == "batch 1, with drafter 100.0 200.0 12.5 3.25"
    assert line_of(shown, "T = 0, 3 prompts").endswith("3.10 3.50 3.50 2.50 0.80 0.60 0.50 0.40")
    assert line_of(shown, "through the gateway").endswith("15.00 ms 16.00 ms")
    assert "Same tokens transformers, assisted as with drafter: 7 of 8 texts" in shown
    assert line_of(shown, "T = 0.8: ") == "T = 0.8: 2 more texts ended with their first token"
    assert "3 of 2000 rounds had no drafts in time" in shown


def test_json_holds_samples_and_medians():
    figures = json.loads(RESULTS.to_json())
    first = figures["throughput"][0]
    assert (first["how"], first["batch"], first["medians"]["tokens_per_second"]) == ("with drafter", 1, 100.0)
    assert first["samples"][0][0]["num_rounds"] == 40
    assert figures["equal_texts"] == {"without drafter": 8, "transformers, assisted": 7}
    assert figures["first_token"]["gateway_ms"] == [14.0, 15.0, 16.0]
    assert figures["config"]["num_speculative_tokens"] == 4 and figures["machine"]["num_cores"] == 2


@pytest.mark.parametrize(
    ("value", "bound", "is_upper_bound", "expected"),
    [
        (1.5, 1.5, False, True),
        (1.49, 1.5, False, False),
        (5.0, 5.0, True, True),
        (5.1, 5.0, True, False),
        (None, 5.0, True, None),
        (5.0, None, False, None),
    ],
)
def test_a_goal_is_reached_at_its_bound(value, bound, is_upper_bound, expected):
    assert Goal("x", value, "", bound, is_upper_bound).is_reached is expected


def test_every_goal_has_a_name_of_its_own():
    names = [goal.name for goal in goals(RESULTS)]
    assert len(set(names)) == len(names)


def test_this_machine_can_be_described():
    machine = describe_machine(threads=3)
    assert machine.processor and machine.num_cores >= 1 and machine.num_threads == 3
    assert set(machine.versions) == {"tandem", "Python", "torch", "grpcio", "transformers"}
