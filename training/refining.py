"""The drafter's last stage: texts that the target wrote itself, which is what the drafter meets when it serves.

What the target says about its texts is computed once. A draft counts in full while the text so far is the
target's choice.
"""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from training import drafter_training, generation
from training.acceleration import Accelerator, Say
from training.network import Drafter, KeysValues, Mask, Target, build_masks, rotate_tables
from training.optimizer import Optimizer
from training.target_training import Outcome, Plan

PROMPT = 96  # tokens of the corpus that a text begins with
_STEPS = 4  # unrolled draft steps
_TOP = 16  # tokens whose chances are kept; the others together count as one that the drafter cannot name
_SAVE_SECONDS = 60.0


@dataclass(frozen=True)
class Lesson:
    """A batch of texts and what the target says from the last token of their prompts on, at L positions each."""

    tokens: Tensor  # [B, T]
    rows: Tensor  # [B, L, C]
    shared: dict[bool, KeysValues]  # of all T positions
    chances: Tensor  # [B, L, _TOP]
    ids: Tensor  # [B, L, _TOP]; the first of each is the target's choice


def write_lessons(
    target: Target, tokens: Tensor, count: int, plan: Plan, machine: Accelerator, say: Say
) -> list[Lesson]:
    """Let the target continue `count` passages of the corpus `tokens` until there are so many or the plan ends."""
    lessons: list[Lesson] = []
    at_once = 2048 if machine.is_gpu else 128
    for seed, first in enumerate(range(0, count, at_once)):
        rows = min(at_once, count - first)
        try:
            texts = generation.self_written(target, tokens, rows, plan.length, PROMPT, seed, plan.ends)
        except TimeoutError:
            break
        lessons += make_lessons(target, texts.long(), plan.sequences)
        say(f"{first + rows} texts of the target's own")
    return lessons


@torch.no_grad()
def make_lessons(target: Target, texts: Tensor, sequences: int) -> list[Lesson]:
    """Lessons of `sequences` texts each from texts [N, T]."""
    masks = build_masks(texts.shape[1], target.shape.window, texts.device, blocks=False)
    lessons = []
    for tokens in texts.split(sequences):
        rows, kvs = target(tokens, masks, torch.float32)
        rows = rows[:, PROMPT - 1 :]
        chances, ids = target.logits(rows).softmax(-1).topk(_TOP, dim=-1)
        lessons.append(Lesson(tokens, rows.clone(), target.shared(kvs), chances, ids))
    return lessons


def train(
    target: Target, drafter: Drafter, lessons: list[Lesson], plan: Plan, save: drafter_training.Save, say: Say
) -> Outcome:
    """Train `drafter` on the lessons until the plan's end, saving it on the way."""
    generator = torch.Generator().manual_seed(plan.seed)
    optimizer = Optimizer(drafter, plan.matrix_rate, plan.adam_rate)
    started, step, read, losses = time.monotonic(), 0, 0, torch.zeros(_STEPS)
    saved = started
    while plan.done(started) < 1.0:
        lesson = lessons[int(torch.randint(len(lessons), (1,), generator=generator))]
        parts = torch.stack(draft_losses(target, drafter, lesson))
        parts.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step(min(1.0, (step + 1) / plan.warm_steps) * max(0.01, 1.0 - plan.done(started)))
        losses += parts.detach().cpu()
        step += 1
        read += lesson.rows.shape[0] * lesson.rows.shape[1]
        if step % 50 == 0:
            values = " ".join(f"{value / 50:.3f}" for value in losses.tolist())
            losses.zero_()
            say(f"refining step {step} losses {values} time {plan.done(started):.2f}")
        if time.monotonic() - saved > _SAVE_SECONDS:
            save()
            saved = time.monotonic()
    return Outcome(step, read, time.monotonic() - started)


def draft_losses(target: Target, drafter: Drafter, lesson: Lesson) -> list[Tensor]:
    """The loss of each draft step; query i reads row i, of the token at PROMPT - 1 + i, and is fed the one after it."""
    first, length = PROMPT - 1, lesson.rows.shape[1]
    total = lesson.tokens.shape[1]
    device = lesson.tokens.device
    masks = build_masks(total, target.shape.window - 1, device, blocks=False)
    positions = torch.arange(first + 1, total + 1, device=device)
    rotations = rotate_tables(drafter.shape, positions, torch.float32)
    embedded = target.embed(lesson.tokens, torch.float32)
    rows, best = lesson.rows, lesson.ids[..., 0]
    weights = torch.ones_like(best, dtype=torch.float32)  # [B, L]
    losses = []
    for step in range(_STEPS):
        count = length - 1 - step  # queries whose draft the text still holds
        fed = embedded[:, first + 1 + step : first + 1 + step + count]
        cut_masks: dict[bool, Mask] = {full: mask[first : first + count] for full, mask in masks.items()}
        cut_rotations = {full: (cos[:count], sin[:count]) for full, (cos, sin) in rotations.items()}
        normed, rows = drafter.step(fed, rows[:, :count], lesson.shared, cut_masks, cut_rotations)
        if step > 0:  # was the token just fed the target's choice?
            text = lesson.tokens[:, first + 1 + step : first + 1 + step + count]
            agrees = text == best[:, step : step + count]
            weights = torch.where(agrees, weights[:, :count], drafter_training.OFF_POLICY)
        else:
            weights = weights[:, :count]
        wanted = slice(1 + step, 1 + step + count)
        loss = _loss(drafter.logits(normed), lesson.chances[:, wanted], lesson.ids[:, wanted])
        losses.append((loss * weights).mean() * drafter_training.FADE**step)
    return losses


def _loss(scores: Tensor, chances: Tensor, ids: Tensor) -> Tensor:
    """Loss [B, L] of the drafter's scores [B, L, V] against the target's chances of its best tokens `ids`."""
    whole = scores.logsumexp(-1)
    named = scores.gather(-1, ids)
    hard = whole - named[..., 0]
    soft = (chances * (whole.unsqueeze(-1) - named)).sum(-1)
    return drafter_training.HARD * hard + (1.0 - drafter_training.HARD) * soft
