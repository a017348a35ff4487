"""Deciding from scores: rules, thresholds, presets."""

from planish_egovid.policy.decision import decide
from planish_egovid.policy.policy_model import policy_model
from planish_egovid.policy.presets import PRESETS
from planish_egovid.policy.quantiles import settled
from planish_egovid.policy.rule import Rule, Threshold

__all__ = ["PRESETS", "Rule", "Threshold", "decide", "policy_model", "settled"]
