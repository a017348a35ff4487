"""``planish filter`` from the command line: the whole way, and whatever a person can type wrong."""

import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from planish.filtering import ScoreStore
from ppm_filters import Pictures

IN_PROCESS = ("--engine-set", "in_process=true")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def run(cli, pictures, out):
    """Filter the pictures in this process; (exit code, stdout, stderr)."""

    def call(*arguments, paths=(pictures,)):
        return cli("filter", *paths, "--with", "pictures", "--out", out, *IN_PROCESS, *arguments)

    return call


def test_the_whole_way(run, cli, out, pictures):
    code, stdout, stderr = run("--max-error-frac", "0.2")
    assert (code, stderr) == (0, "")
    assert stdout.startswith("12 clips: 12 scored in ")
    assert "2 could not be scored:\n  1 × cut short" in stdout
    assert f"decisions: {out / 'decisions.parquet'}\nreport: {out / 'report' / 'index.html'}\n" in stdout
    assert (out / "report" / "index.html").read_text().startswith("<!")
    decisions = pq.read_table(out / "decisions.parquet").to_pylist()
    assert [d["clip_id"] for d in decisions] == [str(path) for path in sorted(pictures.iterdir())]
    assert [d["keep"] for d in decisions].count(False) == 2
    assert yaml.safe_load((out / "policy.yaml").read_text()) == {"min_brightness": 0.4}


def test_processes_are_the_default(cli, pictures, out):
    code, stdout, _ = cli(
        "filter", pictures, "--with", "pictures", "--out", out, "--json", "--no-report", "--workers", 2
    )
    assert code == 1
    assert json.loads(stdout)["scored"] == 12
    run = ScoreStore.open(out).run
    assert (run.engine, run.engine_params["workers"], run.engine_params["in_process"]) == ("local", 2, False)
    assert (run.distribution, run.version) == ("planish-ppm", "3.1.0")
    expected = Pictures().score(ScoreStore.open(out).clips())
    assert list(ScoreStore.open(out).rows(Pictures())) == expected


def test_the_summary_as_json(run, out):
    code, stdout, stderr = run(
        "--json", "--max-error-frac", "1", "--set", "gain=1.5", "--preset", "dark", "--no-report"
    )
    assert (code, stderr) == (0, "")
    found = json.loads(stdout)
    assert {key: found[key] for key in ("clips", "scored", "reused", "errors", "kept", "exit_code")} == {
        "clips": 12, "scored": 12, "reused": 0, "errors": 2, "kept": 10, "exit_code": 0,
    }  # fmt: skip
    assert found["funnel"]["policy"] == {"min_brightness": 0.1}
    assert found["report"] is None
    assert not (out / "report").exists()
    assert ScoreStore.open(out).run.params == {"gain": 1.5}


def test_too_many_errors_exit_with_1_and_keep_everything(run, out):
    code, stdout, stderr = run("--no-report", "--json")
    assert code == 1
    assert json.loads(stdout)["exit_code"] == 1
    assert stderr == (
        "error: 2 of 12 clips could not be scored, more than --max-error-frac 0.05 allows; the error column of the "
        "scores says why\n"
    )
    assert pq.read_table(out / "decisions.parquet").num_rows == 12


def test_the_same_command_again_goes_on(run):
    run("--no-report", "--limit", 5)
    code, stdout, stderr = run("--no-report", "--max-error-frac", "1")
    assert code == 0
    assert stderr == "5 of 12 clips have their scores already; 7 to go\n"
    assert "12 clips: 7 scored in" in stdout
    assert ", 5 before\n" in stdout
    assert "1 of them failed in an earlier run; --retry-errors tries them again" in stdout
    code, stdout, _ = run("--no-report", "--max-error-frac", "1", "--retry-errors", "--hash-sources")
    assert "12 clips: 2 scored in" in stdout
    assert "earlier run" not in stdout


def test_deciding_again_needs_no_media_and_no_scoring(run, cli, out, pictures, tmp_path):
    run("--no-report", "--max-error-frac", "1")
    shards = sorted(out.glob("scores/*/*"))
    before = [(path, path.stat().st_mtime_ns) for path in shards]
    shutil.rmtree(pictures)
    policy = tmp_path / "policy.yaml"
    policy.write_text("min_brightness: 0.5\n")
    code, stdout, stderr = cli("filter", "decide", out, "--policy", policy, "--json")
    assert (code, stderr) == (0, "")
    found = json.loads(stdout)
    rows = list(ScoreStore.open(out).rows(Pictures()))
    assert found["kept"] == sum(row.error is None and row.brightness >= 0.5 for row in rows) < 10
    assert found["report"] == str(out / "report" / "index.html")
    assert [(path, path.stat().st_mtime_ns) for path in sorted(out.glob("scores/*/*"))] == before
    assert cli("filter", "decide", out, "--preset", "dark", "--no-report")[0] == 0
    assert yaml.safe_load((out / "policy.yaml").read_text()) == {"min_brightness": 0.1}


def test_another_policy_scores_nothing_another_option_everything(run):
    assert json.loads(run("--no-report", "--json")[1])["scored"] == 12
    assert json.loads(run("--no-report", "--json", "--preset", "dark")[1])["scored"] == 0
    assert json.loads(run("--no-report", "--json", "--set", "gain=2.0")[1])["scored"] == 12
    assert json.loads(run("--no-report", "--json", "--set", "gain=1.0")[1])["scored"] == 0


def test_the_report_alone(run, cli, out):
    run("--no-report")
    code, stdout, _ = cli("filter", "report", out)
    assert (code, stdout) == (0, f"report: {out / 'report' / 'index.html'}\n")
    assert json.loads(cli("filter", "report", out, "--json")[1]) == {"report": str(out / "report" / "index.html")}


def test_options_from_a_file(run, tmp_path, out):
    config = tmp_path / "options.yaml"
    config.write_text("gain: 3.0\n")
    run("--no-report", "--config", config)
    assert ScoreStore.open(out).run.params == {"gain": 3.0}
    run("--no-report", "--config", config, "--set", "gain=4")
    assert ScoreStore.open(out).run.params == {"gain": 4.0}


def test_a_folder_called_report_is_given_with_its_path(cli, pictures, out, monkeypatch):
    pictures.rename(pictures.with_name("report"))
    monkeypatch.chdir(pictures.parent)
    code, stdout, _ = cli(
        "filter", "./report", "--with", "pictures", "--out", out, "--no-report", "--json", *IN_PROCESS
    )
    assert json.loads(stdout)["clips"] == 12
    assert code == 1


def test_help_teaches(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, stdout, _ = cli("filter", "--help")
    assert code == 0
    for word in (
        "--with",
        "--out",
        "--policy",
        "planish filter clips/",
        "planish filter decide",
        "planish filter report",
    ):
        assert word in stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PICTURES", "--out", "OUT"], "--with NAME is missing; such as: planish filter PICTURES --with egovid"),
        (["PICTURES", "--with", "pictures"], "--out DIR is missing"),
        (["PICTURES", "--with", "picture", "--out", "OUT"], "no data filter named 'picture'; did you mean 'pictures'?"),
        (
            ["PICTURES", "--with", "egovid", "--out", "OUT"],
            "'egovid' is not installed; run: pip install planish-egovid",
        ),
        (["nowhere", "--with", "pictures", "--out", "OUT"], "nowhere does not exist"),
        (["EMPTY", "--with", "pictures", "--out", "OUT"], "no clips in EMPTY: pictures reads .ppm"),
        (["PICTURES", "--with", "pictures", "--out", "PICTURES"], "holds files that 'planish filter' did not write"),
        (
            ["PICTURES", "--with", "pictures", "--out", "OUT", "--set", "gian=1"],
            "gian: unknown field; did you mean 'gain'",
        ),
        (["PICTURES", "--with", "pictures", "--out", "OUT", "--set", "gain"], "--set 'gain' is not KEY=VALUE"),
        (["PICTURES", "--with", "pictures", "--out", "OUT", "--set", "gain.x=1"], "pictures.gain: "),
        (["PICTURES", "--with", "pictures", "--out", "OUT", "--config", "none.yaml"], "cannot read none.yaml"),
        (["PICTURES", "--with", "pictures", "--out", "OUT", "--policy", "none.yaml"], "none.yaml"),
        (["PICTURES", "--with", "pictures", "--out", "OUT", "--preset", "drak"], "did you mean 'dark'?"),
        (["PICTURES", "--with", "pictures", "--out", "OUT", "--engine", "locla"], "did you mean 'local'?"),
        (["PICTURES", "--with", "pictures", "--out", "OUT", "--engine", "ray"], "pip install planish-ray"),
        (["PICTURES", "--with", "pictures", "--out", "OUT", "--workers", "0"], "local.workers: "),
        (["PICTURES", "--with", "pictures", "--out", "OUT", "--timeout", "-1"], "local.timeout_s: "),
        (["PICTURES", "--with", "pictures", "--out", "OUT", "--engine-set", "cores=3"], "local.cores: unknown field"),
        (["report"], "planish filter report takes the folder of one run, found 0"),
        (["decide", "OUT", "EMPTY"], "planish filter decide takes the folder of one run, found 2"),
        (["report", "EMPTY"], "EMPTY is no output of 'planish filter': it has no run.json"),
        (["decide", "EMPTY", "--workers", "3", "--set", "a=1"], "decide scores nothing; leave out --workers, --set"),
        (["report", "EMPTY", "--preset", "dark"], "'planish filter decide' decides again"),
    ],
)
def test_what_is_typed_wrong_is_one_clear_line(cli, pictures, out, tmp_path, arguments, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {"PICTURES": str(pictures), "OUT": str(out), "EMPTY": str(tmp_path / "empty")}
    code, stdout, stderr = cli("filter", *[places.get(argument, argument) for argument in arguments])
    for name, place in places.items():
        message = message.replace(name, place)
    assert code == 2
    assert stdout == ""
    assert message in stderr
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert not out.exists()
    assert len(list(pictures.iterdir())) == 12


def test_without_pyarrow_the_extra_is_named(run, monkeypatch, out):
    monkeypatch.setattr("planish.cli.filter.find_spec", lambda name: None)
    code, _, stderr = run()
    assert code == 2
    assert stderr == (
        "error: planish filter needs pyarrow, which is not installed; run: pip install 'planish[filter]'\n"
    )
    assert not out.exists()


def test_scores_of_another_metric_version_are_not_decided(run, cli, out, monkeypatch):
    run("--no-report")
    monkeypatch.setattr(Pictures, "metric_version", 7)
    code, _, stderr = cli("filter", "decide", out)
    assert code == 2
    assert "scored by metric version 1 of pictures, and metric version 7 is installed" in stderr


def test_a_folder_that_cannot_be_written_is_one_clear_line(run, out, monkeypatch):
    make = Path.mkdir

    def refuse(self, *arguments, **keywords):
        if self == out:
            raise PermissionError(13, "Permission denied")
        return make(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "mkdir", refuse)
    code, stdout, stderr = run("--no-report")
    assert (code, stdout) == (1, "")
    assert stderr == f"error: cannot create folder {out}: Permission denied; choose another folder\n"


def test_progress_is_a_bar_on_a_terminal(run, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    _, _, stderr = run("--no-report")
    assert "12/12" in stderr
    assert "2 errors" in stderr
    assert "clips/s" in stderr


def test_progress_is_a_line_now_and_then_elsewhere(run, monkeypatch):
    monkeypatch.setattr("planish.filtering.progress._LINE_S", 0.0)
    _, _, stderr = run("--no-report", "--max-error-frac", "1")
    assert stderr.splitlines()[-1].startswith("pictures: 12 of 12 clips, 2 errors, ")


def test_describe_shows_what_a_filter_and_an_engine_take(cli):
    code, stdout, _ = cli("describe", "pictures")
    assert code == 0
    for heading in (
        "Options\n",
        "Thresholds\n",
        "Columns of a row\n",
        "Presets of thresholds\n  dark: {min_brightness: 0.1}",
    ):
        assert heading in stdout
    assert "planish filter PATH... --with pictures --out DIR" in stdout
    assert json.loads(cli("describe", "pictures", "--json")[1])["presets"] == {"dark": {"min_brightness": 0.1}}
    code, stdout, _ = cli("describe", "local")
    assert code == 0
    assert "timeout_s" in stdout
    assert "--engine local" in stdout


def test_plugins_lists_filters_and_engines(cli):
    rows = {(row["kind"], row["name"]): row for row in json.loads(cli("plugins", "--json")[1])}
    assert rows["data_filter", "pictures"]["status"] == "ok"
    assert rows["filter_engine", "local"]["status"] == "ok"
    assert rows["filter_engine", "ray"]["summary"] == "pip install planish-ray"
    assert "local" in cli("plugins", "--kind", "filter-engine")[1]


def test_filtering_imports_no_torch(pictures, out):
    import subprocess
    import sys

    code = (
        "import sys, ppm_plugin\n"
        "from planish.cli.app import main\n"
        f"main(['filter', {str(pictures)!r}, '--with', 'pictures', '--out', {str(out)!r}, '--no-report',"
        " '--engine-set', 'in_process=true'], registry=ppm_plugin.registry())\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'torchvision')))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "12 clips: 12 scored" in done.stdout, done.stderr
    assert done.returncode == 0
