"""Client of Tandem: streamed text over gRPC, with and without asyncio."""

from tandem_client.async_client import AsyncClient, AsyncStream
from tandem_client.client import Client, Stream
from tandem_client.conversation import Conversation, Message, Role, Tool, ToolCall, ToolResult
from tandem_client.errors import (
    Cancelled,
    DeadlineExceeded,
    Exhausted,
    InvalidRequest,
    ModelNotFound,
    RetryableError,
    ServerFault,
    TandemError,
    Unauthenticated,
    Unavailable,
)
from tandem_client.model import DefaultSampling, Drafter, Model
from tandem_client.options import Options, Prompt
from tandem_client.results import (
    Delta,
    Finished,
    FinishReason,
    Generation,
    OutputPart,
    Speculation,
    Started,
    Token,
    TopLogprob,
    Usage,
)
from tandem_client.tls import Tls

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "AsyncStream",
    "Cancelled",
    "Client",
    "Conversation",
    "DeadlineExceeded",
    "DefaultSampling",
    "Delta",
    "Drafter",
    "Exhausted",
    "FinishReason",
    "Finished",
    "Generation",
    "InvalidRequest",
    "Message",
    "Model",
    "ModelNotFound",
    "Options",
    "OutputPart",
    "Prompt",
    "RetryableError",
    "Role",
    "ServerFault",
    "Speculation",
    "Started",
    "Stream",
    "TandemError",
    "Tls",
    "Token",
    "Tool",
    "ToolCall",
    "ToolResult",
    "TopLogprob",
    "Unauthenticated",
    "Unavailable",
    "Usage",
]
