"""The transforms of a recipe in your own Trainer: one callback.

python examples/lightning_trainer.py --steps 200 --out out/lightning-trainer
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightning as L
import planish
from planish_lightning import Compose, LitCausalLM, TextDataModule


def main() -> None:
    """Train with the quickstart's transforms, validate, finish and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps")
    parser.add_argument("--out", default="out/lightning-trainer", help="folder for the finished model")
    arguments = parser.parse_args()

    L.seed_everything(0)
    data = TextDataModule("stdlib", max_bytes=2_000_000, seq_len=128, batch_size=8, val_batches=4)
    lit = LitCausalLM.from_plugin(
        "llama",
        {
            "vocab_size": data.tokenizer.vocab_size,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 128,
        },
        lr=1e-3,
        warmup_steps=arguments.steps // 10,
    )

    # Of the recipe only its transforms are read: model, data and training are yours.
    compose = Compose(Path(__file__).with_name("quickstart.yaml"))
    trainer = L.Trainer(
        max_steps=arguments.steps,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        callbacks=[compose],
    )
    trainer.fit(lit, data)

    planish.finish(lit.model)
    found = trainer.validate(lit, data, verbose=False)[0]
    print(f"validation loss {found['val/loss']:.4f}, perplexity {found['val/perplexity']:.2f}")
    planish.save(lit.model, arguments.out)


if __name__ == "__main__":
    main()
