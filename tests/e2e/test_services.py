"""Each service by its own command, as they run where nobody supervises them."""

import signal
import subprocess

import pytest

from tests.e2e.conftest import start_tandem, tandem


@pytest.fixture
def start_service():
    """Starts a service; gives its process once its log says that it is ready, and that line."""
    started = []

    def start_service(name, *arguments):
        process = start_tandem(name, *arguments, stdout=subprocess.DEVNULL)
        started.append(process)
        for line in process.stderr:
            if f"{name} ready on" in line:
                return process, line
        raise AssertionError(f"{name} ended with {process.wait()}")

    yield start_service
    for process in started:
        process.kill()
        process.communicate()


def test_three_commands_make_one_tandem_and_end_on_a_signal(start_service, pair, tmp_path):
    target, draft_model = pair
    folder = target.partition("=")[2]
    verifier, drafter = f"unix:{tmp_path}/v.sock", f"unix:{tmp_path}/d.sock"
    processes = [
        start_service("drafter", target, draft_model, f"--listen={drafter}")[0],
        start_service("verifier", target, f"--listen={verifier}", f"--drafter={drafter}", "--threads=1")[0],
    ]
    process, line = start_service("gateway", f"--tokenizer={folder}", f"--verifier={verifier}", "--listen=127.0.0.1:0")
    processes.append(process)
    address = line.split()[-1]
    code, out, err = tandem("generate", f"--server={address}", "--max-tokens=8", "--ignore-eos", "def hello")
    assert code == 0 and "tokens 8," in err
    for process in reversed(processes):
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ("gateway", "--tokenizer=/nowhere"),
        ("verifier", "--target=/nowhere", "--drafter=none"),
        ("drafter", "--target=/nowhere", "--draft-model=/nowhere"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_wrong_path_is_one_line_and_exit_code_2(arguments, tmp_path):
    listen = "127.0.0.1:0" if arguments[0] == "gateway" else f"unix:{tmp_path}/s"
    code, out, err = tandem(*arguments, f"--listen={listen}", "--log-level=warning")
    assert (code, out) == (2, "")
    assert err.startswith(f"tandem {arguments[0]}: error: /nowhere") and err.count("\n") == 1
