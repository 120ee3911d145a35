"""Which method of a gateway is for whom. What is not in this table is for nobody."""

from enum import Enum, auto

from tandem.rpc import health


class Access(Enum):
    """Who may call a method."""

    OPEN = auto()  # everybody
    WITH_KEY = auto()  # everybody with a key, where keys are asked for
    NONE = auto()  # nobody


RULES = {
    f"/{health.SERVICE_NAME}/Check": Access.OPEN,
    f"/{health.SERVICE_NAME}/Watch": Access.OPEN,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Access.WITH_KEY,  # where it is served at all
    "/tandem.v1.GenerationService/Generate": Access.WITH_KEY,
    "/tandem.v1.GenerationService/StreamGenerate": Access.WITH_KEY,
    "/tandem.v1.GenerationService/CountTokens": Access.WITH_KEY,
    "/tandem.v1.ModelService/ListModels": Access.WITH_KEY,
    "/tandem.v1.ModelService/GetModel": Access.WITH_KEY,
}


def access_to(method: str) -> Access:
    """The rule for a method, exactly as it came over the wire: `/package.Service/Method`."""
    return RULES.get(method, Access.NONE)
