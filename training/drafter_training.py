"""Training of the drafter: several draft steps unrolled at every position of a sequence at once.

Step 0 of query i takes token i + 1 and the target's row i; each later step takes the next token of the text and the
drafter's own projected row. All steps of a query keep its position and its view of the target's keys and values.
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from training import batches
from training.acceleration import Accelerator, Say
from training.network import Drafter, KeysValues, Mask, Target
from training.optimizer import Optimizer, schedule
from training.target_training import Outcome, Plan

Save = Callable[[], None]

STEPS = 5  # unrolled draft steps
_SAVE_SECONDS = 20.0
FADE = 0.8  # weight of a step against the one before it
OFF_POLICY = 0.2  # weight once the text has left the target's argmax: such drafts matter under sampling only
HARD = 0.5  # share of the argmax in the loss; the rest is the target's whole distribution


def train(
    target: Target,
    drafter: Drafter,
    tokens: Tensor,
    plan: Plan,
    machine: Accelerator,
    save: Save,
    say: Say,
) -> Outcome:
    """Train `drafter` against the frozen `target` on flat `tokens` until the plan's end, saving it on the way."""
    machine.compile_layers(target.model.layers)
    machine.compile_layers(drafter.model.layers)
    loss_of = machine.compiled(draft_loss)

    def all_masks() -> tuple[dict[bool, Mask], dict[bool, Mask]]:
        # A drafter's query stands one position after its newest key, so its window holds one key less.
        return machine.masks(plan.length, target.shape.window), machine.masks(plan.length, target.shape.window - 1)

    masks, draft_masks = all_masks()

    def backward(batch: Tensor) -> Tensor:
        with torch.no_grad():
            rows, kvs = target(batch, masks, machine.dtype)
            scores = target.logits(rows).to(machine.dtype)  # [B, T, V]
            shared = target.shared(kvs)
            weights = _weights(batch, scores.argmax(-1))  # [STEPS, B, T]
        parts = torch.stack(_unroll(target, drafter, batch, rows, shared, draft_masks, scores, weights, loss_of))
        parts.sum().backward()  # type: ignore[no-untyped-call]
        return parts.detach()

    first = next(batches.rows(tokens, plan.sequences, plan.length, plan.seed))
    if not machine.settles(lambda: backward(first), say):
        plan = plan.without_compiling()
        masks, draft_masks = all_masks()
    drafter.zero_grad(set_to_none=True)
    optimizer = Optimizer(drafter, plan.matrix_rate, plan.adam_rate)
    say(f"drafter: training starts, {plan.sequences} x {plan.length} positions a step")
    started, losses, step = time.monotonic(), torch.zeros(STEPS, device=machine.device), 0
    saved = started
    for batch in batches.rows(tokens, plan.sequences, plan.length, plan.seed):
        losses += backward(batch)
        optimizer.step(schedule(plan.done(started), (step + 1) / plan.warm_steps))
        step += 1
        if step % 10 == 0:
            values = " ".join(f"{value / 10:.3f}" for value in losses.tolist())
            losses.zero_()
            if step % 100 == 0:
                say(f"drafter step {step} losses {values} time {plan.done(started):.2f}")
        if time.monotonic() - saved > _SAVE_SECONDS:
            save()
            saved = time.monotonic()
        if plan.done(started) >= 1.0:
            break
    return Outcome(step, step * plan.sequences * plan.length, time.monotonic() - started)


def draft_loss(drafter: Drafter, normed: Tensor, scores: Tensor, weights: Tensor) -> Tensor:
    """Weighted loss of one draft step: normed [B, T, c], the target's scores [B, T, V], weights [B, T]."""
    wanted = scores.float()
    logs = F.log_softmax(drafter.logits(normed), dim=-1)
    soft = -(wanted.softmax(-1) * logs).sum(-1)
    hard = -logs.gather(-1, wanted.argmax(-1, keepdim=True)).squeeze(-1)
    return ((HARD * hard + (1.0 - HARD) * soft) * weights).sum()


def _unroll(
    target: Target,
    drafter: Drafter,
    batch: Tensor,
    rows: Tensor,
    shared: dict[bool, KeysValues],
    masks: dict[bool, Mask],
    scores: Tensor,
    weights: Tensor,
    loss_of: Callable[[Drafter, Tensor, Tensor, Tensor], Tensor],
) -> list[Tensor]:
    """The loss of each draft step for batch [B, T]; what wraps round the end has weight 0."""
    embedded = target.embed(batch, rows.dtype).detach()
    parts = []
    for step in range(STEPS):
        normed, rows = drafter(embedded.roll(-1 - step, dims=1), rows, shared, masks)
        parts.append(loss_of(drafter, normed, scores.roll(-1 - step, dims=1), weights[step]))
    return parts


def _weights(batch: Tensor, chosen: Tensor) -> Tensor:
    """Weights [STEPS, B, T], summing to 1 a step before fading, of batch [B, T] and the target's argmax [B, T]."""
    length = batch.shape[1]
    # agrees[:, p]: the token at p is the one that the target would have written there.
    agrees = torch.cat((torch.ones_like(batch[:, :1]), (batch[:, 1:] == chosen[:, :-1]).long()), dim=1)
    on_policy = torch.ones_like(batch)
    weights = []
    for step in range(STEPS):
        if step > 0:
            on_policy = on_policy * agrees.roll(-1 - step, dims=1)
        weight = torch.where(on_policy > 0, 1.0, OFF_POLICY)
        weight[:, length - 1 - step :] = 0.0
        weights.append(weight * (FADE**step / batch.numel()))
    return torch.stack(weights)
