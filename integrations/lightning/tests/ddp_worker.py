"""One rank of a two-process training; run by test_ddp.py as ``ddp_worker.py RANK PORT OUT MODE``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

rank, port, out, mode = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4]
os.environ |= {
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": port,
    "WORLD_SIZE": "2",
    "NODE_RANK": "0",
    "LOCAL_RANK": str(rank),
    "OMP_NUM_THREADS": "1",
}
sys.path.insert(0, str(Path(__file__).parent))

import lightning as L  # noqa: E402
import lightning_samples as samples  # noqa: E402
import torch  # noqa: E402
from lightning.pytorch.strategies import DDPStrategy  # noqa: E402
from planish_lightning import LitCausalLM, Sparsify, TextDataModule  # noqa: E402

torch.set_num_threads(1)
registry = samples.registry()
TINY = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "vocab_size": 256,
}


class Drift(L.Callback):
    """Lets rank 1 forget the first step: its weights are then no longer those of rank 0."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_rank == 1 and trainer.global_step == 1:
            pl_module.model.model.layers[0].mlp.up_proj.weight.data.neg_().add_(0.3)


torch.manual_seed(0)
lit = LitCausalLM.from_plugin("llama", TINY, registry=registry, lr=1e-2)
callback = Sparsify("half", targets=["*.mlp.*"], registry=registry, decay=0.01, compare_masks_every=2)
trainer = L.Trainer(
    accelerator="cpu",
    devices=2,
    strategy=DDPStrategy(process_group_backend="gloo"),
    use_distributed_sampler=False,
    max_steps=6,
    gradient_clip_val=1.0,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    callbacks=[Drift(), callback] if mode == "drift" else [callback],
)
data = TextDataModule(str(out / "corpus"), seq_len=16, batch_size=4, val_fraction=0.3)
trainer.fit(lit, data)
found = trainer.validate(lit, data, verbose=False)[0]["val/loss"]
torch.save(
    {"masks": {n: m.clone() for n, m in callback.masks.items()}, "state": lit.model.state_dict(), "val": found},
    out / f"rank{rank}.pt",
)
