"""`tandem up`: three processes that become ready, outlive each other's deaths, and go without a trace."""

import os
import re
import signal
import time

import pytest

from tests.checkpoints import make_tiny_pair
from tests.e2e.conftest import NOT_SERVING, SERVICES, SERVING, is_alive, tandem, wait_until

FIGURES = (
    r"rounds \d+, drafted (?P<drafted>\d+), accepted \d+, acceptance length [\d.]+, tokens (?P<tokens>\d+), "
    r"[\d.]+ tokens/s, first token after \d+ ms\n"
)


def figures(err):
    """The line that `tandem generate` ends with."""
    match = re.fullmatch(FIGURES, err)
    assert match, err
    return {name: int(text) for name, text in match.groupdict().items()}


def test_each_service_is_a_ready_process_and_text_comes_out(up):
    address = up.address
    for service in SERVICES:
        assert is_alive(up.pid(service))
        assert os.getsid(up.pid(service)) == up.pid(service), "Ctrl-C on a terminal must not reach it"
    assert up.health() == SERVING
    assert re.search(r"^verifier \| \S+Z INFO    KV cache: ", up.output, re.MULTILINE), "logs are forwarded"
    code, out, err = tandem("generate", f"--server={address}", "--max-tokens=20", "--seed=3", "def hello")
    assert code == 0 and len(out) > 10
    assert figures(err)["drafted"] > 0


def test_the_text_is_the_same_without_drafts(up):
    options = ("--max-tokens=20", "--seed=3", "--ignore-eos", "def hello")
    code, drafted, err = up.generate(*options)
    assert code == 0 and figures(err)["tokens"] == 20
    code, plain, err = up.generate("--num-speculative-tokens=0", *options)
    assert code == 0 and figures(err) == {"drafted": 0, "tokens": 20}
    assert drafted == plain


def test_a_killed_drafter_comes_back_and_speculation_with_it(up):
    options = ("--max-tokens=40", "--temperature=0", "--ignore-eos", "def hello")
    _, before, _ = up.generate(*options)
    running = up.start_long("--temperature=0")
    os.kill(up.pid("drafter"), signal.SIGKILL)
    up.wait_for(r"^drafter died \(killed by SIGKILL\); starts again in 0.5 s$")
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0 and figures(err)["tokens"] == 500, "no request ends with it"
    up.wait_for(r"^drafter is ready ", count=2)
    up.wait_for(r"^drafter +\| .* verifier attached", count=2)
    code, after, err = up.generate(*options)
    assert code == 0 and after == before and figures(err)["drafted"] > 0


def test_a_killed_verifier_ends_its_streams_and_comes_back(up):
    running = up.start_long("--num-speculative-tokens=0")
    os.kill(up.pid("verifier"), signal.SIGKILL)
    out, err = running.communicate(timeout=20)
    assert running.returncode == 1
    assert err.startswith("tandem generate: error: UNAVAILABLE: ") and err.count("\n") == 1
    assert up.health() == NOT_SERVING
    code, _, err = up.generate("def hello")
    assert code == 1 and "UNAVAILABLE" in err
    up.wait_for(r"^verifier is ready ", count=2)
    wait_until(lambda: up.health() == SERVING)
    up.wait_for(r"^drafter +\| .* verifier attached", count=3)
    code, _, err = up.generate("--max-tokens=20", "--ignore-eos", "def hello")
    assert code == 0 and figures(err)["drafted"] > 0


def test_ctrl_c_lets_requests_finish_and_leaves_nothing(start_up, pair):
    up = start_up(*pair)
    address, pids = up.address, [up.pid(service) for service in SERVICES]
    running = up.start_long()
    up.process.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 0 and figures(err)["tokens"] == 500
    assert up.wait() == 0
    assert not any(is_alive(pid) for pid in pids)
    assert not list(up.directory.iterdir())
    stopped = [up.output.index(f"{service:<8} | ", up.output.index("\nstopping")) for service in reversed(SERVICES)]
    assert stopped == sorted(stopped), "from the outside in"
    code, _, err = tandem("generate", f"--server={address}", "def hello")
    assert code == 1 and "no gateway answers" in err


def test_ctrl_c_twice_waits_for_nobody(start_up, pair):
    up = start_up("--drafter=inprocess", *pair)
    pids = [up.pid("verifier"), up.pid("gateway")]
    running = up.start_long()
    up.process.send_signal(signal.SIGINT)
    up.wait_for("^stopping")
    up.process.send_signal(signal.SIGINT)
    asked_at = time.monotonic()
    assert up.wait() == 0 and time.monotonic() - asked_at < 5
    _, err = running.communicate(timeout=20)
    assert running.returncode == 1 and "UNAVAILABLE" in err
    assert not any(is_alive(pid) for pid in pids) and not list(up.directory.iterdir())


def test_no_service_outlives_a_killed_parent(start_up, pair):
    up = start_up("--drafter=none", pair[0])
    pids = [up.pid("verifier"), up.pid("gateway")]
    assert up.address
    up.process.kill()
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_stopping_while_it_loads(start_up, pair):
    up = start_up(*pair)
    up.wait_for(r"^gateway +\| .*gateway ready on")
    up.process.send_signal(signal.SIGTERM)
    assert up.wait() == 0
    assert not list(up.directory.iterdir())


@pytest.mark.parametrize("drafter", ["split", "none"])
def test_a_wrong_path_is_one_line_and_exit_code_2(start_up, drafter):
    up = start_up("--target=/nowhere", "--draft-model=/nowhere", f"--drafter={drafter}")
    assert up.wait() == 2
    errors = [line for line in up.output.splitlines() if "error:" in line]
    assert len(errors) == 1 and errors[0].startswith("tandem up: error: /nowhere")
    assert "Traceback" not in up.output and "is ready" not in up.output


def test_a_drafter_that_does_not_fit_is_one_line_and_exit_code_2(start_up, pair, tmp_path):
    _, other = make_tiny_pair(tmp_path, vocab_size=512, hidden_size=48)
    up = start_up(pair[0], f"--draft-model={other}")
    assert up.wait() == 2
    errors = [line for line in up.output.splitlines() if "error:" in line]
    assert len(errors) == 1 and "48" in errors[0]
    assert not list(up.directory.iterdir())


def test_a_taken_port_is_one_line_and_exit_code_2(up, pair):
    code, out, err = tandem("up", f"--listen={up.address}", *pair)
    assert (code, out) == (2, "")
    assert err == f"tandem up: error: cannot listen on {up.address}: Address already in use\n"


def test_the_demo_shows_equal_texts():
    code, out, err = tandem("demo", timeout=100)
    assert code == 0, err
    assert "texts were equal" in out and out.count("with drafter") == out.count("without") == 2
