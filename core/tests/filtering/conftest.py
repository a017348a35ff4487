"""Pictures to filter, and a registry that knows the filters over them."""

import sys
from pathlib import Path

import planish
import pytest
from planish.plugins import builtin
from planish.plugins.manager import PluginManager

sys.path.insert(0, str(Path(__file__).parent))

import ppm_filters


class PpmPlugin:
    @planish.hookimpl
    def planish_register_data_filters(self, register):
        register("pictures", "ppm_filters:Pictures", "brightness of PPM pictures")
        register("staged-pictures", "ppm_filters:Staged", "brightness of PPM pictures, in two stages")
        register("unbuildable", "ppm_filters:Unbuildable", "brightness of PPM pictures")


@pytest.fixture
def registry():
    manager = PluginManager()
    manager.register(PpmPlugin(), "ppm", "planish-ppm", "3.1.0")
    manager.register(builtin, "builtin", "planish", "0")
    return manager.registry


@pytest.fixture
def pictures(tmp_path):
    """A folder of twelve pictures, one of them cut short, and one that is none."""
    folder = tmp_path / "pictures"
    for number in range(12):
        ppm_filters.write_ppm(folder / f"{number:02d}.ppm", number)
    short = folder / "03.ppm"
    short.write_bytes(short.read_bytes()[:-5])
    (folder / "07.ppm").write_bytes(b"not a picture")
    return folder
