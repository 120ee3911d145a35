"""How torch and Triton run here, and what a run of the tests says at its end."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported: kernels then run on the CPU

NEAR_TIE = "near-tie"  # property of a test that compared texts: a difference within the number format's rounding


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Test processes share the cores."""
    torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter):
    """Prints how many near-ties the lossless tests met, whatever the count: the rule that allows them asks for it."""
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    # Properties of a test are complete in the last of its three reports.
    ended = [report for report in reports if getattr(report, "when", "") == "teardown" and "lossless" in report.nodeid]
    if ended:
        near_ties = [text for report in ended for name, text in report.user_properties if name == NEAR_TIE]
        terminalreporter.write_line(f"lossless: {len(near_ties)} near-ties among the texts compared")
        for text in near_ties:
            terminalreporter.write_line(f"  {text}")
