"""CLIP on a GPU: all frames of many clips in one pass, beside the loop over clips and frames of EgoVid's script."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from planish.benchmark import Measurement, Row, interleave

from planish_egovid.benchmark.rate import rate_row
from planish_egovid.semantics.clip_encoder import MEAN, STD, ClipEncoder

PUBLISHED_RATE = 5000 / 3600
"""Clips a second that a comment in EgoVid's ``clipsim.py`` states, on one card that it does not name."""
LOOP = "loop over clips and frames, float32"
LOOP_SAME = "loop over clips and frames, bfloat16"
PUBLISHED = "published rate, card not named"
FRAMES = 4
TOKENS = 12
"""Tokens of a usual action phrase with its two ends; the loop pads to the model's 77, as open_clip's tokenizer does."""


@dataclass(frozen=True)
class ClipSizes:
    """Sizes of the measurement.

    Attributes:
        vision: Width, layers, heads, patch of the image side.
        text: Width, layers, heads of the text side.
        image: Side of the images.
        projection: Width of the embeddings.
        batches: Images a pass.
        looped: Clips that the loop is timed on.
        rounds: Samples of each.
    """

    vision: tuple[int, int, int, int] = (1024, 24, 16, 14)
    text: tuple[int, int, int] = (768, 12, 12)
    image: int = 224
    projection: int = 768
    batches: tuple[int, ...] = (4, 64, 256, 1024)
    looped: int = 2
    rounds: int = 5


QUICK = ClipSizes((32, 2, 2, 8), (32, 2, 2), 32, 24, (4, 8), 1, 3)


class FixedTokens:
    """Stands in for a tokenizer: numbers that follow from the text, of a fixed count, end of text last."""

    def __init__(self, vocabulary: int, count: int) -> None:
        """Make texts of ``count`` tokens out of ``vocabulary``, whose last two are the ends."""
        self.vocabulary, self.count = vocabulary, count

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, torch.Tensor]:
        """Return ``input_ids`` and ``attention_mask``, both [texts, count]."""
        rows = []
        for text in texts:
            drawn = np.random.default_rng(list(text.encode())).integers(0, self.vocabulary - 2, self.count - 2)
            rows.append([self.vocabulary - 2, *drawn.tolist(), self.vocabulary - 1])
        ids = torch.tensor(rows)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class ClipCase:
    """A CLIP of the right sizes with random weights: its speed does not depend on their values."""

    def __init__(self, sizes: ClipSizes, device: str) -> None:
        """Build the model in float32 and in the format that a GPU runs, on ``device``."""
        from transformers import CLIPConfig, CLIPModel

        self.sizes, self.device = sizes, device
        width, layers, heads, patch = sizes.vision
        text_width, text_layers, text_heads = sizes.text
        vocabulary = 49408
        config = CLIPConfig(
            vision_config={
                "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
                "num_attention_heads": heads, "patch_size": patch, "image_size": sizes.image,
            },
            text_config={
                "hidden_size": text_width, "intermediate_size": 4 * text_width, "num_hidden_layers": text_layers,
                "num_attention_heads": text_heads, "vocab_size": vocabulary, "bos_token_id": vocabulary - 2,
                "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1,
            },
            projection_dim=sizes.projection,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = CLIPModel(config).eval().to(device)
        self.vocabulary = vocabulary
        drawn = np.random.default_rng(0)
        clips = max(8, -(-max(sizes.batches) // FRAMES))
        coarse = drawn.integers(0, 256, (clips, FRAMES, 8, 8, 3), np.uint8)
        side = sizes.image // 8
        self.images: list[NDArray[np.uint8]] = [
            np.ascontiguousarray(clip.repeat(side, axis=1).repeat(side, axis=2)) for clip in coarse
        ]
        self.texts = [f"action {number}" for number in range(clips)]

    def encoder(self, dtype: torch.dtype, batch: int = 256, tokens: int = TOKENS) -> ClipEncoder:
        """Return an encoder in a number format."""
        return ClipEncoder(
            copy.deepcopy(self.model).to(dtype),
            FixedTokens(self.vocabulary, tokens),
            name="clip/random",
            mean=MEAN,
            std=STD,
            device=self.device,
            dtype=dtype,
            batch_size=batch,
        )

    def ours(self, encoder: ClipEncoder, clips: int) -> list[list[float]]:
        """Score clips in batches: texts once a clip."""
        images = encoder.embed_images(self.images[:clips])
        texts = encoder.embed_texts(self.texts[:clips])
        return [(100 * image.astype(np.float64) @ text).tolist() for image, text in zip(images, texts, strict=True)]

    @torch.inference_mode()
    def loop(self, encoder: ClipEncoder, clips: int) -> list[list[float]]:
        """Score clips as ``clipsim.py`` does: a frame at a time, the text encoded again for each."""
        scores = []
        for clip, text in zip(self.images[:clips], self.texts[:clips], strict=True):
            found = []
            for frame in clip:
                image = encoder.image_features(encoder.pixels(frame[None]))
                words = encoder.text_features([text])
                image, words = (torch.nn.functional.normalize(value, dim=-1) for value in (image, words))
                found.append(float((100 * image @ words.T).item()))
            scores.append(found)
        return scores

    def faults(self, short: torch.dtype) -> Iterator[str]:
        """Say where scores disagree with the same model in float64, over two clips."""
        exact = self.encoder(torch.float64)
        expected = np.array(self.loop(exact, 2))
        del exact
        # Cosines times 100; bfloat16 keeps 8 bits, and is off by about 0.05 after 24 layers of random weights.
        for dtype, tolerance in ((torch.float32, 0.01), (short, 0.5)):
            difference = float(np.abs(np.array(self.ours(self.encoder(dtype), 2)) - expected).max())
            if not difference <= tolerance:
                yield f"CLIP in {dtype} is off by {difference:.3g} from float64, more than {tolerance}"


def clip_rows(case: ClipCase, short: torch.dtype, say: Callable[[str], None]) -> Iterator[Row]:
    """Clips a second by images a pass, and the best of them beside the published rate."""
    sizes, on_gpu = case.sizes, case.device.startswith("cuda")
    exact_loop, short_loop = (case.encoder(dtype, tokens=77) for dtype in (torch.float32, short))
    best: tuple[float, int, Measurement] | None = None
    label = f"clip/{sizes.vision[0]}x{sizes.vision[1]}"
    for batch in sizes.batches:
        clips = max(1, batch // FRAMES)
        encoder = case.encoder(short, batch)
        # On a processor an encoder goes clip by clip; to try this program there, let it do as on a GPU.
        encoder._on_gpu = True
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        times = interleave(
            {
                "ours": lambda encoder=encoder, clips=clips: case.ours(encoder, clips),  # type: ignore[misc]
                LOOP: lambda: case.loop(exact_loop, sizes.looped),
                LOOP_SAME: lambda: case.loop(short_loop, sizes.looped),
            },
            device=case.device,
            rounds=sizes.rounds,
            warmup=2,
        )
        counts = {"ours": clips, LOOP: sizes.looped, LOOP_SAME: sizes.looped}
        extra: dict[str, object] = {"images a pass": batch, "format": str(short).removeprefix("torch.")}
        if on_gpu:
            extra["peak GPU memory, GiB"] = torch.cuda.max_memory_allocated() / 2**30
            extra["images/s"] = 1e3 * FRAMES * clips / times["ours"].median
        row = rate_row(f"{label}/batch{batch}", times, counts, against=LOOP, extra=extra)
        say(f"{row.case}: {row.ours.median:.4g} clips/s, loop {row.peers[LOOP].median:.4g}")
        yield row
        if best is None or row.ours.median > best[0]:
            best = (row.ours.median, batch, row.ours)
    if best is not None:
        yield Row.compare(
            f"{label}/best, batch {best[1]}",
            best[2],
            {PUBLISHED: Measurement.of([PUBLISHED_RATE])},
            against=PUBLISHED,
            metric="rate",
            unit="clips/s",
            better="higher",
        )
