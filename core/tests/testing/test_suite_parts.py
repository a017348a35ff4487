"""What the suites are made of is itself right: the attention oracle, the tiny transformer, comparison, refusal."""

import math
import subprocess
import sys
import time

import pytest
import torch
import torch.nn.functional as F
from planish import ConfigError, DataError
from planish.interfaces import AttentionSpec
from planish.targets import tied_parameters
from planish.testing.attention_contract import oracle
from planish.testing.child_processes import child_processes, left_running
from planish.testing.clause import refusal
from planish.testing.comparison import difference, relative_error
from planish.testing.picture import picture_fault
from planish.testing.snapshot import Snapshot
from planish.testing.tiny_transformer import TinyTransformer, token_batches
from samples.suites import MagnitudeSuite


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_oracle_is_softmax_attention(causal, kv_heads):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 9, 8, generator=generator, dtype=torch.float64)
    k, v = (torch.randn(2, kv_heads, 9, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    found = oracle(q, k, v, AttentionSpec.of(q, k, v, causal=causal))
    k, v = (t.repeat_interleave(4 // kv_heads, dim=1) for t in (k, v))
    torch.testing.assert_close(found, F.scaled_dot_product_attention(q, k, v, is_causal=causal))


def test_oracle_window_shows_the_most_recent_keys():
    q = k = torch.zeros(1, 1, 6, 4, dtype=torch.float64)
    v = torch.eye(6, dtype=torch.float64)[None, None]
    weights = oracle(q, k, v, AttentionSpec.of(q, k, v, causal=True, window=2))[0, 0]
    assert weights[0].tolist() == [1, 0, 0, 0, 0, 0]
    assert weights[4].tolist() == [0, 0, 0, 0.5, 0.5, 0]


def test_oracle_decodes_from_the_end():
    q, k = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 4, 4)
    v = torch.eye(4)[None, None]
    weights = oracle(q, k, v, AttentionSpec.of(q, k, v, causal=True))[0, 0]
    assert weights[0, 3] == 0
    torch.testing.assert_close(weights[1], torch.full((4,), 0.25, dtype=torch.float64))


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_tiny_transformer_is_a_causal_language_model(gated, tied):
    torch.manual_seed(0)
    model = TinyTransformer(gated=gated, tied_mlp=tied, tied_head=tied)
    batch = token_batches(1)[0]
    output = model(**batch)
    assert output.logits.shape == (4, 16, 64)
    assert math.isfinite(output.loss.item())
    other = batch["input_ids"].clone()
    other[:, 8:] = 0
    torch.testing.assert_close(model(other).logits[:, :8], output.logits[:, :8])
    assert bool(tied_parameters(model)) is tied


def test_difference_names_what_differs():
    one = {"a": torch.ones(2)}
    assert difference(one, {"a": torch.ones(2)}) == ""
    assert difference(one, {"a": torch.ones(2) + 0.5}) == "'a' differs by up to 0.5"
    assert difference(one, {}) == "'a' is new"
    assert difference({}, one) == "'a' is missing"
    assert "torch.float64" in difference(one, {"a": torch.ones(2, dtype=torch.float64)})


def test_relative_error():
    assert relative_error(torch.tensor([3.0]), torch.tensor([2.0])) == 0.5
    assert relative_error(torch.tensor([math.nan]), torch.tensor([2.0])) == math.inf
    assert relative_error(torch.ones(2), torch.ones(3)) == math.inf


def test_snapshot_sees_each_kind_of_change():
    model = TinyTransformer()
    before = Snapshot.of(model)
    model.norm.weight.data[0] += 1
    model.layers[0].mlp.eval()
    model.norm.register_forward_hook(lambda *_: None)
    model.lm_head = torch.nn.Linear(32, 64, bias=False)
    torch.rand(1)
    after = Snapshot.of(model)
    assert before.changed_tensor(after) in ("norm.weight", "lm_head.weight")
    assert before.changed_module(after) == "lm_head"
    assert before.changed_mode(after).startswith("layers.0.mlp")
    assert before.changed_hooks(after) == "norm: _forward_hooks"
    assert before.random != after.random


def test_refusal_wants_the_right_error_with_the_right_words():
    with refusal(ConfigError, "bits", when="it is wrong"):
        raise ConfigError("bits: too many")
    for error in (ConfigError("too many"), DataError("bits"), TypeError("bits")):
        with (
            pytest.raises(pytest.fail.Exception, match="when it is wrong"),
            refusal(ConfigError, "bits", when="it is wrong"),
        ):
            raise error


def test_suite_inside_a_function_is_asked_to_move():
    class Local(MagnitudeSuite):
        pass

    with pytest.raises(pytest.fail.Exception, match="define it at module level"):
        Local().test_survives_parallel_training()


def test_import_without_pytest_names_the_extra():
    program = "import sys; sys.modules['pytest'] = None; import planish.testing"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("planish.testing needs pytest; run: pip install 'planish[testing]'")


PNG = b"\x89PNG\r\n\x1a\n" + bytes(8) + b"IEND\xaeB`\x82"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="2" height="2"/>'


@pytest.mark.parametrize(
    ("data", "media_type", "fault"),
    [
        (PNG, "image/png", ""),
        (b"\xff\xd8\xff\xe0 jfif \xff\xd9", "image/jpeg", ""),
        (b"GIF89a ;", "image/gif", ""),
        (b"RIFF\x04\x00\x00\x00WEBP", "image/webp", ""),
        (SVG, "image/svg+xml", ""),
        (PNG, "image/jpeg", "is no whole image/jpeg"),
        (PNG[:-1], "image/png", "is no whole image/png"),
        (b"RIFF\x05\x00\x00\x00WEBP", "image/webp", "is no whole image/webp"),
        (SVG[:-1], "image/svg+xml", "is no SVG"),
        (b"<svg/>", "image/svg+xml", "is no SVG: its root is 'svg'"),
        (b"", "image/png", "is empty"),
        ("text", "image/png", "holds str instead of bytes"),
        (b"RIFF", "audio/wav", "a page shows"),
    ],
)
def test_picture_fault(data, media_type, fault):
    found = picture_fault(data, media_type)
    assert fault in found
    assert bool(found) is bool(fault)


def test_child_processes_are_found_and_waited_for():
    before = child_processes()
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(0.6)'])"
    with subprocess.Popen([sys.executable, "-c", program]) as started:
        deadline = time.monotonic() + 10
        while len(new := {n: c for n, c in child_processes().items() if n not in before}) < 2:
            assert time.monotonic() < deadline, new
            time.sleep(0.01)
        assert started.pid in new
        assert any(command.endswith("import time; time.sleep(0.6)") for command in new.values())
        assert len(left_running(before, expected=(), patience_s=0)) >= 1
        assert left_running(before, expected=("time.sleep",), patience_s=0) == []
        assert left_running(before, expected=(), patience_s=20) == []
