"""Pictures to filter, and a registry that knows the filters over them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ppm_plugin
from ppm_filters import write_ppm


@pytest.fixture
def registry():
    return ppm_plugin.registry()


@pytest.fixture
def pictures(tmp_path):
    """A folder of twelve pictures, one of them cut short, and one that is none."""
    folder = tmp_path / "pictures"
    for number in range(12):
        write_ppm(folder / f"{number:02d}.ppm", number)
    short = folder / "03.ppm"
    short.write_bytes(short.read_bytes()[:-5])
    (folder / "07.ppm").write_bytes(b"not a picture")
    return folder
