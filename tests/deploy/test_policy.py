"""What scanners for bad practice say of manifests and images. What fails is explained here, and nothing else may."""

import json
import re

import pytest
import yaml

from tests.deploy.chart import MODES, NAMESPACE, ROOT, TOOLS, render, run

BIN = TOOLS / "venv" / "bin"
WRONG = "Deployment/wrong"
# Check to which objects it fails for (a regular expression), and why that is right.
EXPLAINED = {
    "CKV_K8S_8": ("Pod/.*-test", "a test runs to its end: nothing has to stay alive"),
    "CKV_K8S_9": ("Pod/.*-test", "nobody sends requests to a test"),
    "CKV_K8S_15": (".*", "images have a version or a digest, so a node that has one need not ask for it again"),
    "CKV_K8S_35": ("Deployment/.*", "the hub's token goes to the container that downloads, as its library reads it"),
    "CKV_K8S_43": (".*", "digests are a release's to know: images.*.digest takes them"),
    "CKV2_K8S_6": ("Pod/.*|Deployment/t-tandem-.*", "policies can be switched off, and a test only calls the gateway"),
    "CKV_DOCKER_2": ("deploy/Dockerfile", "whoever runs the image asks for health over gRPC: probes in the chart"),
    "CKV_DOCKER_7": (
        "deploy/Dockerfile",
        "its bases are arguments with a version each; the scanner sees only their names",
    ),
}


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """(check, object) of all findings: in every mode, in the Dockerfile, and in one object that is wrong."""
    folder = tmp_path_factory.mktemp("scanned")
    wrong = json.loads(json.dumps(render("cpu")["Deployment", "gateway"]))
    wrong["metadata"]["name"] = WRONG.partition("/")[2]
    del wrong["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    (folder / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    for mode in MODES:
        (folder / f"{mode}.yaml").write_text(yaml.safe_dump_all(render(mode).values()))
    files = [f"--file={file}" for file in (*folder.iterdir(), ROOT / "deploy" / "Dockerfile")]
    _, out, err = run(
        BIN / "checkov", "--framework", "kubernetes", "dockerfile", "--skip-download", "--output=json", *files, cwd=ROOT
    )
    reports = json.loads(out)
    assert {report["check_type"] for report in reports} == {"kubernetes", "dockerfile"}, err
    assert all(report["summary"]["passed"] > 30 and not report["summary"]["parsing_errors"] for report in reports)
    failed = set()
    for report in reports:
        for check in report["results"]["failed_checks"]:
            kind, _, name = check["resource"].partition(f".{NAMESPACE}.")
            failed.add((check["check_id"], f"{kind}/{name}" if name else "deploy/Dockerfile"))
    return failed


@pytest.fixture(scope="module")
def failed_checks(scanned):
    """The same without the wrong object."""
    return {(check, object) for check, object in scanned if object != WRONG}


def test_nothing_fails_without_an_explanation(failed_checks):
    unexplained = {
        (check, object)
        for check, object in failed_checks
        if check not in EXPLAINED or not re.fullmatch(EXPLAINED[check][0], object)
    }
    assert not unexplained


def test_nothing_is_explained_that_passes(failed_checks):
    assert EXPLAINED.keys() == {check for check, _ in failed_checks}


def test_the_scanner_finds_a_container_that_may_do_anything(scanned):
    assert {check for check, object in scanned if object == WRONG} >= {"CKV_K8S_20", "CKV_K8S_22", "CKV_K8S_37"}


def test_the_dockerfile_is_clean():
    code, out, err = run(BIN / "hadolint", "--no-color", ROOT / "deploy" / "Dockerfile")
    assert (code, out, err) == (0, "", "")
