"""What the tests of replays share."""

import pytest

from tests.jobs.operations.replay.past import Past
from tests.jobs.scratch import Scratch


@pytest.fixture
def past(scratch: Scratch) -> Past:
    """A topic, a job on it, and replays of the job."""
    return Past(scratch)
