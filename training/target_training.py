"""Training of the target: next-token loss over the corpus, until a given time."""

import time
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from training import batches
from training.acceleration import Accelerator, Say
from training.network import Target, build_masks
from training.optimizer import Optimizer, schedule

PLAIN_SHARE = 4  # without compiled kernels a step needs so much more memory, so it reads that much less


@dataclass(frozen=True)
class Plan:
    """How much a step reads and when a stage ends."""

    ends: float  # on time.monotonic()'s clock
    sequences: int  # a step
    length: int  # tokens a sequence
    matrix_rate: float
    adam_rate: float
    warm_steps: int = 200
    seed: int = 0

    def done(self, started: float) -> float:
        """Share of the stage's time that is over, 1 at its end."""
        now = time.monotonic()
        return 1.0 if now >= self.ends else (now - started) / (self.ends - started)

    def slower(self) -> "Plan":
        """The same with small steps, for a network that only needs a finish."""
        return replace(self, matrix_rate=0.3 * self.matrix_rate, adam_rate=0.3 * self.adam_rate, warm_steps=20)

    def without_compiling(self) -> "Plan":
        """The same with smaller steps."""
        return replace(self, sequences=max(1, self.sequences // PLAIN_SHARE))


@dataclass(frozen=True)
class Outcome:
    """What a stage did."""

    steps: int
    tokens: int  # read, each as often as it was
    seconds: float  # of training, without compiling


def train(target: Target, tokens: Tensor, plan: Plan, machine: Accelerator, say: Say) -> Outcome:
    """Train `target` on flat `tokens` until the plan's end."""
    machine.compile_layers(target.model.layers)
    loss_of = machine.compiled(next_token_loss)
    masks = machine.masks(plan.length, target.shape.window)

    def backward(batch: Tensor) -> Tensor:
        hidden, _ = target(batch[:, :-1], masks, machine.dtype)
        loss = loss_of(target, hidden, batch[:, 1:])
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    first = next(batches.rows(tokens, plan.sequences, plan.length + 1, plan.seed))
    if not machine.settles(lambda: backward(first), say):
        plan, masks = plan.without_compiling(), machine.masks(plan.length, target.shape.window)
    target.zero_grad(set_to_none=True)
    optimizer = Optimizer(target, plan.matrix_rate, plan.adam_rate)
    say(f"target: training starts, {plan.sequences} x {plan.length} tokens a step")
    started, losses, step = time.monotonic(), torch.zeros((), device=machine.device), 0
    for batch in batches.rows(tokens, plan.sequences, plan.length + 1, plan.seed):
        losses += backward(batch)
        optimizer.step(schedule(plan.done(started), (step + 1) / plan.warm_steps))
        step += 1
        if step % 10 == 0:
            mean = float(losses) / 10  # also keeps the host from running ahead of the device and its clock
            losses.zero_()
            if step % 100 == 0:
                rate = step * plan.sequences * plan.length / (time.monotonic() - started)
                say(f"target step {step} loss {mean:.3f} time {plan.done(started):.2f} tokens/s {rate:,.0f}")
        if plan.done(started) >= 1.0:
            break
    return Outcome(step, step * plan.sequences * plan.length, time.monotonic() - started)


@torch.no_grad()
def held_out_loss(target: Target, tokens: Tensor, length: int = 1024) -> float:
    """Mean loss in nats a token over flat held-out `tokens`, in consecutive windows of `length`."""
    masks = build_masks(length, target.shape.window, tokens.device, blocks=False)
    windows = tokens[: (len(tokens) - 1) // length * length + 1].long()
    total, count = 0.0, 0
    for start in range(0, len(windows) - 1, length * 8):
        piece = windows[start : start + length * 8 + 1]
        inputs, labels = piece[:-1].view(-1, length), piece[1:].view(-1, length)
        hidden, _ = target(inputs, masks, torch.float32)
        total += float(next_token_loss(target, hidden, labels)) * labels.numel()
        count += labels.numel()
    return total / count


def next_token_loss(target: Target, hidden: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of labels [B, T] under the rows hidden [B, T, C]."""
    return F.cross_entropy(target.logits(hidden).flatten(0, 1), labels.flatten())
