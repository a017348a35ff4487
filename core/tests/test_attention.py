"""torch's attention behind the interface, and the choice among implementations."""

import math

import pytest
import torch
from planish.attention import AttentionDispatcher, SdpaAttention
from planish.attention.sdpa import visible
from planish.errors import PluginError, UnsupportedError
from planish.interfaces import AttentionImpl, AttentionSpec, Support
from planish.plugins.registry import Entry, Registry


def oracle(q, k, v, spec, bias=None):
    """Softmax attention in float64, one query at a time."""
    q, k, v = q.double(), k.double(), v.double()
    out = torch.zeros(*q.shape[:3], v.shape[3], dtype=torch.float64)
    scale = spec.scale if spec.scale is not None else 1 / math.sqrt(spec.head_dim)
    added = torch.zeros(spec.batch, spec.heads, spec.q_len, spec.kv_len).double()
    added = added if bias is None else added + bias.double()
    for b in range(spec.batch):
        for h in range(spec.heads):
            shared = h // (spec.heads // spec.kv_heads)
            for i in range(spec.q_len):
                at = i + spec.kv_len - spec.q_len
                keys = [
                    j
                    for j in range(spec.kv_len)
                    if (not spec.causal or j <= at)
                    and (spec.window is None or j > at - spec.window)
                    and added[b, h, i, j] > -math.inf
                ]
                if keys:
                    scores = scale * (k[b, shared, keys] @ q[b, h, i]) + added[b, h, i, keys]
                    out[b, h, i] = scores.softmax(0) @ v[b, shared, keys]
    return out


CASES = {
    "plain": {},
    "causal": {"causal": True},
    "causal, keys from before": {"causal": True, "q_len": 3},
    "causal, queries that see nothing": {"causal": True, "kv_len": 3},
    "one query": {"causal": True, "q_len": 1},
    "window": {"causal": True, "window": 2},
    "window with keys from before": {"causal": True, "window": 3, "q_len": 2},
    "window that leaves queries blind": {"window": 2, "kv_len": 9, "q_len": 9, "causal": True, "mask": "blind"},
    "window alone": {"window": 2},
    "grouped": {"kv_heads": 2, "causal": True},
    "one key head": {"kv_heads": 1, "window": 3, "causal": True},
    "bias": {"mask": "full"},
    "bias over heads": {"mask": "heads", "causal": True},
    "bias that hides a row": {"mask": "blind"},
    "values of another size": {"value_dim": 3},
    "scale": {"scale": 0.7},
}


def make(q_len=7, kv_len=7, kv_heads=4, value_dim=5, mask=None, dtype=torch.float64, **more):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, heads, length, size, generator=generator, dtype=dtype)
        for heads, length, size in ((4, q_len, 5), (kv_heads, kv_len, 5), (kv_heads, kv_len, value_dim))
    )
    bias = None
    if mask == "heads":
        bias = torch.randn(1, 4, 1, kv_len, generator=generator, dtype=dtype)
    elif mask is not None:
        bias = torch.randn(2, 4, q_len, kv_len, generator=generator, dtype=dtype)
        if mask == "blind":
            bias[0, 1, 2] = -math.inf
            bias[:, :, :, 0] = -math.inf
    return q, k, v, AttentionSpec.of(q, k, v, bias=bias is not None, **more), bias


@pytest.mark.parametrize("case", CASES)
def test_sdpa_agrees_with_the_oracle(case):
    q, k, v, spec, bias = make(**CASES[case])
    found = SdpaAttention()(q, k, v, spec=spec, bias=bias)
    torch.testing.assert_close(found, oracle(q, k, v, spec, bias), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", ["causal, queries that see nothing", "bias that hides a row", "grouped"])
def test_gradients_are_finite_and_right(case):
    q, k, v, spec, bias = make(**CASES[case])
    inputs = [t.requires_grad_() for t in (q, k, v)]
    assert torch.autograd.gradcheck(lambda q, k, v: SdpaAttention()(q, k, v, spec=spec, bias=bias), inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", ["causal", "causal, queries that see nothing", "bias that hides a row"])
def test_blind_rows_are_zero_in_every_dtype(dtype, case):
    q, k, v, spec, bias = make(dtype=dtype, **CASES[case])
    found = SdpaAttention()(q, k, v, spec=spec, bias=bias)
    assert found.dtype == dtype
    expected = oracle(q, k, v, spec, bias)
    blind = (expected == 0).all(-1)
    assert (found[blind] == 0).all()
    error = (found.double() - expected).norm() / expected.norm()
    assert error < 4 * torch.finfo(dtype).eps * math.sqrt(spec.kv_len)


def test_empty_lengths_give_zeros():
    q, k, v, spec, _ = make(kv_len=0)
    assert SdpaAttention()(q, k, v, spec=spec).eq(0).all()
    q, k, v, spec, _ = make(q_len=0)
    assert SdpaAttention()(q, k, v, spec=spec).shape == (2, 4, 0, 5)


def test_dropout_drops():
    q, k, v, spec, _ = make(dropout=0.5, dtype=torch.float32)
    torch.manual_seed(0)
    first, second = SdpaAttention()(q, k, v, spec=spec), SdpaAttention()(q, k, v, spec=spec)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dtype": torch.int32}, "is not a floating-point type"),
        ({"kv_heads": 3}, "4 query heads are no multiple of 3"),
        ({"window": 0}, "window is 0; a query sees at least 1 key"),
        ({"dropout": 1.0}, "dropout is 1.0; it lies in"),
        ({"device": "no-such-device"}, "there is no device 'no-such-device' here; there is cpu"),
    ],
)
def test_what_cannot_be_done_is_declined_and_refused_with_one_reason(change, says):
    from dataclasses import replace

    q, k, v, spec, _ = make()
    spec = replace(spec, **change)
    assert says in SdpaAttention().supports(spec).reason
    with pytest.raises(UnsupportedError) as error:
        SdpaAttention()(q, k, v, spec=spec)
    assert says in str(error.value)


def test_a_bias_that_the_spec_does_not_name_is_refused():
    q, k, v, spec, _ = make()
    with pytest.raises(UnsupportedError, match="bias=False and a bias is given"):
        SdpaAttention()(q, k, v, spec=spec, bias=torch.zeros(1))


def test_a_plain_problem_builds_no_mask():
    _, _, _, spec, _ = make()
    assert visible(spec, "cpu") is None


class Quick(SdpaAttention):
    name = "quick"

    def supports(self, spec):
        return Support(spec.head_dim <= 64, "" if spec.head_dim <= 64 else f"head_dim {spec.head_dim} is above 64")

    def cost(self, spec):
        return 0.5


class Unfinished(AttentionImpl):
    name = "unfinished"
    summary = "lacks its methods"


@pytest.fixture
def dispatcher():
    import sys
    import types

    registry = Registry()
    module = types.ModuleType("attention_samples")
    module.Quick, module.Unfinished, module.Sdpa = Quick, Unfinished, SdpaAttention
    sys.modules["attention_samples"] = module
    for name, attribute in (("quick", "Quick"), ("sdpa", "Sdpa"), ("unfinished", "Unfinished")):
        registry.add(Entry("attention", name, f"attention_samples:{attribute}", "a sample", "p", "planish-p", "1"))
    yield AttentionDispatcher(registry)
    del sys.modules["attention_samples"]


def spec(head_dim=64, **more):
    values = {"batch": 1, "heads": 4, "kv_heads": 4, "q_len": 8, "kv_len": 8, "dtype": torch.float32, "device": "cpu"}
    return AttentionSpec(**{**values, "head_dim": head_dim, **more})


def test_the_cheapest_that_can_is_chosen_and_remembered(dispatcher):
    chosen = dispatcher.select(spec())
    assert chosen.name == "quick"
    assert dispatcher.select(spec()) is chosen
    assert dispatcher.select(spec(head_dim=128)).name == "sdpa"


def test_explain_says_why_each_was_passed_over(dispatcher):
    choices = {c.name: c for c in dispatcher.explain(spec(head_dim=128))}
    assert choices["sdpa"].chosen
    assert choices["quick"].reason == "head_dim 128 is above 64"
    assert "leaves abstract: __call__, supports" in choices["unfinished"].reason
    choices = {c.name: c for c in dispatcher.explain(spec())}
    assert choices["sdpa"].reason == "expected at 1 times torch's time; quick at 0.5 times"
    assert sum(c.chosen for c in choices.values()) == 1


def test_a_named_one_is_used_or_refused_with_its_reason(dispatcher):
    assert dispatcher.select(spec(), "sdpa").name == "sdpa"
    with pytest.raises(UnsupportedError, match="attention 'quick': head_dim 128 is above 64; choose another"):
        dispatcher.select(spec(head_dim=128), "quick")
    with pytest.raises(PluginError, match="did you mean 'quick'"):
        dispatcher.select(spec(), "quik")
    with pytest.raises(PluginError, match="leaves abstract"):
        dispatcher.select(spec(), "unfinished")


def test_where_none_can_all_reasons_are_given(dispatcher):
    with pytest.raises(UnsupportedError, match=r"no attention implementation can solve .*quick: .*sdpa: "):
        dispatcher.select(spec(head_dim=128, dtype=torch.int8))
