"""Training of the target: next-token loss over the corpus, for a given time."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training import batches
from training.network import Target, build_masks
from training.optimizer import Optimizer, schedule


@dataclass(frozen=True)
class Plan:
    """How much a step reads and how long a stage lasts."""

    seconds: float
    sequences: int  # a step
    length: int  # tokens a sequence
    matrix_rate: float
    adam_rate: float
    warm_steps: int = 200
    seed: int = 0


def train(target: Target, tokens: Tensor, plan: Plan, say: Callable[[str], None]) -> int:
    """Train `target` on flat `tokens` until the plan's time is over; returns the number of tokens read."""
    device = tokens.device
    on_gpu = device.type == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    masks = build_masks(plan.length, target.shape.window, device, blocks=on_gpu)
    loss_of = torch.compile(next_token_loss, dynamic=False) if on_gpu else next_token_loss
    optimizer = Optimizer(target, plan.matrix_rate, plan.adam_rate)
    started, losses = 0.0, 0.0
    done = 0.0
    step = 0
    for batch in batches.rows(tokens, plan.sequences, plan.length + 1, plan.seed):
        hidden, _ = target(batch[:, :-1], masks, dtype)
        loss = loss_of(target, hidden, batch[:, 1:])
        loss.backward()
        optimizer.step(schedule(done, (step + 1) / plan.warm_steps))
        losses = losses + loss.detach()
        step += 1
        if step == 1:
            loss.item()
            started = time.monotonic()  # compiling is not training
        done = (time.monotonic() - started) / plan.seconds
        if step % 10 == 0:
            mean = float(losses) / 10  # also keeps the host from running ahead of the device and its clock
            losses = 0.0
            if step % 100 == 0:
                rate = (step - 1) * plan.sequences * plan.length / (time.monotonic() - started)
                say(f"target step {step} loss {mean:.3f} time {done:.2f} tokens/s {rate:,.0f}")
        if done >= 1.0:
            break
    return step * plan.sequences * plan.length


@torch.no_grad()
def held_out_loss(target: Target, tokens: Tensor, length: int = 1024) -> float:
    """Mean loss in nats a token over flat held-out `tokens`, in consecutive windows of `length`."""
    device = tokens.device
    masks = build_masks(length, target.shape.window, device, blocks=False)
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
