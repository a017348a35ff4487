"""Finding plugins, checking them at load, and keeping a broken one from the rest."""

import importlib.metadata
import types

import planish
import pytest
from planish.errors import PluginError
from planish.plugins import hookspecs
from planish.plugins.manager import DISABLE_VARIABLE, HOOKS, PluginManager
from planish.plugins.registry import KINDS


def plugin(**hooks):
    module = types.ModuleType("made_up")
    for name, function in hooks.items():
        setattr(module, name, planish.hookimpl(function))
    return module


def offers(*entries, hook="planish_register_quantizers"):
    def implementation(register):
        for name, target in entries:
            register(name, target, "a summary")

    return plugin(**{hook: implementation})


def test_every_kind_has_a_hook():
    specified = {name for name in vars(hookspecs) if name.startswith("planish_register_")}
    assert set(HOOKS) == specified
    assert sorted(HOOKS.values()) == sorted(KINDS)


def test_what_a_plugin_offers_is_recorded():
    manager = PluginManager()
    manager.register(offers(("q4", "nowhere:Q4")), "mine", "planish-mine", "2.1")
    entry = manager.registry.find("q4", "quantizer")
    assert (entry.plugin, entry.distribution, entry.version, entry.target) == (
        "mine",
        "planish-mine",
        "2.1",
        "nowhere:Q4",
    )


def test_an_unknown_hook_is_refused_by_name():
    manager = PluginManager()
    with pytest.raises(PluginError, match="unknown hook 'planish_register_quantisers'"):
        manager.register(offers(("q", "a:b"), hook="planish_register_quantisers"), "typo")
    assert not manager.registry.entries


def test_a_hook_with_a_wrong_argument_is_refused():
    def implementation(registry):
        registry("q", "a:b", "")

    with pytest.raises(PluginError, match="planish_register_quantizers"):
        PluginManager().register(plugin(planish_register_quantizers=implementation), "wrong")


def test_a_plugin_without_hooks_is_refused():
    with pytest.raises(PluginError, match="'empty' of planish-empty registers nothing; implement one of the hooks"):
        PluginManager().register(types.ModuleType("empty"), "empty", "planish-empty")


@pytest.mark.parametrize(
    ("name", "target", "says"),
    [
        ("bad name", "a:b", "a name is letters, digits, '-' and '_'"),
        ("", "a:b", "a name is letters"),
        ("good", "a.b", "a target reads 'module:attribute'"),
        ("good", ":b", "a target reads 'module:attribute'"),
    ],
)
def test_a_malformed_registration_is_refused(name, target, says):
    with pytest.raises(PluginError, match=says):
        PluginManager().register(offers((name, target)), "mine")


def test_two_plugins_cannot_share_a_name_and_the_first_stays():
    manager = PluginManager()
    manager.register(offers(("q", "one:Q")), "one", "planish-one")
    with pytest.raises(PluginError) as error:
        manager.register(offers(("other", "two:O"), ("q", "two:Q")), "two", "planish-two")
    said = str(error.value)
    assert "planish-one (one:Q)" in said
    assert "planish-two (two:Q)" in said
    assert "PLANISH_DISABLE_PLUGINS=two" in said
    assert [e.name for e in manager.registry.of()] == ["q"], "nothing of the refused plugin may stay"
    manager.register(offers(("q", "s:Q"), hook="planish_register_sparsifiers"), "three")  # another kind: another name


def test_blocking_by_option_and_by_variable(monkeypatch):
    monkeypatch.setenv(DISABLE_VARIABLE, " one, ")
    manager = PluginManager(block=["two"])
    for name in ("one", "two", "three"):
        manager.register(offers((name, "a:b")), name)
    assert [e.name for e in manager.registry.of()] == ["three"]
    assert DISABLE_VARIABLE in manager.registry.blocked["one"]
    assert manager.registry.blocked["two"] == "the option -p no:two"
    with pytest.raises(PluginError, match="'two' is blocked by the option -p no:two; unblock it"):
        manager.registry.find("two", "quantizer")


def test_a_star_blocks_all(monkeypatch):
    monkeypatch.setenv(DISABLE_VARIABLE, "*")
    registry = PluginManager().discover().registry
    assert not registry.entries
    assert "builtin" in registry.blocked


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Pretend that distributions with entry points are installed; the modules lie in a folder on the path."""
    import sys

    monkeypatch.syspath_prepend(str(tmp_path))

    def install(distribution, entry_point, source):
        module = f"{distribution.replace('-', '_')}_{entry_point}"
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        with (info / "entry_points.txt").open("a") as file:
            if file.tell() == 0:
                file.write("[planish]\n")
            file.write(f"{entry_point} = {module}\n")
        importlib.invalidate_caches()

    yield install
    for name in [n for n in sys.modules if n.startswith("acme_")]:
        del sys.modules[name]


GOOD = """
import planish
@planish.hookimpl
def planish_register_quantizers(register):
    register("{name}", "nowhere:Q", "fine")
"""


def test_discovery_keeps_a_broken_plugin_from_the_rest(installed):
    installed("acme-good", "good", GOOD.format(name="acme"))
    installed("acme-import", "cannot_import", "import does_not_exist")
    installed("acme-hook", "bad_hook", GOOD.replace("quantizers", "quantisers").format(name="x"))
    installed("acme-exit", "raises", "raise RuntimeError('no')")
    registry = PluginManager().discover().registry
    assert registry.find("acme", "quantizer").distribution == "acme-good"
    assert {"cannot_import", "bad_hook", "raises"} <= set(registry.broken)
    assert isinstance(registry.broken["cannot_import"], ModuleNotFoundError)
    with pytest.raises(PluginError, match="'raises' is broken: RuntimeError: no; 'planish plugins --traceback'"):
        registry.find("raises", "quantizer")


def test_two_distributions_with_one_entry_point_name_both_load(installed):
    installed("acme-first", "same", GOOD.format(name="first"))
    installed("acme-second", "same", GOOD.format(name="second"))
    registry = PluginManager().discover().registry
    assert {"first", "second"} <= {e.name for e in registry.of("quantizer")}


def test_the_core_registers_through_the_same_door():
    registry = PluginManager().discover().registry
    assert registry.find("sdpa", "attention").plugin == "builtin"
