"""The playground as files over HTTP, without a browser."""

import re
from importlib.resources import files

import httpx
import pytest

TYPES = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}
FOLDER = files("tandem.gateway.http") / "playground"
FILES = {"/" if file.name == "index.html" else f"/playground/{file.name}": file for file in FOLDER.iterdir()}


@pytest.fixture
async def web(open_client):
    """Without a verifier and without a key: neither is needed to see the page."""
    async with open_client(http_listen="127.0.0.1:0") as client:
        async with httpx.AsyncClient(base_url=f"http://{client.gateway.http_address}") as web:
            yield web


async def test_every_file_is_served_as_what_it_is_and_confined(web):
    assert "/" in FILES and len(FILES) > 5
    for path, file in FILES.items():
        response = await web.get(path)
        assert (response.status_code, response.content) == (200, file.read_bytes()), path
        headers = response.headers
        assert headers["content-type"].partition(";")[0] == TYPES[file.name.rpartition(".")[2]]
        policy = dict(directive.split(" ", 1) for directive in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert {policy[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
        assert {policy[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
        assert policy["require-trusted-types-for"] == "'script'"
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert headers["cache-control"] == "no-cache"
        again = await web.get(path, headers={"if-none-match": headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert (await web.get(path, headers={"if-none-match": '"older"'})).status_code == 200


async def test_files_name_only_each_other():
    """Nothing comes from elsewhere, nothing is inline, and nothing is left that nobody loads."""
    texts = {path: file.read_text() for path, file in FILES.items()}
    page = texts["/"]
    named = {f"/{name}" for name in re.findall(r'(?:src|href)="([^"]+)"', page)}
    named |= {f"/playground/{name}" for text in texts.values() for name in re.findall(r'from "\./([^"]+)"', text)}
    assert named == set(FILES) - {"/"}
    for path, text in texts.items():
        assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {"http://www.w3.org/2000/svg"}, path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text), path
    assert not re.search(r"<style|style=|\son\w+=|<script(?! type=\"module\" src=)", page)


@pytest.mark.parametrize(
    "path",
    [
        "/index.html",
        "/playground",
        "/playground/",
        "/playground/index.html",
        "/playground/../app.py",
        "/playground/%2e%2e/app.py",
        "/playground/..%2fapp.py",
        "/playground//etc/passwd",
        "/playground/page.js/",
        "/playground/page.js%00",
    ],
)
async def test_nothing_else_is_there(web, path):
    request = web.build_request("GET", web.base_url.copy_with(raw_path=path.encode()))
    response = await web.send(request)
    assert response.status_code == 404 and response.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_it_is_to_be_read_only(web, method):
    assert (await web.request(method, "/")).status_code == 405
    head = await web.head("/")
    assert head.status_code == 200 and not head.content


async def test_it_can_be_switched_off(open_client):
    async with open_client(http_listen="127.0.0.1:0", playground=False) as client:
        async with httpx.AsyncClient(base_url=f"http://{client.gateway.http_address}") as web:
            assert {(await web.get(path)).status_code for path in FILES} == {404}
            assert (await web.get("/healthz")).status_code == 503
