"""What the demo pair is trained on: pinned packages with their licences, and the files that are held out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """One package of the corpus: its pinned release and its licence."""

    name: str
    version: str
    licence: str


_PINNED = """
accelerate 1.15.0 Apache-2.0
aiohttp 3.14.5 Apache-2.0 AND MIT
alembic 1.20.1 MIT
anyio 4.16.0 MIT
astropy 8.0.2 BSD-3-Clause
attrs 26.1.0 MIT
autopep8 2.3.2 MIT
babel 2.18.0 BSD-3-Clause
black 26.10.1 MIT
bokeh 3.9.2 BSD-3-Clause
celery 5.7.0 BSD-3-Clause
cffi 2.1.1 MIT-0
click 8.5.1 BSD-3-Clause
coverage 7.17.3 Apache-2.0
cryptography 50.0.2 Apache-2.0 OR BSD-3-Clause
dask 2026.8.0 BSD-3-Clause
distributed 2026.8.0 BSD-3-Clause
django 5.2.19 BSD-3-Clause
djangorestframework 3.18.3 BSD-3-Clause
fastapi 0.165.0 MIT
flask 3.1.3 BSD-3-Clause
flax 0.12.8 Apache-2.0
httpx 0.28.1 BSD-3-Clause
ipython 9.18.1 BSD-3-Clause
isort 9.0.2 MIT
jax 0.10.2 Apache-2.0
jedi 0.20.1 MIT
jinja2 3.1.6 BSD-3-Clause
jsonschema 4.26.0 MIT
keras 3.15.1 Apache-2.0
kombu 5.7.0 BSD-3-Clause
lightning 2.6.6 Apache-2.0
marshmallow 4.4.0 MIT
matplotlib 3.11.2 PSF-style
mitmproxy 11.0.2 MIT
mpmath 1.4.1 BSD-3-Clause
mypy 2.4.1 MIT
networkx 3.6.1 BSD-3-Clause
nltk 3.10.4 Apache-2.0
nox 2026.10.20 Apache-2.0
numba 0.68.1 BSD-2-Clause
numpy 2.4.6 BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0
onnx 1.23.2 Apache-2.0
optax 0.2.8 Apache-2.0
pandas 3.1.1 BSD-3-Clause
parso 0.8.7 MIT
peft 0.21.2 Apache-2.0
pillow 13.0.0 MIT-CMU
pip 26.3 MIT
poetry 2.5.1 MIT
prompt-toolkit 3.0.53 BSD-3-Clause
pycparser 3.12 BSD-3-Clause
pydantic 2.14.3 MIT
pyflakes 4.1.0 MIT
pygments 2.21.0 BSD-2-Clause
pytest 9.2.0 MIT
referencing 0.37.0 MIT
requests 2.34.2 Apache-2.0
rich 15.0.0 MIT
scikit-image 0.26.0 BSD-3-Clause
scikit-learn 1.9.1 BSD-3-Clause
scipy 1.17.1 BSD-3-Clause
scrapy 2.19.0 BSD-3-Clause
seaborn 0.13.2 BSD-3-Clause
setuptools 84.2.1 MIT
shapely 2.2.0 BSD-3-Clause
sphinx 9.0.4 BSD-2-Clause
sqlalchemy 2.1.9 MIT
starlette 1.10.0 BSD-3-Clause
statsmodels 0.15.0 BSD-3-Clause
sympy 1.14.0 BSD-3-Clause
textual 8.2.8 MIT
torch-geometric 2.8.1 MIT
tornado 6.6.1 Apache-2.0
tox 4.67.15 MIT
trio 0.35.0 MIT OR Apache-2.0
twisted 26.10.0 MIT
urllib3 2.8.0 MIT
virtualenv 21.15.8 MIT
wagtail 8.0.1 BSD-3-Clause
werkzeug 3.1.9 BSD-3-Clause
xarray 2026.9.0 Apache-2.0
"""

SOURCES = tuple(Source(*line.split(" ", 2)) for line in _PINNED.strip().splitlines())

# Never trained on: held-out loss, the acceptance length and the prompts of the bench come from these files alone.
HELD_OUT = frozenset(
    {f"stdlib/{name}" for name in (
        "bisect.py", "calendar.py", "configparser.py", "csv.py", "fractions.py", "heapq.py", "http/cookies.py",
        "json/encoder.py", "queue.py", "sched.py", "shlex.py", "statistics.py", "string.py", "tempfile.py",
        "textwrap.py", "zipapp.py",
    )}
    | {
        "aiohttp/multipart.py", "click/formatting.py", "django/core/paginator.py", "matplotlib/ticker.py",
        "networkx/algorithms/cluster.py", "requests/sessions.py", "rich/table.py", "scipy/optimize/_root.py",
        "sklearn/cluster/_dbscan.py", "sqlalchemy/util/topological.py", "sympy/ntheory/primetest.py",
        "tornado/queues.py", "werkzeug/routing/rules.py", "pandas/core/algorithms.py",
    }
)  # fmt: skip
