"""`tandem up` on a pair that lies on a hub."""

import pytest

from tests.e2e.conftest import tandem
from tests.hub import COMMIT, Hub


@pytest.fixture
def pinned_pair(pair, tmp_path, monkeypatch):
    """Options that name the tiny pair on a hub of our own."""
    target, drafter = (option.partition("=")[2] for option in pair)
    with Hub({"org/target": target, "org/drafter": drafter}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        yield f"--target=org/target@{COMMIT}", f"--draft-model=org/drafter@{COMMIT}"


def test_all_services_find_their_files_on_the_hub(up, start_up, pinned_pair):
    options = ("--max-tokens=20", "--temperature=0", "--ignore-eos", "def hello")
    _, expected, _ = up.generate(*options)
    from_hub = start_up(*pinned_pair)
    assert from_hub.generate(*options)[:2] == (0, expected)
    code, out, _ = tandem("doctor", f"--server={from_hub.address}", *pinned_pair)
    assert code == 0 and f"ok    models         org/target@{COMMIT}: fetched from the hub when it is first" in out
    assert "org/target, float32" in out and "org/drafter, K = 4" in out


def test_a_repository_that_is_not_pinned_is_one_line(start_up):
    up = start_up("--target=org/target", "--drafter=none")
    assert up.wait() == 2
    assert "org/target: there is no such folder; pin a repository of the hub to one, org/target@" in up.output
