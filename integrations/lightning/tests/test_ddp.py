from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from planish_lightning import LitCausalLM, Sparsify, TextDataModule

WORKER = Path(__file__).with_name("ddp_worker.py")


def launch(out: Path, mode: str) -> list[subprocess.CompletedProcess[str]]:
    """Run two ranks and return how they ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(rank), str(port), str(out), mode],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        texts = [rank.communicate(timeout=240)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    return [subprocess.CompletedProcess(r.args, r.returncode, text) for r, text in zip(ranks, texts)]


@pytest.fixture
def out(corpus: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "ddp"
    shutil.copytree(corpus, folder / "corpus")
    return folder


def one_process(out: Path, registry) -> tuple[LitCausalLM, Sparsify, float]:
    """Train in this process with the doubled batch."""
    tiny = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 32,
        "vocab_size": 256,
    }
    torch.manual_seed(0)
    lit = LitCausalLM.from_plugin("llama", tiny, registry=registry, lr=1e-2)
    callback = Sparsify("half", targets=["*.mlp.*"], registry=registry, decay=0.01)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=6,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    )
    data = TextDataModule(str(out / "corpus"), seq_len=16, batch_size=8, val_fraction=0.3)
    trainer.fit(lit, data)
    return lit, callback, trainer.validate(lit, data, verbose=False)[0]["val/loss"]


def test_two_ranks_equal_one_process_with_the_doubled_batch(out, registry):
    ended = launch(out, "plain")
    assert [e.returncode for e in ended] == [0, 0], ended[0].stdout[-3000:] + ended[1].stdout[-3000:]
    ranks = [torch.load(out / f"rank{rank}.pt") for rank in (0, 1)]
    lit, callback, val = one_process(out, registry)
    assert len(ranks[0]["masks"]) == 3
    for name, mask in ranks[0]["masks"].items():
        assert torch.equal(mask, ranks[1]["masks"][name]), name
        assert torch.equal(mask, callback.masks[name]), name
    for name, tensor in ranks[0]["state"].items():
        assert torch.equal(tensor, ranks[1]["state"][name]), name
        assert torch.allclose(tensor.float(), lit.model.state_dict()[name].float(), atol=2e-5), name
    assert ranks[0]["val"] == ranks[1]["val"] == pytest.approx(val, rel=1e-4)


def test_drifted_ranks_are_noticed(out):
    ended = launch(out, "drift")
    assert all(e.returncode for e in ended)
    assert "the masks of rank 1 differ from those of rank 0" in ended[0].stdout + ended[1].stdout
