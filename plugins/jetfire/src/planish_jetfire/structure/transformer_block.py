"""What is known about a transformer block."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NormKind:
    """A norm over the last dimension.

    Attributes:
        kind: ``"layer"`` or ``"rms"``.
        eps: what it adds to the variance.
    """

    kind: str
    eps: float


@dataclass(frozen=True)
class TransformerBlock:
    """A block that computes ``h = x + out(attention(norm(x)))``, then ``h + feed_forward(norm(h))``.

    Or, where it is post-norm, ``h = norm(x + out(attention(x)))``, then ``norm(h + feed_forward(h))``. Names of modules
    are relative to the block.

    Attributes:
        name: Qualified name of the block; empty for the model itself.
        features: Width of the hidden state.
        projections: The linears of queries, keys and values, or one for all.
        out: The output projection.
        norms: Those of the attention's and of the feed-forward network's half.
        norm_kinds: What they compute.
        expand: The linears that widen: one, or (gate, up).
        contract: The linear that narrows.
        activation: ``"gelu"``, ``"gelu_tanh"`` or ``"silu"``.
        is_pre_norm: Whether norms stand before the branches rather than after the sums.
    """

    name: str
    features: int
    projections: tuple[str, ...]
    out: str
    norms: tuple[str, str]
    norm_kinds: tuple[NormKind, NormKind]
    expand: tuple[str, ...]
    contract: str
    activation: str
    is_pre_norm: bool

    @property
    def linears(self) -> tuple[str, ...]:
        """All linears, by their names relative to the block."""
        return (*self.projections, self.out, *self.expand, self.contract)

    def qualified(self, relative: str) -> str:
        """The name of a module in the model."""
        return f"{self.name}.{relative}" if self.name else relative

    def describe(self) -> str:
        """A clause for plans."""
        norm = "RMSNorm" if self.norm_kinds[0].kind == "rms" else "LayerNorm"
        gate = "gated " if len(self.expand) == 2 else ""
        return f"a {'pre' if self.is_pre_norm else 'post'}-norm transformer block ({norm}, {gate}{self.activation})"
