import logging
import os
import re
import subprocess
import sys

import pytest

from tandem import __version__
from tandem.cli.main import COMMANDS, main, run_command
from tandem.core.errors import ConfigError, InvalidRequest


def python(code, **environment):
    """Runs a line of Python in a fresh interpreter; returns what it printed."""
    given = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment}
    given["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=given)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^    {name}\s", shown, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: tandem {name} " in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"tandem {__version__}\n"


@pytest.mark.parametrize("argv", [[], ["nope"], ["--nope"], ["gateway", "--nope"], ["gateway", "more"]])
def test_bad_usage_is_one_line_and_exit_code_2(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_bad_setting_is_one_line_and_exit_code_2(capsys):
    assert main(["gateway", "--tokenizer=/x", "--drain-seconds=soon"]) == 2
    assert capsys.readouterr().err == "tandem gateway: error: --drain-seconds must be float, not 'soon'\n"


def test_an_unknown_variable_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("TANDEM_LISTN", "127.0.0.1:1")
    assert main(["gateway", "--tokenizer=/x"]) == 2
    assert "TANDEM_LISTN" in capsys.readouterr().err


@pytest.fixture
def kept_logging():
    """A command that serves sets up the log of its process; here that is the tests'."""
    root, tandem = logging.getLogger(), logging.getLogger("tandem")
    handlers, levels = root.handlers[:], (root.level, tandem.level)
    root.handlers[:] = []  # those of pytest are not ours to close
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    tandem.setLevel(levels[1])


def test_a_path_that_does_not_exist_is_exit_code_2(kept_logging, capsys, tmp_path):
    assert main(["gateway", f"--tokenizer={tmp_path}/none", "--log-level=error"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("tandem gateway: error: ") and shown.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("no\nsuch model"), 2, "tandem x: error: no such model\n"),
        (InvalidRequest("spec.text", "is empty"), 1, "tandem x: error: spec.text: is empty\n"),
        (RuntimeError("odd"), 1, "tandem x: error: RuntimeError: odd\n"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            2,
            "tandem x: error: torch is not installed; the extras 'gateway' and 'engine' bring all\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(error, code, line, capsys):
    def run():
        raise error

    assert run_command("tandem x", run) == code
    assert capsys.readouterr().err == line


def test_a_reader_that_leaves_is_no_crash():
    script = "import sys; from tandem.cli.main import run_command\ndef run():\n while True: print('x' * 9999)\n"
    done = subprocess.run(
        f"{sys.executable} -c \"{script}\nsys.exit(run_command('x', run))\" | head -c 1",
        shell=True,
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stdout == b"x" and not done.stderr


def test_help_is_instant():
    code = """
import sys
from tandem.cli.main import main
try:
    main(["--help"])
except SystemExit:
    print(sorted({"torch", "numpy", "grpc", "google.protobuf", "asyncio"} & set(sys.modules)), file=sys.stderr)
    sys.exit(len({"torch", "numpy", "grpc", "google.protobuf"} & set(sys.modules)))
"""
    assert "tandem" in python(code)


@pytest.mark.parametrize("name", ["gateway", "generate", "chat", "up", "demo", "doctor", "lookup-drafter"])
def test_what_needs_no_torch_loads_none(name):
    code = f"""
import sys
from tandem.cli.main import main
try:
    main([{name!r}, "--help"])
except SystemExit:
    import tandem.gateway.service
    sys.exit(len({{"torch", "numpy", "transformers"}} & set(sys.modules)))
"""
    assert "usage" in python(code)


def test_grpc_is_quiet_unless_the_user_wants_it(monkeypatch):
    code = "import os\nfrom tandem.cli.main import main\nmain(['gateway'])\nprint(os.environ['GRPC_VERBOSITY'])"
    assert python(code) == "ERROR\n"
    assert python(code, GRPC_VERBOSITY="DEBUG") == "DEBUG\n"
