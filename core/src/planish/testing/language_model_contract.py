"""LanguageModelContract: the contract of :class:`planish.interfaces.LanguageModel`."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import planish
from planish.recipe.schema import ModelSpec
from planish.testing.clause import require
from planish.testing.comparison import difference, relative_error
from planish.testing.plugin_contract import PluginContract


class LanguageModelContract(PluginContract):
    """The whole battery for a language model::

    class TestDemo(LanguageModelContract):
        plugin = Demo
        options = {"vocab_size": 64, "layers": 2, "hidden_size": 32}

    Choose hyper-parameters that build and run in milliseconds.
    """

    kind: ClassVar[str] = "language_model"

    length: ClassVar[int] = 12
    """Tokens in the suite's sequences."""

    tolerance: ClassVar[float] = 1e-4
    """Largest relative RMS difference of logits that are computed in two ways."""

    def make_model(self) -> nn.Module:
        """Return a newly built model in evaluation mode; the same weights on each call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(10)
            model: nn.Module = self.make_plugin().build()
        return model.eval()

    def make_ids(self, batch: int = 3, length: int | None = None) -> Tensor:
        """Return token ids, int64 [batch, length]; the same on each call."""
        vocab_size = self.make_plugin().config.vocab_size
        generator = torch.Generator().manual_seed(80)
        return torch.randint(vocab_size, (batch, length or self.length), generator=generator)

    # ---- clauses on building

    def test_config_has_a_vocab_size(self) -> None:
        """``Config`` has the field ``vocab_size``: data and recipes set it."""
        require(
            "vocab_size" in self.plugin.Config.model_fields,
            f"{self.plugin.__name__}.Config has no field vocab_size; its fields are "
            f"{', '.join(self.plugin.Config.model_fields)}",
        )

    def test_build_gives_float32_on_the_cpu(self) -> None:
        """A new model's parameters are float32 on the CPU, finite, and trainable."""
        for name, parameter in self.make_model().named_parameters():
            require(
                parameter.dtype == torch.float32 and parameter.device.type == "cpu",
                f"{name!r} is {parameter.dtype} on {parameter.device}; build in float32 on the CPU",
            )
            require(torch.isfinite(parameter).all(), f"{name!r} starts with infinite or NaN values")
            require(parameter.requires_grad, f"{name!r} does not require gradients")

    def test_build_draws_from_torch_alone(self) -> None:
        """The weights follow torch's seed, and neither Python's nor numpy's; another seed gives others."""
        states = []
        for seed, others in ((1, 1), (1, 2), (2, 2)):
            kept = random.getstate(), np.random.get_state()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                random.seed(others)
                np.random.seed(others)
                states.append(self.make_plugin().build().state_dict())
            random.setstate(kept[0])
            np.random.set_state(kept[1])
        gap = difference(states[1], states[0])
        require(not gap, f"two builds under one torch seed differ: {gap}; draw from torch's generator alone")
        require(difference(states[2], states[0]), "builds under two torch seeds are equal; initialise randomly")

    # ---- clauses on the forward pass

    def test_logits(self) -> None:
        """``forward(input_ids=…)`` returns finite ``logits`` [batch, length, vocab_size]."""
        ids = self.make_ids()
        output = self._run(self.make_model(), input_ids=ids)
        logits = getattr(output, "logits", None)
        expected = [*ids.shape, self.make_plugin().config.vocab_size]
        found = list(logits.shape) if isinstance(logits, Tensor) else logits
        require(found == expected, f"logits are {found}; expected {expected}")
        require(torch.isfinite(logits).all(), "the logits have infinite or NaN values")  # type: ignore[arg-type]

    def test_loss_is_next_token_cross_entropy(self) -> None:
        """``loss`` is the mean cross-entropy of logits [:, :-1] against labels [:, 1:], leaving out labels of -100."""
        model, ids = self.make_model(), self.make_ids()
        labels = ids.clone()
        labels[0, :4] = -100
        output = self._run(model, input_ids=ids, labels=labels)
        require(isinstance(getattr(output, "loss", None), Tensor), "given labels, forward() returns no loss")
        expected = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        require(
            abs(output.loss.item() - expected.item()) < 1e-4,
            f"the loss is {output.loss.item():.5f}; the cross-entropy of the shifted labels is {expected.item():.5f}",
        )

    def test_no_loss_without_labels(self) -> None:
        """Without labels ``loss`` is None."""
        loss = getattr(self._run(self.make_model(), input_ids=self.make_ids()), "loss", None)
        require(loss is None, f"without labels the loss is {loss!r}; expected None")

    def test_future_tokens_do_not_change_the_past(self) -> None:
        """A token changes the logits of its own and later positions alone."""
        model, ids = self.make_model(), self.make_ids()
        middle = ids.shape[1] // 2
        other = ids.clone()
        other[:, middle:] = (other[:, middle:] + 1) % self.make_plugin().config.vocab_size
        first, second = (self._run(model, input_ids=i).logits for i in (ids, other))
        gap = relative_error(second[:, :middle], first[:, :middle])
        require(gap <= self.tolerance, f"changing tokens from {middle} on changes earlier logits by {gap:.3g}")
        require(
            relative_error(second[:, middle:], first[:, middle:]) > self.tolerance,
            "changing tokens changes no logits at all: the model does not look at its input",
        )

    def test_padding_is_not_seen(self) -> None:
        """What stands where ``attention_mask`` is 0 does not change the logits of the other positions."""
        model, ids = self.make_model(), self.make_ids()
        for side, hidden in (("left", slice(0, 4)), ("right", slice(-4, None))):
            mask = torch.ones_like(ids)
            mask[0, hidden] = 0
            other = ids.clone()
            other[0, hidden] = (other[0, hidden] + 1) % self.make_plugin().config.vocab_size
            seen = mask.bool()
            first, second = (self._run(model, input_ids=i, attention_mask=mask).logits[seen] for i in (ids, other))
            gap = relative_error(second, first)
            require(gap <= self.tolerance, f"on the {side}, padding changes the logits of real tokens by {gap:.3g}")

    def test_rows_do_not_mix(self) -> None:
        """A sequence has the same logits alone as within a batch."""
        model, ids = self.make_model(), self.make_ids()
        together = self._run(model, input_ids=ids).logits
        for row in range(len(ids)):
            gap = relative_error(together[row], self._run(model, input_ids=ids[row : row + 1]).logits[0])
            require(gap <= self.tolerance, f"row {row} alone differs by {gap:.3g} from the same row in the batch")

    def test_evaluation_is_deterministic(self) -> None:
        """In evaluation mode two calls give the same logits, whatever the random state."""
        model, ids = self.make_model(), self.make_ids()
        logits = []
        for seed in (1, 2):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                logits.append(self._run(model, input_ids=ids).logits)
        require(torch.equal(logits[0], logits[1]), "two calls in evaluation mode give different logits")

    # ---- clauses on decoding

    def test_cache_gives_the_full_logits(self) -> None:
        """Logits token by token through ``past_key_values`` are those of the whole sequence at once."""
        model, ids = self.make_model(), self.make_ids()
        whole = self._run(model, input_ids=ids, use_cache=True).logits
        half = ids.shape[1] // 2
        step = self._run(model, input_ids=ids[:, :half], use_cache=True)
        pieces = [step.logits]
        for position in range(half, ids.shape[1]):
            past = getattr(step, "past_key_values", None)
            require(past is not None, "with use_cache=True forward() returns no past_key_values")
            token = ids[:, position : position + 1]
            step = self._run(model, input_ids=token, past_key_values=past, use_cache=True)
            pieces.append(step.logits)
        gap = relative_error(torch.cat(pieces, dim=1), whole)
        require(gap <= self.tolerance, f"logits through the cache differ by {gap:.3g} from the whole sequence's")

    def test_generate_is_greedy(self) -> None:
        """``generate(input_ids, max_new_tokens=…)`` keeps the prompt and appends the most likely token each time."""
        model, ids = self.make_model(), self.make_ids(batch=2, length=5)
        require(hasattr(model, "generate"), f"{type(model).__name__} has no generate(input_ids, max_new_tokens)")
        new = 4
        expected = ids
        for _ in range(new):
            logits = self._run(model, input_ids=expected).logits[:, -1]
            expected = torch.cat([expected, logits.argmax(-1, keepdim=True)], dim=1)
        with torch.no_grad():
            found = model.generate(ids, max_new_tokens=new)  # type: ignore[operator]
        require(
            isinstance(found, Tensor) and torch.equal(found, expected),
            f"generate() gives {_short(found)}; greedy decoding gives {_short(expected)}",
        )

    # ---- clauses on training and state

    def test_gradients_reach_every_parameter(self) -> None:
        """The loss has a finite gradient, not all zero, in every parameter."""
        model, ids = self.make_model().train(), self.make_ids(batch=8)
        model(input_ids=ids, labels=ids).loss.backward()
        for name, parameter in model.named_parameters():
            grad = parameter.grad
            require(grad is not None and grad.any(), f"{name!r} gets no gradient; is it used?")
            require(torch.isfinite(grad).all(), f"the gradient of {name!r} is not finite")  # type: ignore[arg-type]

    def test_training_lowers_the_loss(self) -> None:
        """A few steps on one batch lower its loss."""
        model, ids = self.make_model().train(), self.make_ids()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        losses = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(30)
            for _ in range(10):
                optimizer.zero_grad()
                loss = model(input_ids=ids, labels=ids).loss
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        require(
            losses[-1] < losses[0], f"ten steps on one batch took the loss from {losses[0]:.4f} to {losses[-1]:.4f}"
        )

    def test_checkpoint_loads_in_one_call(self, tmp_path: Path) -> None:
        """``planish.save`` with the model's name and options, then ``planish.load(folder)``, gives equal logits."""
        plugin, model, registry = self.make_plugin(), self.make_model(), self.own_registry()
        spec = ModelSpec(name=plugin.name, config=plugin.config.model_dump(mode="json"))
        planish.save(model, tmp_path / "model", model_spec=spec, registry=registry)
        again = planish.load(tmp_path / "model", registry=registry).eval()
        gap = difference(again.state_dict(), model.state_dict())
        require(not gap, f"after save and load, {gap}")
        ids = self.make_ids()
        logits = []
        for built in (model, again):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(40)
                logits.append(self._run(built, input_ids=ids).logits)
        first, second = logits
        require(
            torch.equal(first, second),
            "the loaded model gives other logits; keep all that they depend on in parameters and buffers",
        )

    def _run(self, model: nn.Module, **inputs: Any) -> Any:
        with torch.no_grad():
            return model(**inputs)


def _short(ids: Any) -> str:
    return str(ids[0].tolist()) if isinstance(ids, Tensor) and ids.ndim == 2 else repr(ids)
