"""Policies are read from files and presets, one laid over the other, and every mistake is named."""

import pytest
from planish import ConfigError, DataError
from planish.filtering.policy import policy_text, read_policy
from samples.brightness import Brightness
from samples.flicker import Bounds, Flicker


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "policy.yaml"
        path.write_text(text)
        return path

    return write


def test_nothing_given_means_the_defaults():
    assert read_policy(Flicker()) == Flicker.Policy()


def test_file_changes_what_it_names_alone(written):
    policy = read_policy(Flicker(), written("luminance: {max: 0.8}"))
    assert policy.luminance == Bounds(min=0.1, max=0.8)
    assert policy.flicker == Flicker.Policy().flicker


def test_null_takes_a_bound_away(written):
    assert read_policy(Flicker(), written("luminance: {min: null}")).luminance == Bounds(max=0.95)


def test_preset_in_the_file_is_its_base(written):
    policy = read_policy(Flicker(), written("preset: steady\nflicker: {min: 0.01}"))
    assert policy.flicker == Bounds(min=0.01, max_quantile=0.5)
    assert policy.luminance == Flicker.Policy().luminance


def test_preset_alone_and_below_a_file(written):
    assert read_policy(Flicker(), preset="any") == Flicker.Policy(luminance={}, flicker={})
    assert read_policy(Flicker(), written("luminance: {min: 0.5}"), "any").luminance == Bounds(min=0.5)
    assert read_policy(Flicker(), written("preset: any"), "any") == Flicker.Policy(luminance={}, flicker={})


def test_empty_file_means_the_defaults(written):
    assert read_policy(Flicker(), written("# nothing yet\n")) == Flicker.Policy()


def test_what_is_written_reads_back(written):
    policy = read_policy(Flicker(), preset="steady")
    assert read_policy(Flicker(), written(policy_text(policy))) == policy


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("luminence: {min: 0.1}", ConfigError, "policy.luminence: unknown field; did you mean 'luminance'?"),
        ("luminance: {mim: 0.1}", ConfigError, "policy.luminance.mim: unknown field; did you mean 'min'?"),
        ("flicker: {max_quantile: 2}", ConfigError, "policy.flicker.max_quantile: input should be less than or equal"),
        ("preset: stedy", ConfigError, "no preset 'stedy'; did you mean 'steady'? (presets: any, steady)"),
        ("preset: {}", ConfigError, "no preset {}"),
        ("- luminance", DataError, "holds a list"),
        ("luminance: {min: 0.1", DataError, "is no YAML"),
    ],
)
def test_mistakes_in_a_file_are_named(written, text, error, says):
    path = written(text)
    with pytest.raises(error) as caught:
        read_policy(Flicker(), path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_two_presets_are_one_too_many(written):
    with pytest.raises(ConfigError, match="preset is 'any' here and 'steady' on the command line"):
        read_policy(Flicker(), written("preset: any"), "steady")


def test_unknown_preset_where_there_is_none():
    with pytest.raises(ConfigError, match=r"no preset 'strict' \(presets: it has none\)"):
        read_policy(Brightness(), preset="strict")


def test_missing_and_binary_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_policy(Flicker(), tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot read the policy"):
        read_policy(Flicker(), tmp_path / "binary.yaml")
