import re
import threading

import pytest

from tandem.telemetry import metrics as table
from tandem.telemetry.metric import Kind
from tandem.telemetry.metrics import METRICS, Metrics


def test_the_table_keeps_to_the_naming_rules():
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names)) > 10
    for metric in METRICS:
        assert re.fullmatch(r"tandem_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert metric.help.endswith(".") and metric.unit
        assert all(re.fullmatch(r"[a-z_]+", label) for label in metric.labels)


def test_counts_by_label_and_over_all_labels():
    metrics = Metrics()
    assert metrics.value(table.SPEC_ACCEPTED_TOKENS) == 0
    metrics.count(table.SPEC_ACCEPTED_TOKENS, 3, position=0)
    metrics.count(table.SPEC_ACCEPTED_TOKENS, position=1)
    metrics.count(table.SPEC_ACCEPTED_TOKENS, position="0")
    assert metrics.value(table.SPEC_ACCEPTED_TOKENS, position=0) == 4
    assert metrics.value(table.SPEC_ACCEPTED_TOKENS, position=7) == 0
    assert metrics.value(table.SPEC_ACCEPTED_TOKENS) == 5


def test_gauges_hold_the_last_value():
    metrics = Metrics()
    metrics.set(table.QUEUED_REQUESTS, 5)
    metrics.set(table.QUEUED_REQUESTS, 2)
    assert metrics.value(table.QUEUED_REQUESTS) == 2


def test_a_snapshot_holds_all():
    metrics = Metrics()
    metrics.count(table.STEPS, 2)
    metrics.set(table.KV_FREE_BLOCKS, 9, group="full_attention")
    assert list(metrics.snapshot()) == [
        (table.STEPS, {}, 2),
        (table.KV_FREE_BLOCKS, {"group": "full_attention"}, 9),
    ]


def test_what_the_table_does_not_say_is_refused():
    metrics = Metrics()
    for misuse in (
        lambda: metrics.count(table.QUEUED_REQUESTS),
        lambda: metrics.set(table.STEPS, 1),
        lambda: metrics.count(table.STEPS, -1),
        lambda: metrics.count(table.STEPS, reason="x"),
        lambda: metrics.count(table.SPEC_FALLBACKS),
        lambda: metrics.value(table.STEPS, reason="x"),
    ):
        with pytest.raises(AssertionError):
            misuse()


def test_threads_lose_no_count():
    metrics = Metrics()

    def count():
        for _ in range(2000):
            metrics.count(table.STEPS)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.value(table.STEPS) == 16_000


def test_a_service_counts_what_is_its_own_from_zero_on():
    metrics = Metrics(table.DRAFTER)
    assert {metric for metric, _, _ in metrics.snapshot()} == {table.DRAFTER_TOKENS}
    with pytest.raises(AssertionError, match="none of drafter's"):
        metrics.count(table.STEPS)
    fallbacks = {
        labels["reason"]: n for m, labels, n in Metrics(table.VERIFIER).snapshot() if m is table.SPEC_FALLBACKS
    }
    assert fallbacks == {"late": 0, "lost": 0, "stale": 0, "invalid": 0}


def test_a_histogram_counts_by_bucket():
    metrics = Metrics()
    for seconds in (0.0001, 0.0002, 5.0):
        metrics.observe(table.VERIFY_SECONDS, seconds)
    ((metric, labels, seen),) = metrics.distributions()
    assert (metric, labels, seen.total) == (table.VERIFY_SECONDS, {}, 5.0003)
    assert seen.counts[:2] == [1, 1] and seen.counts[-1] == 1 and len(seen.counts) == len(metric.bounds) + 1
    with pytest.raises(AssertionError):
        metrics.observe(table.STEPS, 1)
