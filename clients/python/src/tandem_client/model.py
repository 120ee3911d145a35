"""What is served, as frozen values."""

from dataclasses import dataclass

from tandem_client._proto.tandem.v1 import model_service_pb2


@dataclass(frozen=True, slots=True)
class Drafter:
    """The draft model beside a target."""

    name: str
    num_speculative_tokens: int  # most that it drafts a round
    revision: str


@dataclass(frozen=True, slots=True)
class DefaultSampling:
    """In force for options that a request leaves out."""

    temperature: float
    top_p: float
    top_k: int


@dataclass(frozen=True, slots=True)
class Model:
    """A target."""

    name: str
    context_length: int  # tokens of prompt and output together
    vocabulary_size: int
    dtype: str
    revision: str
    eos_token_ids: tuple[int, ...]
    drafter: Drafter | None  # that is attached now
    default_sampling: DefaultSampling

    @classmethod
    def from_proto(cls, model: model_service_pb2.Model) -> "Model":
        """As it came."""
        drafter, sampling = model.drafter, model.default_sampling
        return cls(
            name=model.name,
            context_length=model.context_length,
            vocabulary_size=model.vocabulary_size,
            dtype=model.dtype,
            revision=model.revision,
            eos_token_ids=tuple(model.eos_token_ids),
            drafter=Drafter(drafter.name, drafter.num_speculative_tokens, drafter.revision)
            if model.HasField("drafter")
            else None,
            default_sampling=DefaultSampling(sampling.temperature, sampling.top_p, sampling.top_k),
        )
