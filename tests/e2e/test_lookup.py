"""`tandem up --lookup`: a drafter without a model beside the other, and alone."""

import os
import signal

from tests.e2e.test_up import figures

COPY = ("--temperature=0", "--max-tokens=60", "--ignore-eos", "abcdefgh abcdefgh abcdefgh")
ATTACHED = r"^verifier +\| .* drafter lookup attached"


def test_a_killed_lookup_drafter_comes_back_and_its_drafts_with_it(start_up, pair):
    up = start_up("--lookup", "--drafter=none", *pair[:1])
    up.wait_for(ATTACHED)
    code, before, err = up.generate(*COPY)
    assert code == 0 and figures(err)["drafted"] > 0
    running = up.start_long("--temperature=0")
    os.kill(up.pid("lookup-drafter"), signal.SIGKILL)
    up.wait_for(r"^lookup-drafter died \(killed by SIGKILL\); starts again in 0.5 s$")
    _, err = running.communicate(timeout=60)
    assert running.returncode == 0 and figures(err)["tokens"] == 500, "no request ends with it"
    up.wait_for(ATTACHED, count=2)
    code, after, err = up.generate(*COPY)
    assert code == 0 and after == before and figures(err)["drafted"] > 0
    code, plain, err = up.generate("--num-speculative-tokens=0", *COPY)
    assert code == 0 and plain == before and figures(err)["drafted"] == 0


def test_both_drafters_are_attached_and_one_dies_alone(start_up, pair):
    up = start_up("--lookup", *pair)
    up.wait_for(ATTACHED)
    up.wait_for(r"^verifier +\| .* drafter drafter attached")
    _, before, _ = up.generate(*COPY)
    os.kill(up.pid("lookup-drafter"), signal.SIGKILL)
    up.wait_for(r"^verifier +\| .* drafter lookup lost")
    code, after, err = up.generate(*COPY)
    assert code == 0 and after == before and figures(err)["drafted"] > 0
    up.wait_for(ATTACHED, count=2)
    up.process.send_signal(signal.SIGINT)
    assert up.wait() == 0
