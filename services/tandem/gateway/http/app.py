"""Every path that the door answers at, and for whom. What is not here is refused."""

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tandem.gateway.answers import Answers
from tandem.gateway.http.call import HEADERS
from tandem.gateway.http.chat_answer import ChatAnswer
from tandem.gateway.http.chat_request import ChatRequest
from tandem.gateway.http.completion_answer import CompletionAnswer
from tandem.gateway.http.completion_request import CompletionRequest
from tandem.gateway.http.errors import Refusal
from tandem.gateway.http.generation import GenerationEndpoint
from tandem.gateway.http.guard import Guard
from tandem.gateway.http.models import Models
from tandem.gateway.http.playground_routes import playground_routes
from tandem.gateway.token_spelling import TokenSpelling


def make_app(
    answers: Answers, guard: Guard, is_serving: Callable[[], bool], max_body_bytes: int, *, has_playground: bool
) -> Starlette:
    """The whole door as an application.

    Args:
        answers: what generates.
        guard: stands around what needs a key.
        is_serving: whether requests are welcome.
        max_body_bytes: largest body of a request.
        has_playground: whether there is a page at `/`. It is open to all: what it asks for needs a key as ever.
    """
    models = Models(answers.verifiers)
    rest = (answers, guard.allowances, TokenSpelling(answers.encoder.tokenizer), max_body_bytes)
    chat = GenerationEndpoint(ChatRequest, ChatAnswer, *rest)
    completion = GenerationEndpoint(CompletionRequest, CompletionAnswer, *rest)

    async def health(_request: Request) -> Response:
        """Open to all; alive as long as it answers, ready where it says 200."""
        status, word = (200, "serving") if is_serving() else (503, "not serving")
        return JSONResponse({"status": word}, status, HEADERS)

    chat_path, completion_path = "/v1/chat/completions", "/v1/completions"
    models_path, model_path = "/v1/models", "/v1/models/{model:path}"
    routes: list[BaseRoute] = [
        Route(chat_path, guard.around(chat_path, chat, is_generation=True), methods=["POST"]),
        Route(completion_path, guard.around(completion_path, completion, is_generation=True), methods=["POST"]),
        Route(models_path, guard.around(models_path, models.list), methods=["GET"]),
        Route(model_path, guard.around(model_path, models.get), methods=["GET"]),
        Route("/healthz", health, methods=["GET"]),
        *(playground_routes() if has_playground else ()),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_such_path})
    app.router.redirect_slashes = False  # an address that is made of a Host header is anybody's
    return app


def _no_such_path(request: Request, error: Exception) -> Response:
    """Of a path that nobody answers at, or not with this method."""
    assert isinstance(error, HTTPException)
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    message = f"{request.method} {request.url.path[:200]} is not served here"
    refusal = Refusal(error.status_code, "invalid_request_error", code, message)
    return JSONResponse(refusal.body(), refusal.status, {**HEADERS, **(error.headers or {})})
