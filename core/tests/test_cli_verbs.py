"""The verbs that work: run, doctor, bench, schema."""

import json

import pytest
import tiny_plugins
from planish.recipe import json_schema

RECIPE = """
model: {name: tiny, config: {width: 4}}
data: {text: count}
transforms: [{use: prune, config: {density: 0.25}}]
trainer: {max_steps: 4}
report: REPORT
runner: loop
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("REPORT", str(tmp_path / "out")))
    return path


# run


def test_run_trains_both_and_leaves_a_report(cli, recipe, tmp_path):
    code, out, err = cli("run", recipe)
    assert (code, err) == (0, "")
    assert "baseline" in out
    assert "composed" in out
    assert f"report: {tmp_path / 'out' / 'index.html'}" in out
    assert (tmp_path / "out" / "report.json").exists()


def test_run_as_json_with_overrides(cli, recipe):
    code, out, _ = cli("run", recipe, "trainer.max_steps=2", "--no-baseline", "--json")
    assert code == 0
    found = json.loads(out)
    assert list(found["report"]["variants"]) == ["composed"]
    assert found["report"]["variants"]["composed"]["summary"]["steps"] == 2


def test_a_dry_run_shows_the_plan_and_writes_nothing(cli, recipe, tmp_path):
    code, out, _ = cli("run", recipe, "trainer.max_steps=2", "--dry-run")
    assert code == 0
    assert "max_steps: 2" in out
    assert "prune: 2 modules changed, 1 left alone" in out
    assert "weight is tied to embed.weight" in out
    assert not (tmp_path / "out").exists()
    code, out, _ = cli("run", recipe, "--dry-run", "--json")
    found = json.loads(out)
    assert found["plans"][0]["use"] == "prune"
    assert found["recipe"]["seed"] == 0


def test_run_passes_its_options_on(cli, recipe, monkeypatch):
    seen = []

    def run(self, recipe, registry, options):
        seen.append(options)
        return planish.interfaces.RunResult(recipe.report, {})

    import planish.interfaces

    monkeypatch.setattr(tiny_plugins.Loop, "run", run)
    cli("run", recipe, "--resume", "--trust-code", "--json")
    assert (seen[0].resume, seen[0].trust_code, seen[0].baseline, seen[0].progress) == (True, True, True, False)


# doctor


def test_doctor_says_what_is_missing_and_how_to_mend_it(cli):
    code, out, _ = cli("doctor")
    assert code == 0
    assert "✓ here: process True" in out
    assert "✗ gone: not there" in out
    assert "→ fetch it" in out
    assert "✓ sparsifier prune: planish-tiny 1.2.0" in out
    assert "missing here: gone" in out


def test_doctor_as_json(cli, registry):
    registry.broken["odd"] = RuntimeError("no\nway")
    _, out, _ = cli("doctor", "--json")
    found = json.loads(out)
    assert found["ok"] is False
    checks = {c["name"]: c for c in found["checks"]}
    assert checks["odd"]["detail"] == "RuntimeError: no way"
    assert checks["gone"]["fix"] == "fetch it"
    assert checks["sparsifier vnm"]["ok"] is None


def test_a_diagnostic_that_fails_is_a_finding(cli, monkeypatch):
    monkeypatch.setattr(tiny_plugins, "diagnose", lambda: 1 / 0)
    code, out, _ = cli("doctor")
    assert code == 0
    assert "✗ tiny-check: ZeroDivisionError" in out


def test_the_cores_own_diagnosis():
    from planish.plugins.machine import machine

    found = {check["name"]: check for check in machine()}
    assert found["python"]["ok"]
    assert found["torch"]["ok"]
    assert "cores" in found["processor"]["detail"]
    assert all(check["ok"] or check["fix"] for check in found.values())


# bench


def test_bench_lists_and_measures(cli, tmp_path):
    code, out, _ = cli("bench")
    assert code == 0
    assert "torch.sum beside a Python loop" in out
    assert {row["name"] for row in json.loads(cli("bench", "--json")[1])} == {"sums", "wrong"}
    path = tmp_path / "deep" / "result.json"
    code, out, _ = cli("bench", "sums", "--device", "cpu", "--quick", "--out", path)
    assert code == 0
    assert "sum/200" in out
    assert "note: quick=True" in out
    found = json.loads(path.read_text())
    assert found["command"] == "planish bench sums --device cpu --quick"
    code, out, _ = cli("bench", "--page", path)
    assert code == 0
    assert "| `sum/200` | time, ms (lower is better) |" in out


def test_bench_of_a_wrong_method_states_no_gain_and_fails(cli):
    code, out, err = cli("bench", "wrong", "--device", "cpu")
    assert code == 1
    assert "9.00×" not in out
    assert err.startswith("error: wrong disagrees with its oracle on cpu; no gain is stated")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sms",), "no benchmark named 'sms'; did you mean 'sums'?"),
        (("sums", "--device", "gpu"), "--device: 'gpu' is no device; such as cuda, cuda:1 or cpu"),
        (("sums", "--device", "cuda:77"), "--device: 'cuda:77' is not there; this machine has"),
        (("sums", "--page", "x.json"), "leave 'sums' out"),
        (("--page", "gone.json"), "cannot read benchmark result gone.json"),
    ],
)
def test_bench_of_wrong_input(cli, arguments, says):
    code, _, err = cli("bench", *arguments)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1


# schema


def test_schema(cli, tmp_path):
    code, out, _ = cli("schema")
    assert code == 0
    assert json.loads(out) == json_schema()
    path = tmp_path / "schema.json"
    code, out, _ = cli("schema", "--installed", "--out", path)
    assert (code, out) == (0, f"wrote {path}\n")
    assert json.loads(path.read_text())["$defs"]["TransformSpec"]["allOf"]


def test_debug_shows_the_traceback(cli, recipe):
    code, _, err = cli("run", recipe, "data.text=bug", "--debug")
    assert code == 1
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: RuntimeError: first line second line")
