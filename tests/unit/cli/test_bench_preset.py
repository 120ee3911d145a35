"""`tandem bench --preset`: what is measured, the arithmetic of its figures, and what it refuses."""

import json
from dataclasses import replace

import pytest

from tandem.cli.bench.machine import Machine
from tandem.cli.bench.preset.config import PresetConfig
from tandem.cli.bench.preset.figures import Run, Text, run_figures
from tandem.cli.bench.preset.floor import Floor, Floors
from tandem.cli.bench.preset.goals import preset_goals
from tandem.cli.bench.preset.kind import Kind, Way, kinds_of, ways_of
from tandem.cli.bench.preset.markdown import markdown
from tandem.cli.bench.preset.measuring import prompt_ids
from tandem.cli.bench.preset.parts import parts
from tandem.cli.bench.preset.results import Device, Measured, PresetResults
from tandem.cli.bench.preset.shape import find_shape
from tandem.cli.bench.preset.table import render
from tandem.cli.bench.stream import Arrival
from tandem.core.errors import ConfigError

CONFIG = PresetConfig(preset="gemma-4-31b", random_weights=True, acceptance_length=5.37)
SPLIT, INSIDE, PLAIN = (Way(drafter, "dtype", False) for drafter in ("split", "inprocess", "none"))
FP8 = Way("split", "fp8", False)


def text(*ats, started_at=0.0, num_tokens=3):
    """One token at first, then so many with each arrival, of which all but one were drafted."""
    first, *others = ats
    arrivals = (Arrival(first, 1), *(Arrival(at, num_tokens) for at in others))
    return Text(started_at, arrivals, len(others), (num_tokens - 1) * len(others))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"random_weights": False}, "--preset needs --random-weights"),
        ({"acceptance_length": 0.5}, "--acceptance-length"),
        ({"acceptance_length": 9.0}, "--acceptance-length"),
        ({"drafters": "split,lookup"}, "--drafters must list"),
        ({"drafters": ""}, "--drafters must list"),
        ({"weights": "int4"}, "--weights must list"),
        ({"adaptive_k": "yes"}, "--adaptive-k must list"),
        ({"batches": "1,x"}, "--batches must list"),
        ({"batches": "0"}, "--batches must list"),
        ({"prompt_tokens": ""}, "--prompt-tokens must list"),
        ({"max_tokens": 1}, "--max-tokens"),
        ({"runs": 0}, "--runs"),
        ({"temperature": -1.0}, "--temperature"),
    ],
)
def test_settings_that_measure_nothing(settings, complaint):
    with pytest.raises(ConfigError, match=complaint):
        replace(CONFIG, **settings)


def test_a_preset_that_is_none(tmp_path):
    with pytest.raises(ConfigError, match="neither a folder nor one of gemma-4-31b"):
        find_shape("gemma-5")
    with pytest.raises(ConfigError, match="no config.json"):
        find_shape(str(tmp_path))


def test_long_prompts_are_for_batch_1():
    config = replace(CONFIG, batches="1,8", prompt_tokens="512,32768")
    assert kinds_of(config) == [Kind(1, 512, 256), Kind(8, 512, 256), Kind(1, 32768, 256)]


def test_every_way_once():
    config = replace(CONFIG, drafters="split,none", weights="dtype,fp8", adaptive_k="false,true")
    assert [way.name for way in ways_of(config)] == [
        "split",
        "split, adaptive K",
        "none",  # which drafts nothing, however that is decided
        "split, fp8",
        "split, fp8, adaptive K",
        "none, fp8",
    ]


def test_no_two_prompts_are_alike():
    prompts = [tuple(prompt_ids(16, number, 262_144)) for number in range(200)]
    assert len(set(prompts)) == 200 and all(1 <= token_id < 262_144 for prompt in prompts for token_id in prompt)


def test_figures_of_one_text():
    assert run_figures([text(1.5, 2.0, 2.5, started_at=1.0)]) == Run(
        tokens_per_second=6.0,
        whole_tokens_per_second=7 / 1.5,
        ms_per_round=500.0,
        first_token_ms=500.0,
        acceptance_length=3.0,
    )


def test_prompts_of_others_do_not_count_as_rounds():
    """The first text has begun while the second one's prompt is computed, and ends before it."""
    run = run_figures([text(1.0, 3.0, 4.0, 5.0), text(3.0, 4.0, 5.0, 6.0)])
    assert run.tokens_per_second == 12 / 2.0, "between 3.0 and 5.0, both"
    assert run.ms_per_round == 1000.0
    assert run.whole_tokens_per_second == 20 / 6.0 and run.first_token_ms == 2000.0


def test_the_round_in_which_the_first_text_ends_counts_for_none_or_whole():
    """Four texts are sent their tokens one after the other, each second; the first of them ends before the others."""
    texts = [text(*(number / 100 + at for at in range(1, 6 if number == 0 else 9))) for number in range(4)]
    run = run_figures(texts)
    assert run.tokens_per_second == pytest.approx(4 * 3 / 1.0)
    assert run.ms_per_round == pytest.approx(1000.0)


def test_short_texts_that_never_ran_together():
    run = run_figures([text(1.0, 2.0), text(3.0, 4.0)])
    assert run.tokens_per_second == 6 / 3.0


def test_parts_of_a_round():
    written = [text(1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6)]
    profile = {"started_at": 1.05, "ended_at": 1.45, "kernels": [("mm", 0.2, 40)], "waits": {"cudaMemcpy": 2}}
    answers = {"verifier": profile | {"busy_seconds": 0.28}, "drafter": profile | {"busy_seconds": 0.08}}
    found = parts(written, answers)
    assert (found.verifier_ms, found.drafter_ms) == pytest.approx((70.0, 20.0)), "of four rounds"
    assert found.rest_ms == pytest.approx(10.0)
    assert found.waits == {"verifier cudaMemcpy": 0.5, "drafter cudaMemcpy": 0.5}
    assert found.kernels["drafter"] == [("mm", 50.0, 10.0)]


def test_texts_that_ran_together_share_their_rounds():
    written = [text(1.0, 1.1, 1.2, 1.3, 1.4, 1.5), text(1.0, 1.1, 1.2, 1.3, 1.4, 1.5)]
    profile = {"started_at": 1.05, "ended_at": 1.45, "kernels": [], "waits": {}, "busy_seconds": 0.28}
    assert parts(written, {"verifier": profile}).verifier_ms == pytest.approx(70.0)


def test_no_parts_without_kernels_or_rounds():
    profile = {"started_at": 0.0, "ended_at": 9.0, "kernels": [], "waits": {}, "busy_seconds": 1.0}
    assert parts([text(1.0, 1.1, 1.2)], {"verifier": profile}) is None, "too few rounds"
    assert parts([text(1.0, 1.1, 1.2, 1.3)], {"verifier": profile}) is not None
    assert parts([text(1.0, 1.1, 1.2, 1.3)], {"verifier": None}) is None


def test_the_floor_of_31b_is_its_weights_and_what_its_layers_see():
    floors = Floors(find_shape("gemma-4-31b"), CONFIG)
    plain, drafted = floors.of(PLAIN, Kind(1, 512, 256)), floors.of(SPLIT, Kind(1, 512, 256))
    assert plain.target_bytes == drafted.target_bytes == pytest.approx(2 * 30.697e9, rel=1e-3)
    assert plain.draft_bytes == 0 and drafted.draft_bytes == pytest.approx(7 * 2 * 0.46952e9, rel=1e-3)
    sliding, full = 2 * 16 * 256, 2 * 4 * 512  # keys and values of one token in one layer
    assert plain.kv_bytes == 2 * 640 * (50 * sliding + 10 * full)
    assert drafted.kv_bytes == plain.kv_bytes + 7 * 2 * 640 * (3 * sliding + full)
    long = floors.of(PLAIN, Kind(1, 32768, 256))
    assert long.kv_bytes == 2 * (50 * sliding * 1024 + 10 * full * (32768 + 128)), "a window sees no more than itself"
    assert floors.of(PLAIN, Kind(8, 512, 256)).kv_bytes == 8 * plain.kv_bytes
    assert plain.milliseconds(4.29e12) == pytest.approx(14.5, abs=0.1)


def test_fp8_halves_the_projections_and_nothing_else():
    floors = Floors(find_shape("gemma-4-31b"), CONFIG)
    bytes_saved = floors.of(SPLIT, Kind(1, 512, 256)).total_bytes - floors.of(FP8, Kind(1, 512, 256)).total_bytes
    assert bytes_saved == pytest.approx(30.697e9 - 262_144 * 5376, rel=1e-3), "all but the token table"


def test_a_floor_counts_the_experts_that_rows_choose():
    floors = Floors(find_shape("gemma-4-26b-a4b"), CONFIG)
    all_experts = 2 * 30 * 128 * 3 * 2816 * 704
    one_row = floors.of(PLAIN, Kind(1, 512, 256))
    assert one_row.experts_bytes == pytest.approx(all_experts * 8 / 128)
    two_rows = floors.of(PLAIN, Kind(2, 512, 256))
    assert two_rows.experts_bytes == pytest.approx(all_experts * (1 - (120 / 128) ** 2))
    assert two_rows.target_bytes - two_rows.experts_bytes == pytest.approx(one_row.target_bytes - one_row.experts_bytes)
    assert floors.of(PLAIN, Kind(1000, 512, 256)).experts_bytes == pytest.approx(all_experts)


def test_a_floor_counts_no_table_that_is_looked_up():
    """E2B: its per-layer embeddings, and all but a few clusters of the drafter's head."""
    floor = Floors(find_shape("gemma-4-e2b"), CONFIG).of(SPLIT, Kind(1, 512, 256))
    assert floor.target_bytes == pytest.approx(2 * (4.6286e9 - 262_144 * 35 * 256), rel=1e-3)
    looked_into = 262_144 * 256 * 32 / 2048
    assert floor.draft_bytes == pytest.approx(7 * 2 * (77.73e6 - 262_144 * 256 + looked_into), rel=0.02)


def results(*measured, shape="gemma-4-31b"):
    """Figures of (way, batch, prompt, tokens/s, ms a round, ms to the first token)."""
    found = tuple(
        Measured(
            way,
            Kind(batch, prompt_tokens, 256),
            (Run(rate, rate / 2, ms_per_round, first_token_ms, 5.37),),
            Floor(4e9, 0.0, 0.0, 0.0),
            None,
        )
        for way, batch, prompt_tokens, rate, ms_per_round, first_token_ms in measured
    )
    machine = Machine("cpu", 1, None, None, 1, {"torch": "2"})
    return PresetResults(CONFIG, shape, machine, Device("card", 4e12), found, {}, (), 1.0)


def test_goals_are_of_what_was_measured_alone():
    goals = preset_goals(results((SPLIT, 1, 512, 310.0, 17.5, 50.0)))
    assert [(goal.name, goal.is_reached) for goal in goals] == [
        ("tokens/s with MTP, batch 1", True),
        ("first token, prompt 512, batch 1", True),
    ]
    assert preset_goals(results((SPLIT, 1, 512, 310.0, 17.5, 50.0), shape="gemma-4-12b")) == []


def test_goals_that_compare():
    goals = preset_goals(
        results(
            (SPLIT, 1, 512, 300.0, 20.0, 70.0),
            (SPLIT, 8, 512, 2000.0, 20.0, 70.0),
            (INSIDE, 1, 512, 300.0, 19.5, 70.0),
            (INSIDE, 8, 512, 2000.0, 19.5, 70.0),
            (PLAIN, 1, 512, 60.0, 16.0, 70.0),
            (FP8, 1, 512, 480.0, 12.0, 70.0),
            (SPLIT, 1, 32768, 250.0, 26.0, 5000.0),
        )
    )
    assert {goal.name: (round(goal.value, 2), goal.is_reached) for goal in goals} == {
        "tokens/s with MTP, batch 1": (300.0, True),
        "tokens/s with MTP, batch 8": (2000.0, False),
        "tokens/s without speculation, batch 1": (60.0, False),
        "split costs of a round, batch 1": (2.56, True),
        "split costs of a round, batch 8": (2.56, False),
        "ms a round, prompt 32768 / 512, batch 1": (1.3, False),
        "first token, prompt 512, batch 1": (70.0, False),
        "tokens/s, fp8 / bfloat16 weights, batch 1": (1.6, True),
    }


def test_markdown_of_a_json_file():
    found = results((SPLIT, 1, 512, 310.0, 2.0, 50.0), (PLAIN, 8, 512, 480.0, 16.0, 50.0))
    lines = markdown(json.loads(found.to_json(preset_goals(found)))).splitlines()
    assert "| split, batch 1, prompt 512 | 310.0 | 155.0 | 50 ms | 5.37 | 2.00 | 1.00 ms | 50% |" in lines
    assert "| tokens/s with MTP, batch 1 | 310.00 | >= 300 | yes |" in lines
    assert "| tokens/s without speculation, batch 8 | 480.00 | >= 490 | no |" in lines


def test_the_table_shows_how_near_the_floor_a_round_is():
    lines = render(results((SPLIT, 1, 512, 310.0, 2.0, 50.0))).splitlines()
    row = next(line for line in lines if line.startswith("split, batch 1, prompt 512"))
    assert row.split()[-2:] == ["1.00", "50%"]
    assert any(line.startswith("tokens/s with MTP, batch 1") and line.endswith(">= 300 reached") for line in lines)
