"""The playground: a page at `/` that shows drafting at work, and the few files it is made of."""

from hashlib import sha256
from importlib.resources import files
from pathlib import PurePath

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tandem.gateway.http.call import HEADERS

PAGE = "index.html"
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# What the page may do: load its own files and ask its own origin. No text of a model can become script or markup.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
PAGE_HEADERS = {
    **HEADERS,
    "cache-control": "no-cache",  # kept, but asked after: another version may be served tomorrow
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def playground_routes() -> list[Route]:
    """The page at `/` and its files below `/playground/`, to be read and nothing else.

    Each file is read once, here, and has a route of its own: no path of a request ever becomes a path of a file.
    """
    routes = []
    for file in sorted((files(__package__) / "playground").iterdir(), key=lambda file: file.name):
        content_type = CONTENT_TYPES.get(PurePath(file.name).suffix)
        if content_type:
            path = "/" if file.name == PAGE else f"/playground/{file.name}"
            routes.append(_route(path, file.read_bytes(), content_type))
    return routes


def _route(path: str, content: bytes, content_type: str) -> Route:
    headers = {**PAGE_HEADERS, "etag": f'"{sha256(content).hexdigest()[:32]}"'}

    async def show(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, headers={**headers, "content-type": content_type})

    return Route(path, show, methods=["GET"])
