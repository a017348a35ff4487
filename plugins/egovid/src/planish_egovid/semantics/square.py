"""Square pictures as image models expect them: shorter side resized, middle cut out, by Pillow as in the originals."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planish_egovid.model.source import require

Resampling = Literal["bicubic", "bilinear"]


def squares(
    images: NDArray[np.uint8], size: int, *, resampling: Resampling = "bicubic", rounds_crop: bool = False
) -> NDArray[np.uint8]:
    """Resize the shorter side to ``size`` and cut out the middle square.

    The same pixels as ``transformers.CLIPImageProcessorPil`` gives, before it rescales and normalises: Pillow's
    antialiased filter, the longer side truncated to whole pixels.

    Args:
        images: uint8 [frames, height, width, 3], RGB.
        size: Side of the square, in pixels.
        resampling: Filter.
        rounds_crop: Whether an odd margin is rounded half to even, as ``torchvision.transforms.CenterCrop`` does,
            rather than down, as transformers does.

    Returns:
        uint8 [frames, size, size, 3].

    Raises:
        UnsupportedError: Pillow is not installed.
    """
    require("PIL", "clip")
    from PIL import Image

    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    frames, height, width, _ = images.shape
    if height <= width:
        resized = (int(size * width / height), size)
    else:
        resized = (size, int(size * height / width))
    left, top = ((side - size) / 2 for side in resized)
    x, y = (round(left), round(top)) if rounds_crop else (int(left), int(top))
    result = np.empty((frames, size, size, 3), np.uint8)
    for target, image in zip(result, images, strict=True):
        picture = Image.fromarray(image)
        if picture.size != resized:
            picture = picture.resize(resized, filters[resampling])
        target[:] = np.asarray(picture.crop((x, y, x + size, y + size)))
    return result
