"""torch's attention keeps the contract that every attention plugin keeps."""

from planish.attention import SdpaAttention
from planish.testing import AttentionContract
from planish.testing.attention_contract import PROBLEMS


class TestSdpa(AttentionContract):
    plugin = SdpaAttention
    solves = tuple(PROBLEMS)
