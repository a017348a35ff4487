"""Broken language models, one for each clause of the contract."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from planish.config import Config as PluginConfig
from pydantic import Field
from samples.suites import TinyGPTSuite as Suite
from samples.tiny_gpt import GPT, TinyGPT
from torch import nn

from broken.case import Broken


class UnnamedVocabulary(TinyGPT):
    class Config(PluginConfig):
        words: int = Field(64, ge=2, description="number of tokens")

        @property
        def vocab_size(self):
            return self.words

    def build(self):
        return GPT(self.config.words, 32, 2, 2, 64)


class BuildsInFloat64(TinyGPT):
    def build(self):
        return super().build().double()


class DrawsFromPython(TinyGPT):
    def build(self):
        model = super().build()
        with torch.no_grad():
            model.head.weight.add_(1e-3 * random.random())
        return model


class OneTokenMore(TinyGPT):
    def build(self):
        values = self.config.model_dump()
        return GPT(**values | {"vocab_size": values["vocab_size"] + 1})


class UnshiftedGPT(GPT):
    def loss(self, logits, labels):
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)


class ForgetsTheShift(TinyGPT):
    module = UnshiftedGPT


class AlwaysLossGPT(GPT):
    def forward(self, input_ids, attention_mask=None, labels=None, past_key_values=None, use_cache=None):
        output = super().forward(input_ids, attention_mask, labels, past_key_values, use_cache)
        if output.loss is None:
            output.loss = torch.zeros(())
        return output


class LossWithoutLabels(TinyGPT):
    module = AlwaysLossGPT


class PeekingGPT(GPT):
    peeks = False

    def forward(self, input_ids, attention_mask=None, labels=None, past_key_values=None, use_cache=None):
        self.peeks = not use_cache
        return super().forward(input_ids, attention_mask, labels, past_key_values, use_cache)

    def visible(self, query, key, attention_mask):
        visible = super().visible(query, key, attention_mask)
        if not self.peeks:
            return visible
        next_token = key[None, :] == query[:, None] + 1
        seen = next_token if attention_mask is None else next_token & attention_mask.bool()[:, None, None, :]
        return visible | seen


class SeesTheFuture(TinyGPT):
    module = PeekingGPT


class MasklessGPT(GPT):
    def visible(self, query, key, attention_mask):
        return super().visible(query, key, None)


class IgnoresPadding(TinyGPT):
    module = MasklessGPT


class MixingGPT(GPT):
    def forward(self, input_ids, attention_mask=None, labels=None, past_key_values=None, use_cache=None):
        output = super().forward(input_ids, attention_mask, labels, past_key_values, use_cache)
        if attention_mask is None and labels is None:
            output.logits = output.logits - 0.1 * output.logits.mean(0, keepdim=True)
        return output


class MixesRows(TinyGPT):
    module = MixingGPT


class NoisyGPT(GPT):
    def forward(self, input_ids, attention_mask=None, labels=None, past_key_values=None, use_cache=None):
        output = super().forward(input_ids, attention_mask, labels, past_key_values, use_cache)
        output.logits = output.logits * (1 + 1e-6 * torch.randn_like(output.logits))
        return output


class NoisyInEvaluation(TinyGPT):
    module = NoisyGPT


class StaleCacheGPT(GPT):
    def forward(self, input_ids, attention_mask=None, labels=None, past_key_values=None, use_cache=None):
        output = super().forward(input_ids, attention_mask, labels, past_key_values, use_cache)
        if past_key_values is not None and use_cache:
            output.past_key_values = past_key_values
        return output

    @torch.no_grad()
    def generate(self, input_ids, max_new_tokens):
        for _ in range(max_new_tokens):
            token = self(input_ids).logits[:, -1].argmax(-1, keepdim=True)
            input_ids = torch.cat([input_ids, token], dim=1)
        return input_ids


class CacheStandsStill(TinyGPT):
    module = StaleCacheGPT


class PromptlessGPT(GPT):
    def generate(self, input_ids, max_new_tokens):
        return super().generate(input_ids, max_new_tokens)[:, input_ids.shape[1] :]


class DropsThePrompt(TinyGPT):
    module = PromptlessGPT


class UnusedParameter(TinyGPT):
    def build(self):
        model = super().build()
        model.spare = nn.Parameter(torch.zeros(3))
        return model


class AscendsTheLoss(TinyGPT):
    def build(self):
        model = super().build()
        for parameter in model.parameters():
            parameter.register_hook(torch.neg)
        return model


class GainGPT(GPT):
    gain = 1.0

    def forward(self, input_ids, attention_mask=None, labels=None, past_key_values=None, use_cache=None):
        output = super().forward(input_ids, attention_mask, None, past_key_values, use_cache)
        output.logits = output.logits * self.gain
        output.loss = None if labels is None else self.loss(output.logits, labels)
        return output


class GainOutsideState(TinyGPT):
    module = GainGPT

    def build(self):
        model = super().build()
        model.gain = 1 + torch.rand(()).item()
        return model


BROKEN = [
    Broken(Suite, "test_config_has_a_vocab_size", "no field vocab_size", UnnamedVocabulary),
    Broken(Suite, "test_build_gives_float32_on_the_cpu", "torch.float64", BuildsInFloat64),
    Broken(Suite, "test_build_draws_from_torch_alone", "torch's generator alone", DrawsFromPython),
    Broken(Suite, "test_logits", "expected [3, 12, 64]", OneTokenMore),
    Broken(Suite, "test_loss_is_next_token_cross_entropy", "shifted labels", ForgetsTheShift),
    Broken(Suite, "test_no_loss_without_labels", "expected None", LossWithoutLabels),
    Broken(Suite, "test_future_tokens_do_not_change_the_past", "changes earlier logits", SeesTheFuture),
    Broken(Suite, "test_padding_is_not_seen", "padding changes the logits", IgnoresPadding),
    Broken(Suite, "test_rows_do_not_mix", "the same row in the batch", MixesRows),
    Broken(Suite, "test_evaluation_is_deterministic", "different logits", NoisyInEvaluation),
    Broken(Suite, "test_cache_gives_the_full_logits", "logits through the cache differ", CacheStandsStill),
    Broken(Suite, "test_generate_is_greedy", "greedy decoding gives", DropsThePrompt),
    Broken(Suite, "test_gradients_reach_every_parameter", "'spare' gets no gradient", UnusedParameter),
    Broken(Suite, "test_training_lowers_the_loss", "took the loss from", AscendsTheLoss),
    Broken(Suite, "test_checkpoint_loads_in_one_call", "parameters and buffers", GainOutsideState),
]
