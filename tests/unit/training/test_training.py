"""The training code on networks of a few thousand parameters."""

from itertools import count
from types import SimpleNamespace

import pytest
import torch

from tandem.models.gemma4.attention_config import FULL, SLIDING
from training import batches, drafter_training, evaluation, refining, target_training
from training.acceleration import Accelerator
from training.network import Drafter, Target, build_masks
from training.optimizer import schedule
from training.shapes import Shape
from training.target_training import Plan

SMALL = {"vocabulary": 64, "heads": 2, "kv_heads": 1, "head_size": 8, "global_head_size": 16, "window": 8}
TARGET = Shape(hidden=16, layers=4, intermediate=32, full_every=2, softcap=30.0, **SMALL)
DRAFTER = Shape(hidden=16, layers=2, intermediate=32, full_every=2, softcap=None, **SMALL)


def silent(_line):
    pass


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time passes by being asked for, so that a stage's length does not depend on the machine."""
    for module in (target_training, drafter_training, refining):
        ticks = count()
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda ticks=ticks: next(ticks)))


def plan(ends):
    return Plan(ends, sequences=4, length=32, matrix_rate=0.02, adam_rate=0.02, warm_steps=5)


def machine():
    accelerator = Accelerator()
    accelerator.device, accelerator.is_compiled, accelerator.dtype = torch.device("cpu"), False, torch.float32
    return accelerator


def counting(length):
    return (torch.arange(length) % 40 + 10).short()


def test_a_target_and_its_drafter_learn_to_count():
    torch.manual_seed(0)
    target, drafter, tokens = Target(TARGET), Drafter(DRAFTER, TARGET.hidden), counting(4000)
    outcome = target_training.train(target, tokens, plan(240), machine(), silent)
    assert outcome.steps > 0 and outcome.tokens == outcome.steps * 4 * 32
    assert target_training.held_out_loss(target, counting(257), length=64) < 1.5

    target.requires_grad_(False)
    drafter_training.train(target, drafter, tokens, plan(700), machine(), lambda: None, silent)
    texts = evaluation.continue_prompts(target, [list(range(12, 20)), list(range(20, 25))], 24, None)
    found = evaluation.measure(target, drafter, texts, 4, None)
    assert 1.3 < found.mean <= 5.0


def test_refining_drafts_as_training_does(monkeypatch):
    monkeypatch.setattr(refining, "PROMPT", 6)
    monkeypatch.setattr(refining, "_TOP", 64)
    torch.manual_seed(2)
    target, drafter = Target(TARGET).requires_grad_(False), Drafter(DRAFTER, TARGET.hidden)
    (lesson,) = refining.write_lessons(target, counting(100), 4, plan(float("inf")), machine(), silent)
    assert lesson.tokens.shape == (4, 32) and lesson.rows.shape[1] == 32 - 6 + 1
    tokens = lesson.tokens
    cpu = torch.device("cpu")
    rows, kvs = target(tokens, build_masks(32, TARGET.window, cpu, False), torch.float32)
    masks = build_masks(32, TARGET.window - 1, cpu, False)
    scores = target.logits(rows)
    for step, loss in enumerate(refining.draft_losses(target, drafter, lesson)[:1]):
        normed, rows = drafter(target.embed(tokens.roll(-1 - step, 1), torch.float32), rows, target.shared(kvs), masks)
        part = drafter_training.draft_loss(drafter, normed, scores.roll(-1 - step, 1), torch.ones(4, 32))
        outside = torch.ones(4, 32)
        outside[:, 5 : 31 - step] = 0.0
        part -= drafter_training.draft_loss(drafter, normed, scores.roll(-1 - step, 1), outside)
        torch.testing.assert_close(loss, part / (4 * (26 - step)))
    refining.train(target, drafter, [lesson], plan(300), lambda: None, silent)
    assert refining.draft_losses(target, drafter, lesson)[0] < 0.8 * loss


def test_writing_token_by_token_equals_reading_the_whole_text():
    torch.manual_seed(1)
    target = Target(TARGET)
    texts = evaluation.continue_prompts(target, [[7, 8, 9], [1, 2, 3, 4]], 20, None)
    rows, _ = target(
        texts.tokens, build_masks(texts.tokens.shape[1], TARGET.window, torch.device("cpu"), False), torch.float32
    )
    best = target.logits(rows).argmax(-1)
    for row, start in enumerate(texts.starts):
        assert texts.tokens[row, start : start + 20].tolist() == best[row, start - 1 : start + 19].tolist()


def test_a_drafter_that_always_agrees_is_accepted_whole(monkeypatch):
    tokens = torch.arange(40)[None, :].repeat(2, 1) + 6
    drafts = torch.stack([tokens.roll(-2 - step, dims=1) for step in range(4)], dim=-1)
    monkeypatch.setattr(evaluation, "_draft_everywhere", lambda *_: drafts)
    found = evaluation.measure(None, None, evaluation.Continuations(tokens, [8, 12], 21), 4, None)
    assert found.lengths == [5.0, 5.0] and found.by_place == [1.0] * 4


def test_an_epoch_of_rows_repeats_no_token():
    rows = batches.rows(torch.arange(1000, dtype=torch.int16), count=3, length=10, seed=0)
    epoch = torch.cat([next(rows) for _ in range(30)]).flatten()
    assert len(epoch.unique()) == len(epoch)


def test_rates_rise_stay_and_fall():
    assert schedule(0.0, 0.1) == 0.1
    assert schedule(0.3, 9.0) == 1.0
    assert schedule(1.0, 9.0) == 0.01


def test_a_failed_compilation_is_told_and_left_behind(monkeypatch):
    monkeypatch.setattr(torch.compiler, "set_stance", lambda _stance: None)
    accelerator, lines = machine(), []
    accelerator.is_compiled = True

    def fails():
        raise RuntimeError("no kernel for this")

    assert not accelerator.settles(fails, lines.append)
    assert "no kernel for this" in lines[0]
    assert set(accelerator.masks(8, 4)) == {True, False}
    assert all(isinstance(mask, torch.Tensor) for mask in accelerator.masks(8, 4).values())


def test_configurations_name_the_kinds_of_layers_as_the_product_does():
    assert set(TARGET.text_config()["layer_types"]) == {SLIDING, FULL}
