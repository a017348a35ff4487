from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).parent))  # sample plugins are registered as "lightning_samples:Class"


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Models here are tiny: threads only get in each other's way."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def registry():
    import lightning_samples

    return lightning_samples.registry()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder of ten text files, some kilobytes together."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(10):
        words = " ".join(f"{(number * 7919 + i * i) % 997:x}" for i in range(160))
        (folder / f"part{number}.txt").write_text(f"part {number}\n{words}\n")
    return folder
