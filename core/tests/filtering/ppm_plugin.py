"""The filters over pictures as a plugin."""

import planish
from planish.plugins import builtin
from planish.plugins.manager import PluginManager


class PpmPlugin:
    @planish.hookimpl
    def planish_register_data_filters(self, register):
        register("pictures", "ppm_filters:Pictures", "brightness of PPM pictures")
        register("staged-pictures", "ppm_filters:Staged", "brightness of PPM pictures, in two stages")


def registry():
    manager = PluginManager()
    manager.register(PpmPlugin(), "ppm", "planish-ppm", "3.1.0")
    manager.register(builtin, "builtin", "planish", "0")
    return manager.registry
