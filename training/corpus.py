"""The corpus: Python files of the standard library and of pinned packages, deduplicated, some held out."""

import hashlib
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.sources import HELD_OUT, SOURCES

# Tests repeat themselves, vendored copies would leak held-out files, locale files are tables.
_SKIPPED = re.compile(
    r"(^|/)(_?vendor(ed)?|_vendored|extern(al|als)?|tests?|testing|idlelib|lib2to3|turtledemo|site-packages|locale|"
    r"locale-data|conf/locale)/|(^|/)test_[^/]*\.py$|_pb2\.py$"
)
_LARGEST_FILE = 120_000  # bytes; beyond lie generated tables and monoliths


@dataclass(frozen=True)
class Document:
    """One source file: `path` is the path inside its package, or `stdlib/...`."""

    path: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """All documents, split by whole file."""

    train: list[Document]
    held_out: list[Document]


def download(folder: Path) -> None:
    """Fetch every pinned package as a wheel into `folder`; what is already there is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in SOURCES:
        prefix = source.name.replace("-", "_")
        if any(folder.glob(f"{prefix}-{source.version}-*.whl")):
            continue
        pinned = f"{source.name}=={source.version}"
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--no-deps",
                "--only-binary=:all:",
                "-d",
                str(folder),
                pinned,
            ],
            check=True,
        )


def read(folder: Path) -> Corpus:
    """Read the standard library and the pinned wheels in `folder`: no tests, no tables, no file twice."""
    train: list[Document] = []
    held_out: list[Document] = []
    seen: set[bytes] = set()
    documents = [*_standard_library(), *(document for source in SOURCES for document in _wheel(folder, source.name))]
    # Held-out files first, so that an identical copy elsewhere counts as the duplicate and is dropped.
    for document in sorted(documents, key=lambda document: document.path not in HELD_OUT):
        digest = hashlib.sha256(document.text.strip().encode()).digest()
        if digest in seen or _is_table(document.text):
            continue
        seen.add(digest)
        (held_out if document.path in HELD_OUT else train).append(document)
    missing = HELD_OUT - {document.path for document in held_out}
    if missing:
        raise ValueError(f"held-out files not found: {sorted(missing)}")
    return Corpus(train, held_out)


def _standard_library() -> Iterator[Document]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not _SKIPPED.search(name) and path.stat().st_size <= _LARGEST_FILE:
            text = _decode(path.read_bytes())
            if text:
                yield Document(f"stdlib/{name}", text)


def _wheel(folder: Path, name: str) -> Iterator[Document]:
    (path,) = folder.glob(f"{name.replace('-', '_')}-*.whl")
    with zipfile.ZipFile(path) as wheel:
        for entry in sorted(wheel.infolist(), key=lambda entry: entry.filename):
            if not entry.filename.endswith(".py") or entry.file_size > _LARGEST_FILE or _SKIPPED.search(entry.filename):
                continue
            text = _decode(wheel.read(entry))
            if text:
                yield Document(entry.filename, text)


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return ""


def _is_table(text: str) -> bool:
    """Whether a file is mostly numbers, or has lines that no person wrote."""
    digits = sum(map(text.count, "0123456789"))
    longest = max(map(len, text.splitlines()), default=0)
    return len(text) < 64 or digits > 0.15 * len(text) or longest > 1000
