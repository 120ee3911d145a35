"""The package stands alone, and beside the server's."""

import os
import subprocess
import sys

import pytest


def run(program):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env=environment)


def test_it_loads_neither_the_server_nor_torch():
    run("import sys, tandem_client; sys.exit(bool({'tandem', 'torch', 'numpy'} & set(sys.modules)))")


OURS = "from tandem_client._proto.tandem.v1 import generation_service_pb2 as ours, generation_service_pb2_grpc"
THEIRS = "from tandem.v1 import generation_service_pb2 as theirs, generation_service_pb2_grpc as _"


@pytest.mark.parametrize("imports", [(OURS, THEIRS), (THEIRS, OURS)])
def test_its_stubs_and_those_of_the_server_live_in_one_process(imports):
    there_and_back = "theirs.GenerateRequest.FromString(ours.GenerateRequest(spec={'text': 'x'}).SerializeToString())"
    run("\n".join([*imports, f"assert {there_and_back}.spec.text == 'x'"]))
