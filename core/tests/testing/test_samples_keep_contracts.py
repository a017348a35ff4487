"""One small but real implementation of each interface keeps its contract."""

from planish.testing import SparsifierContract
from samples.magnitude import Magnitude


class TestMagnitude(SparsifierContract):
    plugin = Magnitude
    installed = False
    bad_options = ({"density": 1.5}, {"interval": 0})
