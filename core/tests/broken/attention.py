"""Broken attention implementations, one for each clause of the contract."""

from __future__ import annotations

import math

import torch
from planish import UnsupportedError
from planish.interfaces import Support
from samples.softmax_attention import SoftmaxAttention
from samples.suites import SoftmaxAttentionSuite

from broken.case import Broken


class Suite(SoftmaxAttentionSuite):
    """The sample's suite, with gradients on the plain problem alone."""

    solves = ("plain",)


class SupportsRaises(SoftmaxAttention):
    def supports(self, spec):
        bits = {torch.float32: 32, torch.float16: 16, torch.bfloat16: 16}
        return Support(bits[spec.dtype] > 0) and super().supports(spec)


class DeclinesPlain(SoftmaxAttention):
    def supports(self, spec):
        return super().supports(spec) if spec.causal or spec.bias else Support(False, "only causal attention is solved")


class AnyDevice(SoftmaxAttention):
    def supports(self, spec):
        answer = super().supports(spec)
        return Support(True) if "runs on" in answer.reason else answer


class WrongError(SoftmaxAttention):
    def __call__(self, q, k, v, *, spec, bias=None):
        try:
            return super().__call__(q, k, v, spec=spec, bias=bias)
        except UnsupportedError as error:
            raise ValueError(str(error)) from None


class FreeOfCost(SoftmaxAttention):
    def cost(self, spec):
        return 0.0


class ForgetsLastKey(SoftmaxAttention):
    def visible(self, spec, device):
        visible = super().visible(spec, device)
        if not spec.causal and spec.kv_len > spec.q_len:
            visible[:, -1] = False
        return visible


class AlignsToTheStart(SoftmaxAttention):
    def visible(self, spec, device):
        visible = super().visible(spec, device)
        return visible.tril() if spec.causal and spec.kv_len > spec.q_len else visible


class InterleavesHeads(SoftmaxAttention):
    def __call__(self, q, k, v, *, spec, bias=None):
        if not self.supports(spec):
            return super().__call__(q, k, v, spec=spec, bias=bias)
        order = torch.arange(spec.heads).view(-1, spec.kv_heads).T.flatten()
        return super().__call__(q[:, order], k, v, spec=spec, bias=bias)[:, order.argsort()]


class WindowTooWide(SoftmaxAttention):
    def visible(self, spec, device):
        visible = super().visible(spec, device)
        if spec.window is not None:
            visible |= visible.roll(-1, dims=1) & torch.ones_like(visible).tril()
        return visible


class ScalesTheBias(SoftmaxAttention):
    def __call__(self, q, k, v, *, spec, bias=None):
        bias = None if bias is None else bias / math.sqrt(spec.head_dim)
        return super().__call__(q, k, v, spec=spec, bias=bias)


class IgnoresScale(SoftmaxAttention):
    def __call__(self, q, k, v, *, spec, bias=None):
        factor = 1.0 if spec.scale is None else 1 / math.sqrt(spec.head_dim) / spec.scale
        return super().__call__(q * factor, k, v, spec=spec, bias=bias)


class CutsValues(SoftmaxAttention):
    def __call__(self, q, k, v, *, spec, bias=None):
        return super().__call__(q, k, v[..., : spec.head_dim], spec=spec, bias=bias)


class SpreadsOverHiddenKeys(SoftmaxAttention):
    def __call__(self, q, k, v, *, spec, bias=None):
        output = super().__call__(q, k, v, spec=spec, bias=bias)
        blind = (output == 0).all(-1, keepdim=True)
        mean = v.mean(2, keepdim=True).repeat_interleave(spec.heads // spec.kv_heads, dim=1)
        return torch.where(blind, mean, output)


class ReturnsFloat64(SoftmaxAttention):
    def __call__(self, q, k, v, *, spec, bias=None):
        return super().__call__(q, k, v, spec=spec, bias=bias).double()


class ClampsValues(SoftmaxAttention):
    def supports(self, spec):
        return Support(False, "dropout is not done") if spec.dropout else super().supports(spec)

    def __call__(self, q, k, v, *, spec, bias=None):
        output = super().__call__(q, k, v, spec=spec, bias=bias)
        if not v.requires_grad:
            v.clamp_(-1, 1)
        return output


class AssumesContiguous(SoftmaxAttention):
    def __call__(self, q, k, v, *, spec, bias=None):
        q, k, v = (torch.as_strided(t, t.shape, torch.empty(t.shape, device="meta").stride()) for t in (q, k, v))
        return super().__call__(q, k, v, spec=spec, bias=bias)


class Noisy(SoftmaxAttention):
    def __call__(self, q, k, v, *, spec, bias=None):
        output = super().__call__(q, k, v, spec=spec, bias=bias)
        return output * (1 + 1e-6 * torch.randn_like(output))


class NoGradientInKeys(SoftmaxAttention):
    def __call__(self, q, k, v, *, spec, bias=None):
        return super().__call__(q, k.detach(), v, spec=spec, bias=bias)


class BiasedDropout(SoftmaxAttention):
    def __call__(self, q, k, v, *, spec, bias=None):
        output = super().__call__(q, k, v, spec=spec, bias=bias)
        return output * (1 - spec.dropout)


BROKEN = [
    Broken(Suite, "test_supports_never_raises", "raised KeyError", SupportsRaises),
    Broken(Suite, "test_supports_what_it_claims", "only causal attention is solved", DeclinesPlain),
    Broken(Suite, "test_unknown_device_is_declined", "no-such-device", AnyDevice),
    Broken(Suite, "test_unsupported_call_is_refused", "raise UnsupportedError with that reason", WrongError),
    Broken(Suite, "test_cost_is_a_positive_number", "finite positive number", FreeOfCost),
    Broken(Suite, "test_plain_attention", "cross: the relative RMS error", ForgetsLastKey),
    Broken(Suite, "test_causal_attention", "decode: the relative RMS error", AlignsToTheStart),
    Broken(Suite, "test_grouped_query_attention", "grouped: the relative RMS error", InterleavesHeads),
    Broken(Suite, "test_window", "window: the relative RMS error", WindowTooWide),
    Broken(Suite, "test_bias", "bias: the relative RMS error", ScalesTheBias),
    Broken(Suite, "test_scale", "scale: the relative RMS error", IgnoresScale),
    Broken(Suite, "test_value_dim", "value_dim: the relative RMS error", CutsValues),
    Broken(Suite, "test_query_without_keys_gets_zeros", "expected zeros", SpreadsOverHiddenKeys),
    Broken(Suite, "test_output_has_the_query_dtype", "torch.float64", ReturnsFloat64),
    Broken(Suite, "test_inputs_are_left_alone", "changed its input v", ClampsValues),
    Broken(Suite, "test_strided_inputs", "mind their strides", AssumesContiguous),
    Broken(Suite, "test_result_is_deterministic", "give different results", Noisy),
    Broken(Suite, "test_gradients", "the gradient in k", NoGradientInKeys),
    Broken(Suite, "test_dropout_is_unbiased", "standard errors (RMS) off", BiasedDropout),
]
