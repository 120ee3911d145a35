"""The clients there are. Each has a module beside this one that says how its cases are built and run:

BUILD: commands, run in order from the top of the checkout
CASES: the command to which a case's name is appended
UNIX: whether the language can use Unix sockets
TESTS: commands that run what tests the client has of its own, once it is built
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# By language, what a machine must have to build it. A client is skipped where something is missing.
TOOLS = {
    "python": (),
    "node": ("npm",),
    "go": ("go", "protoc-gen-go-grpc"),
    "java": ("javac", "grpc_java_plugin"),
    "cpp": ("cmake", "g++", "grpc_cpp_plugin"),
}
LANGUAGES = tuple(name for name in TOOLS if Path(__file__).with_name(f"{name}.py").exists())
CASE_SECONDS = 30


class Client:
    """A client whose cases are built and can be run."""

    def __init__(self, language):
        self._module = importlib.import_module(f"tests.clients.{language}")
        self.has_unix = self._module.UNIX
        run_all(self._module.BUILD)

    def run_own_tests(self):
        """Those in the client's own language."""
        run_all(self._module.TESTS)

    def run(self, case, door, **changes):
        """What a case printed."""
        ended = self.start(case, door, **changes)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def start(self, case, door, **changes):
        """A case that ran to its end, well or not; `changes` are to the door's environment, None for nothing."""
        environment = own_environment() | door.environment | changes
        environment = {name: text for name, text in environment.items() if text is not None}
        command = (*self._module.CASES, case)
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=CASE_SECONDS)


def run_all(commands):
    """Runs commands from the top of the checkout; each must end well."""
    for command in commands:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == 0, f"{' '.join(command)}\n{ended.stdout}{ended.stderr}"


def require_tools(language):
    """Skips a test where the language is not installed."""
    for tool in TOOLS[language]:
        if not shutil.which(tool):
            pytest.skip(f"{language} needs {tool}")


def own_environment():
    """This process's, without settings of Tandem."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("TANDEM_")}
    return environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
