"""AttentionContract: the contract of :class:`planish.interfaces.AttentionImpl`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from planish.errors import UnsupportedError
from planish.interfaces.attention import AttentionSpec
from planish.testing.clause import not_claimed, require
from planish.testing.comparison import relative_error
from planish.testing.plugin_contract import PluginContract

Inputs = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Problem:
    """One attention problem: sizes, and what of the spec is set.

    Attributes:
        heads: Query heads.
        kv_heads: Key and value heads.
        q_len: Query length.
        kv_len: Key and value length.
        value_dim: Size of a value; None for the suite's head_dim.
        causal: As in the spec.
        window: As in the spec.
        scale: As in the spec.
        bias: Shape of an additive bias, 1 where it is broadcast; None for none.
        masked_row: Whether the bias hides every key from the first query.
    """

    heads: int = 2
    kv_heads: int = 2
    q_len: int = 17
    kv_len: int = 17
    value_dim: int | None = None
    causal: bool = False
    window: int | None = None
    scale: float | None = None
    bias: tuple[int, int, int, int] | None = None
    masked_row: bool = False


PROBLEMS: dict[str, Problem] = {
    "plain": Problem(),
    "cross": Problem(q_len=9, kv_len=23),
    "causal": Problem(causal=True),
    "decode": Problem(q_len=1, kv_len=19, causal=True),
    "continued": Problem(q_len=5, kv_len=19, causal=True),
    "grouped": Problem(heads=6, kv_heads=2, causal=True),
    "window": Problem(causal=True, window=4),
    "bias": Problem(bias=(2, 2, 17, 17)),
    "broadcast_bias": Problem(bias=(1, 1, 17, 17)),
    "scale": Problem(scale=0.3),
    "value_dim": Problem(value_dim=24),
    "masked_row": Problem(bias=(1, 1, 17, 17), masked_row=True),
    "early_queries": Problem(q_len=6, kv_len=4, causal=True),
}
"""What an implementation may be asked, by name. The first two queries of ``early_queries`` see no key."""


def oracle(q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec, bias: Tensor | None = None) -> Tensor:
    """Return softmax(scale · q kᵀ + bias) v in float64, written out: the definition that implementations are held to.

    Shapes as in :class:`planish.interfaces.AttentionImpl`; a query that sees no key gets zeros.
    """
    q, k, v = q.double(), k.double(), v.double()
    group = spec.heads // spec.kv_heads
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    scale = 1 / math.sqrt(spec.head_dim) if spec.scale is None else spec.scale
    scores = scale * torch.einsum("bhqd,bhkd->bhqk", q, k)
    if bias is not None:
        scores = scores + bias.double()
    query = torch.arange(spec.q_len, device=q.device)[:, None] + spec.kv_len - spec.q_len
    key = torch.arange(spec.kv_len, device=q.device)[None, :]
    visible = torch.ones(spec.q_len, spec.kv_len, dtype=torch.bool, device=q.device)
    if spec.causal:
        visible &= key <= query
    if spec.window is not None:
        visible &= key > query - spec.window
    scores = scores.masked_fill(~visible, -math.inf)
    top = scores.amax(-1, keepdim=True)
    weights = torch.exp(scores - torch.where(top.isinf(), torch.zeros_like(top), top))
    total = weights.sum(-1, keepdim=True)
    return torch.einsum("bhqk,bhkd->bhqd", weights / torch.where(total == 0, torch.ones_like(total), total), v)


class AttentionContract(PluginContract):
    """The whole battery for an attention implementation::

    class TestDemo(AttentionContract):
        plugin = Demo
        solves = ("plain", "causal")
    """

    kind: ClassVar[str] = "attention"

    solves: ClassVar[tuple[str, ...]] = ("plain", "causal")
    """Names in :data:`PROBLEMS` that the implementation claims on this device; others it may decline."""

    device: ClassVar[str] = "cpu"
    """Where the suite's tensors lie."""

    dtype: ClassVar[torch.dtype] = torch.float32
    """Dtype of the suite's tensors."""

    head_dim: ClassVar[int] = 16
    """Size of a head."""

    tolerance: ClassVar[float] = 1e-5
    """Largest relative RMS error against the float64 oracle; about 1e-3 for float16, 1e-2 for bfloat16."""

    def make_inputs(self, problem: Problem, *, grad: bool = False) -> tuple[Inputs, AttentionSpec, Tensor | None]:
        """Return ``(q, k, v)``, their spec and the bias of a problem; the same on each call."""
        generator = torch.Generator().manual_seed(60)
        sizes = (
            (2, problem.heads, problem.q_len, self.head_dim),
            (2, problem.kv_heads, problem.kv_len, self.head_dim),
            (2, problem.kv_heads, problem.kv_len, problem.value_dim or self.head_dim),
        )
        q, k, v = (
            torch.randn(size, generator=generator).to(self.device, self.dtype).requires_grad_(grad) for size in sizes
        )
        bias = None
        if problem.bias is not None:
            bias = torch.randn(problem.bias, generator=generator).to(self.device, self.dtype)
            if problem.masked_row:
                bias[:, :, 0, :] = -math.inf
        spec = AttentionSpec.of(
            q,
            k,
            v,
            causal=problem.causal,
            window=problem.window,
            scale=problem.scale,
            bias=bias is not None,
        )
        return (q, k, v), spec, bias

    # ---- clauses on what is supported

    def test_supports_never_raises(self) -> None:
        """``supports`` answers every spec, however odd, and gives a reason with every no."""
        plugin = self.make_plugin()
        for spec in self._odd_specs():
            try:
                answer = plugin.supports(spec)
            except Exception as error:
                answer = None
                require(
                    False, f"supports({spec}) raised {type(error).__name__}: {error}; answer Support(False, reason)"
                )
            require(
                isinstance(getattr(answer, "ok", None), bool) and isinstance(getattr(answer, "reason", None), str),
                f"supports({spec}) answered {answer!r}; expected planish.interfaces.Support",
            )
            require(answer.ok or answer.reason.strip(), f"supports({spec}) said no without a reason")

    def test_supports_what_it_claims(self) -> None:
        """Every problem in ``solves`` is supported on the suite's device and dtype."""
        for name in self.solves:
            _, spec, _ = self.make_inputs(PROBLEMS[name])
            answer = self.make_plugin().supports(spec)
            require(answer.ok, f"the suite claims {name!r} in solves, but supports() says no: {answer.reason}")

    def test_unknown_device_is_declined(self) -> None:
        """A device that the implementation does not know is declined: ``supports`` means this machine."""
        _, spec, _ = self.make_inputs(PROBLEMS["plain"])
        answer = self.make_plugin().supports(replace(spec, device="no-such-device"))
        require(not answer.ok, "supports() says yes to the device 'no-such-device'; list the devices that it runs on")

    def test_unsupported_call_is_refused(self) -> None:
        """A call that ``supports`` declines raises UnsupportedError with the same reason."""
        plugin = self.make_plugin()
        (q, k, v), plain, _ = self.make_inputs(PROBLEMS["plain"])
        for spec in (replace(plain, device="no-such-device"), *self._odd_specs()):
            try:
                answer = plugin.supports(spec)
            except Exception:
                continue  # another clause says so
            if answer.ok:
                continue
            try:
                plugin(q, k, v, spec=spec)
            except UnsupportedError as error:
                require(
                    answer.reason in str(error),
                    f"supports() declines because {answer.reason!r}, the call says {str(error)!r}; give one reason",
                )
            except Exception as error:
                require(
                    False,
                    f"supports() declines because {answer.reason!r}, the call raised {type(error).__name__}: {error}; "
                    "raise UnsupportedError with that reason",
                )
            else:
                require(False, f"supports() declines because {answer.reason!r}, and yet the call gives a result")

    def test_cost_is_a_positive_number(self) -> None:
        """``cost`` is a finite positive number, by which a dispatcher ranks implementations."""
        _, spec, _ = self.make_inputs(PROBLEMS["plain"])
        cost = self.make_plugin().cost(spec)
        require(
            isinstance(cost, int | float) and math.isfinite(cost) and cost > 0,
            f"cost() is {cost!r}; expected a finite positive number",
        )

    # ---- clauses on the result

    def test_plain_attention(self) -> None:
        """Without mask, bias or grouping the result is the oracle's, also for unequal lengths."""
        self._agrees("plain", "cross")

    def test_causal_attention(self) -> None:
        """Query i sees keys up to i + kv_len - q_len: in training, in decoding and in a continued prefill."""
        self._agrees("causal", "decode", "continued")

    def test_grouped_query_attention(self) -> None:
        """Query head h uses key head h // (heads / kv_heads)."""
        self._agrees("grouped")

    def test_window(self) -> None:
        """A query sees no more than the ``window`` most recent keys, its own included."""
        self._agrees("window")

    def test_bias(self) -> None:
        """A bias is added to the scaled scores, broadcast over batch and heads where its size is 1."""
        self._agrees("bias", "broadcast_bias")

    def test_scale(self) -> None:
        """A given ``scale`` takes the place of 1 / sqrt(head_dim)."""
        self._agrees("scale")

    def test_value_dim(self) -> None:
        """Values may be of another size than queries and keys."""
        self._agrees("value_dim")

    def test_query_without_keys_gets_zeros(self) -> None:
        """A query that sees no key gets zeros, not NaN: by bias, or because it comes before the first key."""
        plugin = self.make_plugin()
        tried = False
        for name, row in (("masked_row", 0), ("early_queries", 0), ("early_queries", 1)):
            (q, k, v), spec, bias = self.make_inputs(PROBLEMS[name])
            if plugin.supports(spec).ok:
                tried = True
                output = plugin(q, k, v, spec=spec, bias=bias)[:, :, row]
                require(
                    torch.equal(output, torch.zeros_like(output)),
                    f"{name}: query {row} sees no key and gets up to {output.abs().max().item()}; expected zeros",
                )
        if not tried:
            not_claimed("supports() declines problems in which a query sees no key")

    def test_output_has_the_query_dtype(self) -> None:
        """The output is [batch, heads, q_len, value_dim] in the dtype and on the device of q."""
        (q, k, v), spec, _ = self._claimed()
        output = self.make_plugin()(q, k, v, spec=spec)
        expected = [*q.shape[:3], v.shape[3]]
        require(
            list(output.shape) == expected and output.dtype == q.dtype and output.device == q.device,
            f"the output is {output.dtype} {list(output.shape)} on {output.device}; expected {q.dtype} {expected} "
            f"on {q.device}",
        )

    def test_inputs_are_left_alone(self) -> None:
        """The call changes none of its inputs."""
        inputs, spec, _ = self._claimed()
        before = [tensor.clone() for tensor in inputs]
        self.make_plugin()(*inputs, spec=spec)
        for name, tensor, value in zip("qkv", inputs, before, strict=True):
            require(torch.equal(tensor, value), f"the call changed its input {name}")

    def test_strided_inputs(self) -> None:
        """Non-contiguous inputs, such as heads split off a projection, give the contiguous ones' result."""
        (q, k, v), spec, _ = self._claimed()
        strided = tuple(t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v))
        wide = tuple(torch.cat([t, t], dim=-1)[..., : t.shape[-1]] for t in (q, k, v))
        expected = oracle(q, k, v, spec)
        for how, inputs in (("transposed", strided), ("sliced", wide)):
            gap = relative_error(self.make_plugin()(*inputs, spec=spec), expected)
            require(gap <= self.tolerance, f"on {how} inputs the relative error is {gap:.3g}; mind their strides")

    def test_result_is_deterministic(self) -> None:
        """Without dropout, two calls give the same bits, whatever the random state."""
        inputs, spec, _ = self._claimed()
        plugin = self.make_plugin()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            first = plugin(*(tensor.clone() for tensor in inputs), spec=spec)
            torch.manual_seed(2)
            second = plugin(*(tensor.clone() for tensor in inputs), spec=spec)
        require(torch.equal(first, second), "two calls on the same inputs give different results")

    def test_gradients(self) -> None:
        """Gradients in q, k and v are the oracle's, wherever ``supports`` accepts ``needs_grad``."""
        tried = False
        for name in self.solves:
            inputs, spec, bias = self.make_inputs(PROBLEMS[name], grad=True)
            if not self.make_plugin().supports(spec).ok:
                continue
            tried = True
            output = self.make_plugin()(*inputs, spec=spec, bias=bias)
            reference = oracle(*inputs, spec, bias)
            grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(61)).to(output)
            require(output.requires_grad, f"{name}: the output is cut off from the graph, though needs_grad is set")
            found = torch.autograd.grad(output, inputs, grad, allow_unused=True)
            expected = torch.autograd.grad(reference, inputs, grad.double())
            for which, ours, theirs in zip("qkv", found, expected, strict=True):
                gap = math.inf if ours is None else relative_error(ours, theirs)
                require(gap <= 4 * self.tolerance, f"{name}: the gradient in {which} has the relative error {gap:.3g}")
        if not tried:
            not_claimed("supports() declines needs_grad")

    def test_dropout_is_unbiased(self) -> None:
        """Where dropout is supported, its mean over many draws is the result without (within five standard errors)."""
        inputs, spec, _ = self._claimed()
        plugin = self.make_plugin()
        dropped = replace(spec, dropout=0.3)
        if not plugin.supports(dropped).ok:
            not_claimed("supports() declines dropout")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(70)
            draws = torch.stack([plugin(*inputs, spec=dropped).double() for _ in range(400)])
        error = draws.std(0) / math.sqrt(len(draws))
        require(error.max() > 0, "with dropout=0.3 every draw gives the same result; drop attention weights")
        gap = ((draws.mean(0) - oracle(*inputs, spec)).abs() / error.clamp_min(1e-12)).square().mean().sqrt().item()
        require(
            gap < 1.5, f"the mean over 400 draws with dropout is {gap:.2f} standard errors (RMS) off; expected about 1"
        )

    # ---- what several clauses need

    def _claimed(self) -> tuple[Inputs, AttentionSpec, Tensor | None]:
        for name in self.solves:
            inputs, spec, bias = self.make_inputs(PROBLEMS[name])
            if bias is None and self.make_plugin().supports(spec).ok:
                return inputs, spec, bias
        not_claimed("supports() declines every problem in solves; another clause says so")

    def _agrees(self, *names: str) -> None:
        plugin = self.make_plugin()
        declined: list[str] = []
        for name in names:
            inputs, spec, bias = self.make_inputs(PROBLEMS[name])
            answer = plugin.supports(spec)
            if not answer.ok:
                declined.append(f"{name}: {answer.reason}")
                continue
            expected = oracle(*inputs, spec, bias)
            gap = relative_error(plugin(*inputs, spec=spec, bias=bias), expected)
            require(
                gap <= self.tolerance,
                f"{name}: the relative RMS error against the float64 oracle is {gap:.3g}, more than {self.tolerance}",
            )
        if len(declined) == len(names):
            not_claimed(f"supports() declines {'; '.join(declined)}")

    def _odd_specs(self) -> list[AttentionSpec]:
        _, plain, _ = self.make_inputs(PROBLEMS["plain"])
        return [
            replace(plain, device="no-such-device"),
            replace(plain, device="meta"),
            replace(plain, dtype=torch.int8),
            replace(plain, dtype=torch.complex64),
            replace(plain, head_dim=7),
            replace(plain, head_dim=4096),
            replace(plain, value_dim=1),
            replace(plain, kv_heads=3),
            replace(plain, batch=0),
            replace(plain, q_len=0),
            replace(plain, kv_len=0),
            replace(plain, window=0),
            replace(plain, window=3),
            replace(plain, dropout=1.0),
            replace(plain, scale=0.0),
            replace(plain, q_len=2**31),
        ]
