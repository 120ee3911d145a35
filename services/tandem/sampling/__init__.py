"""The one place that turns logits into a choice.

The verifier asks it for the target's own token at each row; the drafter asks it the same question about its own
logits, with the same noise at the same position. `sampler.sample` is the choice, `judge.judge` compares the two.
"""
