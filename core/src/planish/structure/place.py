"""What a linear layer outside every feed-forward network is, by its name."""

from __future__ import annotations

import re
from typing import Literal

_ATTENTION = re.compile(
    r"(^|[._])(q|k|v|o|qkv|wqkv|wq|wk|wv|wo|query|key|value|c_attn|q_attn|in_proj|query_key_value|attn|attention|"
    r"self_attn|self_attention|cross_attn|crossattention|encoder_attn|q_lin|k_lin|v_lin|to_[qkv]|to_out|qkv_proj|"
    r"[qkvo]_proj|[qkv]_[ab]_proj|enc_?dec_?attention|selfattention)($|[._])",
    re.IGNORECASE,
)
_HEAD = re.compile(r"(^|\.)(lm_head|head|classifier|score|embed_out|output_projection|decoder|cls|qa_outputs)($|\.)")

Place = Literal["attention", "head", "other"]


def place_of(name: str) -> Place:
    """``"attention"`` for a projection of an attention layer, ``"head"`` for an output head, else ``"other"``.

    Args:
        name: Qualified name of the linear.
    """
    if _ATTENTION.search(name):
        return "attention"
    return "head" if _HEAD.search(name) else "other"
