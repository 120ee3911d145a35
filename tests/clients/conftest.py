"""One replica for all tests of a process, and each client built once."""

import pytest

from tests.clients.replica import Replica
from tests.clients.table import LANGUAGES, Client, require_tools


@pytest.fixture(scope="session")
def replica(tmp_path_factory):
    replica = Replica(tmp_path_factory.mktemp("replica"))
    yield replica
    replica.close()


@pytest.fixture(scope="session", params=LANGUAGES)
def client(request):
    require_tools(request.param)
    return Client(request.param)
