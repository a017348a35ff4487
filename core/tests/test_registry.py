"""Looking plugins up, and checking their classes at first use."""

import planish
import pytest
import tiny_plugins
from planish.errors import PluginError
from planish.plugins.registry import FIRST_PARTY, Entry, Registry, check_class


def entry(name="round", target="tiny_plugins:Round", kind="quantizer"):
    return Entry(kind, name, target, "a summary", "mine", "planish-mine", "1.0")


def test_load_gives_the_class(registry):
    assert registry.load("round", "quantizer") is tiny_plugins.Round
    assert registry.load("prune", "quantizer", "sparsifier") is tiny_plugins.Prune
    assert registry.load("greet", "command") is tiny_plugins.greet


def test_of_is_sorted_by_kind_and_name(registry):
    assert [e.name for e in registry.of("sparsifier", "quantizer")] == ["round", "prune", "thin"]


def test_an_unknown_name_gets_the_nearest_one(registry):
    with pytest.raises(
        PluginError, match=r"no quantizer or sparsifier named 'prun'; did you mean 'prune'\? \(installed: "
    ):
        registry.find("prun", "quantizer", "sparsifier")
    with pytest.raises(PluginError, match=r"no attention named 'x' \(none is installed\)"):
        registry.find("x", "attention")


def test_a_published_plugin_that_is_absent_gets_its_install_line(registry):
    with pytest.raises(PluginError, match="sparsifier 'vnm' is not installed; run: pip install planish-vnm"):
        registry.find("vnm", "sparsifier")
    absent = registry.absent()
    assert ("sparsifier", "vnm", "planish-vnm") in absent
    assert len(absent) == len(FIRST_PARTY)


def test_one_name_of_two_kinds_needs_the_kind():
    registry = Registry()
    registry.add(entry("twice"))
    registry.add(entry("twice", kind="attention"))
    with pytest.raises(PluginError, match="'twice' is ambiguous: quantizer, attention; name the kind as well"):
        registry.find("twice")
    assert registry.find("twice", "attention").kind == "attention"


@pytest.mark.parametrize("target", ["does_not_exist:Round", "tiny_plugins:Gone", "tiny_plugins:Round.gone"])
def test_a_target_that_cannot_be_imported_names_the_distribution(target):
    registry = Registry()
    registry.add(entry(target=target))
    with pytest.raises(
        PluginError, match=r"of planish-mine 1\.0 could not be imported from .*; reinstall or update"
    ) as error:
        registry.load("round", "quantizer")
    assert error.value.__cause__ is not None


def test_an_unknown_kind_is_refused():
    with pytest.raises(PluginError, match="unknown kind 'gizmo'"):
        Registry().add(entry(kind="gizmo"))


def test_a_function_kind_must_be_callable():
    registry = Registry()
    registry.add(entry("pi", "math:pi", kind="command"))
    with pytest.raises(PluginError, match="math:pi is not callable"):
        registry.load("pi", "command")


class NotAQuantizer:
    pass


class Abstract(tiny_plugins.Round):
    finish = planish.interfaces.ModelTransform.finish


class Unnamed(tiny_plugins.Round):
    summary = ""


class Misnamed(tiny_plugins.Round):
    name = "square"


class Unconfigured(tiny_plugins.Round):
    Config = dict


class Old(tiny_plugins.Round):
    interface_version = 0


@pytest.mark.parametrize(
    ("cls", "says"),
    [
        (NotAQuantizer, "is no subclass of planish.interfaces.Quantizer; derive it"),
        (tiny_plugins.Prune, "is no subclass of planish.interfaces.Quantizer"),
        (tiny_plugins.greet, "is no subclass of planish.interfaces.Quantizer"),
        (Abstract, "leaves abstract: finish; implement it"),
        (Unnamed, "has no summary; set the class attribute 'summary'"),
        (Misnamed, "calls itself 'square'"),
        (Unconfigured, "has no Config"),
        (Old, "was written for version 0 of Quantizer; this planish serves version 1: update planish-mine"),
    ],
)
def test_a_class_that_breaks_its_contract_is_refused(cls, says):
    with pytest.raises(PluginError) as error:
        check_class(entry(), cls)
    assert says in str(error.value)
    assert "quantizer 'round' of planish-mine" in str(error.value)
