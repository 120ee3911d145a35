import pytest

from tests.checkpoints import make_tiny_pair
from tests.engines import load_tiny_target


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    return make_tiny_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="session")
def target(pair):
    return load_tiny_target(pair)
