"""The chart as helm renders it, and the tools that look at what comes out."""

import functools
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "tandem"
TOOLS = ROOT / ".tools" / "deploy"
VALUES = Path(__file__).parent / "values"
MODES = sorted(file.stem for file in VALUES.glob("*.yaml"))
HELMS = {"helm 3": TOOLS / "helm3" / "helm" / "helm", "helm 4": TOOLS / "helm4" / "helm" / "helm"}
RELEASE, NAMESPACE = "t", "serving"


def run(*command, **options):
    """Runs a tool to its end: exit code, stdout, stderr."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, **options)
    return ended.returncode, ended.stdout, ended.stderr


def values_file(mode):
    return VALUES / f"{mode}.yaml"


def template(mode, *settings, helm="helm 4"):
    """What helm says to a mode with `--set` settings: exit code, stdout, stderr."""
    arguments = [argument for setting in settings for argument in ("--set", setting)]
    return run(
        HELMS[helm], "template", RELEASE, CHART, f"--namespace={NAMESPACE}", f"--values={values_file(mode)}", *arguments
    )


@functools.cache
def render(mode, *settings, helm="helm 4"):
    """The objects of a mode, by kind and by their name's last word."""
    code, out, err = template(mode, *settings, helm=helm)
    assert code == 0, err
    objects = [object for object in yaml.safe_load_all(out) if object]
    return {(object["kind"], object["metadata"]["name"].rpartition("-")[2]): object for object in objects}


def pod_spec(objects, component):
    """The pods of a component: of the gateway's or the replica's Deployment, or the test's pod itself."""
    if component == "test":
        return objects["Pod", "test"]["spec"]
    return objects["Deployment", component]["spec"]["template"]["spec"]


def containers(pod):
    """Containers of a pod by name, init containers first."""
    return {container["name"]: container for container in pod.get("initContainers", []) + pod["containers"]}


def options(container):
    """A container's arguments as a map; of a flag the value is True."""
    pairs = [argument.removeprefix("--").partition("=") for argument in container["args"]]
    return {name: value if equals else True for name, equals, value in pairs}
