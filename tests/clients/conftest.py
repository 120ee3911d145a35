"""One replica for all tests of a process, and each client built once."""

import pytest

from tests.clients.replica import Replica
from tests.clients.table import LANGUAGES, Client, require_tools

FIRST_ANSWER = "first-answer"  # property of a test that followed a README: how long that took


def pytest_terminal_summary(terminalreporter):
    """Prints what the READMEs promise."""
    reports = terminalreporter.stats.get("passed", [])
    times = [text for report in reports for name, text in report.user_properties if name == FIRST_ANSWER]
    if times:
        terminalreporter.write_line(f"from a README's first command to a streamed answer: {', '.join(times)}")


@pytest.fixture(scope="session")
def replica(tmp_path_factory):
    replica = Replica(tmp_path_factory.mktemp("replica"))
    yield replica
    replica.close()


@pytest.fixture(scope="session", params=LANGUAGES)
def client(request):
    require_tools(request.param)
    return Client(request.param)
