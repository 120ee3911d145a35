"""Same token ids as the target alone with the demo drafter under a head over centroids, from either position."""

from pathlib import Path

import pytest

from tandem.core.draft_position import DRAFT_POSITIONS
from tandem.models.gemma4.centroid_checkpoint import write_with_centroids
from tandem.models.gemma4.drafter_config import CentroidConfig
from tandem.telemetry import metrics as names
from tests.engines import mtp_drafts, running
from tests.lossless.conftest import TEMPERATURES


@pytest.fixture(scope="module")
def centroid_drafter_path(drafter_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("centroids") / "drafter"
    write_with_centroids(drafter_path, output, CentroidConfig(num_centroids=256, top_k=32), iterations=3)
    return output


@pytest.mark.parametrize(("position", "temperature"), zip(DRAFT_POSITIONS, TEMPERATURES, strict=True))
def test_in_a_mixed_batch(reference, centroid_drafter_path, position, temperature):
    drafts = mtp_drafts(reference.target, centroid_drafter_path, position=position)
    with running(reference.target, drafts) as under_test:
        texts = under_test.generate(reference.sequences(4, temperature))
    reference.check(temperature, texts, f"centroids, {position}, T={temperature}, mixed")
    metrics = under_test.metrics
    accepted = metrics.value(names.SPEC_ACCEPTED_TOKENS) / metrics.value(names.SPEC_DRAFT_TOKENS)
    assert accepted > 0.2, "the head is of use"
