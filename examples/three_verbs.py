"""Plan, apply, finish: 2:4 sparse pre-training in a plain PyTorch loop, without Lightning.

python examples/three_verbs.py --steps 200 --out out/three-verbs
"""

from __future__ import annotations

import argparse

import planish
import torch
from planish_lightning.text_data import TextDataModule
from transformers import GPT2Config, GPT2LMHeadModel


@torch.no_grad()
def validation_loss(model: torch.nn.Module, data: TextDataModule) -> float:
    """Return the mean next-token cross-entropy in nats over a few batches."""
    model.eval()
    losses = [float(model(**batch).loss) for batch in data.val_dataloader()]
    model.train()
    return sum(losses) / len(losses)


def main() -> None:
    """Train, finish, save, and load again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps")
    parser.add_argument("--out", default="out/three-verbs", help="folder for the finished model")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    data = TextDataModule("stdlib", max_bytes=2_000_000, seq_len=128, batch_size=8, val_batches=4)
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=4, n_embd=128, vocab_size=256, n_positions=128))

    # What would happen, module by module, and why not elsewhere. Nothing is changed.
    options = {"mask_interval": 10, "decay": 6e-5}
    print(planish.plan(model, "pretrain24", **options))

    # In place, before the optimizer exists; parameters stay the same objects.
    live = planish.apply(model, "pretrain24", **options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)

    live.on_train_start(total_steps=arguments.steps)
    step = 0
    while step < arguments.steps:
        for batch in data.train_dataloader():
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            live.on_gradients(step)  # after clipping: the masked decay
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            metrics = live.on_step(step)  # after the step: masks, the switch to dense
            if "flip_rate" in metrics:
                print(f"step {step}: loss {float(loss.detach()):.3f}, flip rate {metrics['flip_rate']:.2e}")
            if step == arguments.steps:
                break

    # Plain layers again: the form that is deployed.
    planish.finish(model)
    print(f"validation loss {validation_loss(model, data):.4f}")
    planish.save(model, arguments.out)
    again = planish.load(arguments.out)
    print(f"loaded from {arguments.out}: validation loss {validation_loss(again, data):.4f}")


if __name__ == "__main__":
    main()
