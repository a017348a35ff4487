"""DataFilterContract: the contract of :class:`planish.interfaces.DataFilter`."""

from __future__ import annotations

from planish.testing.data_filter.deciding import DecidingClauses
from planish.testing.data_filter.files import FileClauses
from planish.testing.data_filter.schemas import SchemaClauses
from planish.testing.data_filter.scoring import ScoringClauses
from planish.testing.data_filter.settling import SettlingClauses
from planish.testing.data_filter.staging import StagingClauses


class DataFilterContract(
    SchemaClauses,
    ScoringClauses,
    StagingClauses,
    DecidingClauses,
    SettlingClauses,
    FileClauses,
):
    """The whole battery for a data filter::

    class TestDemo(DataFilterContract):
        plugin = Demo
        thresholds = {"min_brightness": "stricter", "flow_mean.max": "looser"}

        def make_clips(self, folder):
            return [...]
    """
