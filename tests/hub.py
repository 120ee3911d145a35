"""A server on loopback that speaks as much of the hub's language as its client needs to download files."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"

_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Hub:
    """Repositories by name, each a folder under one commit; open while it is a context."""

    def __init__(self, repositories: dict[str, Path | str], token: str | None = None) -> None:
        """With a `token`, answers only who shows it."""
        self.repositories = {name: Path(folder) for name, folder in repositories.items()}
        self.token = token
        self.downloads: list[str] = []  # repository/file, in the order in which their content was sent
        self.num_requests = 0  # for files
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(with_content=False)

            def do_GET(self) -> None:
                self._answer(with_content=True)

            def log_message(self, *arguments: object) -> None:
                pass

            def _answer(self, with_content: bool) -> None:
                asked = _FILE.fullmatch(unquote(self.path))
                if asked is None:  # the client's other interests
                    return self._refuse(404, "EntryNotFound")
                hub.num_requests += 1
                repository, commit, file = asked.groups()
                folder = hub.repositories.get(repository)
                if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                    return self._refuse(401, "GatedRepo")
                if folder is None:
                    return self._refuse(404, "RepoNotFound")
                if commit != COMMIT:
                    return self._refuse(404, "RevisionNotFound")
                if not (folder / file).is_file():
                    return self._refuse(404, "EntryNotFound")
                content = (folder / file).read_bytes()
                self.send_response(200)
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if with_content:
                    hub.downloads.append(f"{repository}/{file}")
                    self.wfile.write(content)
                return None

            def _refuse(self, status: int, code: str) -> None:
                self.send_response(status)
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("X-Error-Code", code)
                self.send_header("Content-Length", "0")
                self.end_headers()

        return Handler
