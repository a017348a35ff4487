"""The command line as a whole, plugins and their verbs, and what describes them."""

import json
import subprocess
import sys

import planish
import pytest
import tiny_plugins
from planish.cli.app import split_options
from planish.errors import ConfigError
from planish.plugins.manager import PluginManager


def program(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "planish", *arguments], capture_output=True, text=True, timeout=60, **more
    )


# the whole


def test_version_and_help(cli):
    assert cli("--version") == (0, f"planish {planish.__version__}\n", "")
    for arguments in ((), ("--help",), ("-h",)):
        code, out, err = cli(*arguments)
        assert (code, err) == (0, "")
        for verb in ("plugins", "describe", "run", "doctor", "bench", "schema", "greet"):
            assert verb in out


@pytest.mark.parametrize("verb", ["plugins", "describe", "run", "doctor", "bench", "schema"])
def test_the_help_of_every_verb_teaches_by_example(cli, verb):
    code, out, _ = cli(verb, "--help")
    assert code == 0
    assert f"Example: planish {verb}" in out
    assert "--json" in out


def test_an_unknown_verb_gets_the_nearest_one(cli):
    code, out, err = cli("pluggins")
    assert (code, out) == (2, "")
    assert err == "error: no verb named 'pluggins'; did you mean 'plugins'? ('planish --help' lists them)\n"


def test_a_wrong_option_is_one_line(cli):
    code, _, err = cli("plugins", "--knd", "x")
    assert code == 2
    assert err.startswith("error: no such option: --knd")
    assert "'planish plugins --help' shows how" in err
    assert err.count("\n") == 1
    code, _, err = cli("describe")
    assert code == 2
    assert "missing argument" in err.lower()


def test_errors_as_json(cli):
    code, out, err = cli("describe", "prnue", "--json")
    assert code == 2
    error = json.loads(out)["error"]
    assert error["type"] == "PluginError"
    assert error["exit_code"] == 2
    assert "did you mean 'prune'" in error["message"]
    assert err == f"error: {error['message']}\n"


def test_global_options_stand_anywhere():
    assert split_options(["-p", "no:a", "run", "x", "-p", "no:b", "--debug"]) == (["run", "x"], ("a", "b"), True)
    assert split_options(["-pno:a", "run"]) == (["run"], ("a",), False)
    assert split_options(["filter", "-p", "4", "--", "--debug"]) == (["filter", "-p", "4", "--", "--debug"], (), False)
    with pytest.raises(ConfigError, match="-p 'a': expected no:NAME, such as -p no:lightning"):
        split_options(["-p", "a", "run"])


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m planish schema | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["{", "0"]
    assert done.stderr == ""


# plugins


def test_plugins_lists_what_is_there_and_what_is_not(cli):
    code, out, _ = cli("plugins")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["KIND", "NAME", "PLUGIN", "VERSION", "STATUS", "SUMMARY"]
    assert ["sparsifier", "prune", "planish-tiny", "1.2.0", "ok", "keep", "the", "largest", "weights"] in lines
    assert ["sparsifier", "vnm", "planish-vnm", "-", "absent", "pip", "install", "planish-vnm"] in lines
    assert all(line == line.rstrip() for line in out.splitlines())


def test_plugins_by_kind(cli):
    code, out, _ = cli("plugins", "--kind", "language-model", "--json")
    assert code == 0
    assert {(row["kind"], row["name"], row["status"]) for row in json.loads(out)} == {
        ("language_model", "tiny", "ok"),
        ("language_model", "subllm", "absent"),
    }
    code, _, err = cli("plugins", "--kind", "quantiser")
    assert code == 2
    assert "did you mean 'quantizer'?" in err


def test_broken_and_blocked_plugins_are_listed_with_the_reason(cli):
    manager = PluginManager(block=["tiny"])
    manager.register(tiny_plugins, "tiny", "planish-tiny", "1.2.0")
    try:
        import does_not_exist  # noqa: F401
    except ImportError as error:
        manager.registry.broken["vnm"] = error
    code, out, _ = cli("plugins", "--json", "--traceback", registry=manager.registry)
    assert code == 0
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["tiny"]["status"] == "blocked"
    assert rows["tiny"]["summary"] == "by the option -p no:tiny"
    assert (rows["vnm"]["status"], rows["vnm"]["kind"]) == ("broken", "sparsifier")
    assert rows["vnm"]["summary"] == "ModuleNotFoundError: No module named 'does_not_exist'"
    assert "import does_not_exist" in rows["vnm"]["traceback"]
    code, out, _ = cli("plugins", "--traceback", registry=manager.registry)
    assert "Traceback (most recent call last)" in out


def test_a_verb_that_the_core_has_is_listed_as_broken(cli, registry):
    import types

    module = types.ModuleType("shadow")
    module.planish_register_commands = planish.hookimpl(_register_run)
    manager = PluginManager()
    manager.register(module, "shadow", "planish-shadow", "1")
    _, out, _ = cli("plugins", "--kind", "command", "--json", registry=manager.registry)
    row = next(row for row in json.loads(out) if row["name"] == "run")
    assert row["status"] == "broken"
    assert "has a verb 'run' of its own" in row["summary"]


def _register_run(register):
    register("run", "os:getcwd", "mine")


def test_plugins_imports_no_torch_and_is_quick():
    code = (
        "import sys, time; begin = time.process_time()\n"
        "from planish.cli.app import main\n"
        "assert main(['plugins']) == 0\n"
        "took = time.process_time() - begin\n"
        "heavy = {'torch', 'triton', 'lightning', 'transformers', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "print(f'HEAVY={sorted(heavy)} TOOK={took}')\n"
    )
    took = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        last = done.stdout.splitlines()[-1]
        assert "HEAVY=[]" in last
        took.append(float(last.split("TOOK=")[1]))
    assert min(took) < 0.5, took  # processor seconds: other work on the machine does not count


def test_blocking_from_the_command_line():
    done = program("-p", "no:builtin", "plugins", "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["builtin"]["status"] == "blocked"
    assert "sdpa" not in rows
    done = program("plugins", "-p", "no:bultin")
    assert done.returncode == 2
    assert done.stderr == "error: -p no:bultin: no plugin named 'bultin' is installed; did you mean 'builtin'?\n"


# describe


def test_describe_shows_every_option(cli):
    code, out, _ = cli("describe", "prune")
    assert code == 0
    assert "Keep the largest weights of each layer." in out
    rows = {line.split()[0]: " ".join(line.split()) for line in out.splitlines() if line.strip()}
    assert rows["density"] == "density number 0.5 > 0, ≤ 1 share of weights that stay"
    assert rows["order"] == 'order "rows" | "all" "all" where the largest are sought'
    assert 'planish.apply(model, "prune", density=0.5)' in out


def test_describe_a_runner_has_its_data_section_too(cli):
    _, out, _ = cli("describe", "loop")
    assert "max_steps" in out
    assert "The recipe's data section" in out
    assert "(required)" in out
    code, out, _ = cli("describe", "loop", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["config"]["properties"]["max_steps"]["minimum"] == 1
    assert found["data"]["required"] == ["text"]
    assert found["plugin"] == "planish-tiny"


def test_describe_a_verb_and_a_benchmark(cli):
    assert "planish greet --help" in cli("describe", "greet")[1]
    assert "planish bench sums" in cli("describe", "sums")[1]


def test_fields_of_nested_options():
    from planish.cli.fields import fields
    from planish.config import Config
    from pydantic import Field

    class Inner(Config):
        width: int | None = Field(None, ge=2, multiple_of=2, description="how wide")

    class Outer(Config):
        inner: Inner = Field(Inner(), description="the inner one")
        names: tuple[str, ...] = Field(("a",), min_length=1, description="names")
        pair: tuple[int, float] = Field((1, 2.0), description="two")
        by_name: dict[str, int] = Field(default_factory=dict, description="map")

    rows = {f.name: f for f in fields(Outer.model_json_schema())}
    assert (rows["inner.width"].type, rows["inner.width"].bounds) == ("integer | null", "≥ 2, multiple of 2")
    assert (rows["names"].type, rows["names"].default, rows["names"].bounds) == ("list of string", '["a"]', "items ≥ 1")
    assert rows["pair"].type == "[integer, number]"
    assert rows["by_name"].type == "mapping to integer"


# plugins' verbs


def test_a_plugins_verb_runs_and_helps(cli):
    assert cli("greet", "--name", "you", "--loudly") == (0, "hello you!\n", "")
    code, out, _ = cli("greet", "--help")
    assert code == 0
    assert "Say hello to NAME." in out
    code, _, err = cli("greet", "--nam", "x")
    assert code == 2
    assert "'planish greet --help' shows how" in err


def test_a_plugins_verb_is_imported_only_when_it_is_wanted(cli, monkeypatch):
    import types

    module = types.ModuleType("lazy_verb")
    module.planish_register_commands = planish.hookimpl(_register_far)
    manager = PluginManager()
    manager.register(module, "lazy", "planish-lazy", "1")
    assert "far away" in cli("--help", registry=manager.registry)[1]
    assert "far_away_module" not in sys.modules
    code, _, err = cli("far", registry=manager.registry)
    assert code == 2
    assert "command 'far' of planish-lazy 1 could not be imported from 'far_away_module:verb'" in err


def _register_far(register):
    register("far", "far_away_module:verb", "far away")


def test_a_verb_that_is_not_installed_gets_its_install_line(cli):
    code, _, err = cli("kernels")
    assert code == 2
    assert err == "error: command 'kernels' is not installed; run: pip install planish-kernels\n"
