"""Dashboards, alert rules and documentation name metrics of the table, and no others."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tandem.telemetry.metric import Kind
from tandem.telemetry.metrics import METRICS

ROOT = Path(__file__).parents[3]
DASHBOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))
RULES = ROOT / "deploy/prometheus/rules.yaml"
PROMTOOL = shutil.which("promtool") or str(ROOT / ".tools/prometheus/usr/bin/promtool")
SERIES = {metric.name for metric in METRICS if metric.kind is not Kind.HISTOGRAM} | {
    f"{metric.name}_{part}"
    for metric in METRICS
    if metric.kind is Kind.HISTOGRAM
    for part in ("bucket", "sum", "count")
}


def named(text):
    return set(re.findall(r"\btandem_[a-z_]+", text))


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards(path):
    panels = json.loads(path.read_text())["panels"]
    assert len(panels) >= 6
    for panel in panels:
        assert panel["targets"] and panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            assert named(target["expr"]) and named(target["expr"]) <= SERIES, panel["title"]


def test_there_are_three_dashboards():
    assert [path.stem for path in DASHBOARDS] == ["gpu-kv", "service", "speculation"]


def test_rules_name_metrics_of_the_table():
    expressions = re.sub(r"\balert: \w+|^ *#.*$", "", RULES.read_text(), flags=re.MULTILINE)
    assert len(named(expressions)) > 8 and named(expressions) <= SERIES


@pytest.mark.skipif(not os.access(PROMTOOL, os.X_OK), reason="needs promtool: make test-telemetry")
def test_rules_fire_when_they_should():
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(RULES.with_name("rules_test.yaml"))]):
        done = subprocess.run([PROMTOOL, *command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_documentation_has_the_whole_table():
    rows = re.findall(
        r"^\| `(tandem_[a-z_]+)` \| (\w+) \| ([a-z, ]+) \|", (ROOT / "docs/telemetry.md").read_text(), re.M
    )
    assert rows == [(metric.name, metric.kind.value, ", ".join(metric.services)) for metric in METRICS]
