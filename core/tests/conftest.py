"""Small plugins that every test of the core can use."""

import sys
from pathlib import Path

import pytest
from planish.plugins.manager import DISABLE_VARIABLE, PluginManager

sys.path.insert(0, str(Path(__file__).parent))

import tiny_plugins


@pytest.fixture(autouse=True)
def _nothing_blocked(monkeypatch):
    monkeypatch.delenv(DISABLE_VARIABLE, raising=False)


@pytest.fixture
def registry():
    """A registry that knows the tiny plugins and nothing else."""
    manager = PluginManager()
    manager.register(tiny_plugins, "tiny", "planish-tiny", "1.2.0")
    return manager.registry


@pytest.fixture
def cli(registry, capsys):
    """Run a command line in this process: (exit code, stdout, stderr)."""
    from planish.cli.app import main

    def call(*arguments, registry=registry):
        code = main([str(a) for a in arguments], registry=registry)
        out, err = capsys.readouterr()
        return code, out, err

    return call
