import pytest
import torch

from tests.checkpoints import make_tiny_pair
from tests.engines import load_tiny_target


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    return make_tiny_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="session")
def target(pair):
    return load_tiny_target(pair)
