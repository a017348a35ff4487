"""Collecting a run's figures and drawing the page."""

import json
import math
import warnings

import pytest
from html_page import stands_alone
from planish.errors import DataError, WorkError
from planish.interfaces import Claim, Plan, PlannedModule
from planish.report import KernelUse, Report, ReportBuilder, Series, read_report, render
from planish.report.charts import moving_average, moving_median, thin
from planish.report.page import changed, kernel_rows, skipped
from planish.report.terminal import table
from planish.report.units import duration, size
from tiny_plugins import TinyNet

RECIPE = {"model": {"name": "llama"}, "data": {"text": "stdlib"}, "transforms": [{"use": "pretrain24"}]}
PLAN = Plan(
    "pretrain24",
    {"decay": 1e-5},
    (
        PlannedModule("layers.0.up", True, "a <b>linear</b> layer", (Claim("weight.mask"),), {"forward": "reference"}),
        PlannedModule("layers.1.up", True, "a <b>linear</b> layer", (Claim("weight.mask"),), {"forward": "reference"}),
        PlannedModule("head", False, "tied to embed"),
    ),
    ("2:4 does not pay here",),
)


def fill(report):
    for place, name in enumerate(("baseline", "composed")):
        report.variant(name, f"the {name}")
        for step in range(1, 41):
            report.log(step, loss=3 / step + place / 100, step_ms=10.0 + place, flip_rate=0.1 / step)
            report.log(step, {"density": 0.5, "flip_rate/layers.0": 0.2 / step, "flip_rate/layers.1": 0.3 / step})
        report.log(20, val_loss=1.0)
        report.log(40, val_loss=0.9)
        report.summary(val_loss=0.9 + place / 100, val_perplexity=2.46, tokens_per_s=1000, peak_memory_bytes=2**30)
        report.modules(TinyNet(32, 8, tied=True))
    report.plans([PLAN])
    report.kernels(
        [
            KernelUse(module="layers.0.up", operation="forward", kernel="reference", fallback="no GPU here"),
            KernelUse(module="layers.1.up", operation="forward", kernel="reference", fallback="no GPU here"),
            KernelUse(module="layers.1.up", operation="weight_grad", kernel="dense"),
        ]
    )
    report.note("a remark")
    report.note("a remark")
    return report


@pytest.fixture
def builder(tmp_path):
    return fill(ReportBuilder(tmp_path / "run", RECIPE, title="A & B"))


def test_the_file_round_trips(builder, tmp_path):
    path = builder.write("finished")
    again = read_report(path)
    assert again == builder.report
    assert again.status == "finished"
    assert again.variants["composed"].series["loss"].values[0] == pytest.approx(3.01)
    assert list(again.variants) == ["baseline", "composed"]
    assert again.variants["composed"].notes == ["a remark"]
    assert again.hardware.cores >= 1
    assert "torch" in again.versions
    assert Plan.from_dict(again.variants["composed"].plans[0]) == PLAN


def test_bytes_of_modules_count_tied_weights_once(builder):
    summary = builder.report.variants["baseline"].summary
    held = {m.name: m.parameters for m in builder.report.variants["baseline"].modules}
    assert held["embed"] == 32 * 8 * 4
    assert "head" not in held
    assert summary.parameters == 32 * 8 + 8 * 32 + 32 + 32 * 8 + 8
    assert sum(held.values()) == 4 * summary.parameters


def test_a_step_that_is_done_again_replaces_and_rewind_forgets(tmp_path):
    builder = ReportBuilder(tmp_path, RECIPE)
    builder.variant("baseline")
    for step, loss in ((1, 5.0), (2, 4.0), (3, 3.0), (2, 4.5)):
        builder.log(step, loss=loss)
    series = builder.report.variants["baseline"].series["loss"]
    assert (series.steps, series.values) == ([1, 2, 3], [5.0, 4.5, 3.0])
    builder.rewind(1)
    assert (series.steps, series.values) == ([1], [5.0])


def test_a_report_is_continued(builder, tmp_path):
    builder.write("interrupted", "stopped at step 40")
    again = ReportBuilder.reopen(tmp_path / "run", RECIPE)
    assert again.report.variants == builder.report.variants
    assert again.report.created == builder.report.created
    again.variant("composed").rewind(10)
    assert again.report.variants["composed"].series["loss"].steps[-1] == 10
    assert not ReportBuilder.reopen(tmp_path / "other", RECIPE).report.variants


def test_a_variant_must_be_named_first(tmp_path):
    with pytest.raises(RuntimeError, match="variant"):
        ReportBuilder(tmp_path, RECIPE).log(1, loss=1.0)


def test_a_diverged_run_can_be_written_and_read(tmp_path):
    builder = ReportBuilder(tmp_path, RECIPE)
    builder.variant("baseline")
    for step in range(1, 30):
        builder.log(step, loss=1.0 if step < 10 else math.nan, val_loss=math.inf)
    builder.summary(val_loss=math.nan)
    path = builder.write("failed", "the loss is no number")
    json.loads(path.read_text(), parse_constant=lambda found: pytest.fail(f"{found} is not JSON"))
    assert math.isnan(read_report(path).variants["baseline"].series["loss"].values[-1])
    page = (tmp_path / "index.html").read_text()
    assert "diverged" in page
    assert "the loss is no number" in page


def test_the_page_stands_alone_and_is_well_formed(builder):
    stands_alone(render(builder.report))


def test_the_page_shows_what_the_report_holds(builder):
    text = render(builder.report)
    for expected in (
        "A &amp; B",
        "0.9100",
        "+1.1 %",
        "the baseline",
        "Flip rate",
        "layers.0 (faint) to layers.1 (full)",
        "no GPU here",
        "fell back",
        "layers.*.up",
        "a &lt;b&gt;linear&lt;/b&gt; layer",
        "tied to embed",
        "2:4 does not pay here",
        "a remark",
        "use: pretrain24",
    ):
        assert expected in text, expected
    assert text.count("<svg") == 1 + 8  # the mark, loss twice, flip rate, step time, memory twice, density, by part


def test_the_page_is_the_same_twice(builder):
    assert render(builder.report) == render(builder.report)


def test_a_page_of_a_run_that_has_just_begun(tmp_path):
    builder = ReportBuilder(tmp_path, RECIPE)
    assert "running" in render(builder.report)
    builder.variant("composed").log(1, loss=2.0)
    assert "<svg" in render(builder.report)


def test_without_the_extra_there_is_a_warning_and_the_json(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "jinja2", None)
    builder = ReportBuilder(tmp_path, RECIPE)
    with pytest.warns(UserWarning, match=r"no index.html beside .*pip install 'planish\[report\]'"):
        builder.write("finished")
    assert read_report(tmp_path / "report.json").status == "finished"
    assert not (tmp_path / "index.html").exists()


def test_the_page_can_be_left_for_later(builder, tmp_path):
    builder.write(page=False)
    assert not (tmp_path / "run" / "index.html").exists()


def test_an_unwritable_folder_is_a_work_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match="choose another folder"), warnings.catch_warnings():
        ReportBuilder(tmp_path / "file" / "run", RECIPE).write()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no report of this planish"),
        ("{}", "title: Field required"),
        ('{"format_version": 99, "title": "", "created": "", "updated": "", "recipe": {}}', "format version 99"),
    ],
)
def test_a_damaged_report_is_refused(tmp_path, text, says):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(DataError, match=says):
        read_report(tmp_path / "report.json")
    with pytest.raises(DataError, match="cannot read report"):
        read_report(tmp_path / "gone.json")


def test_long_series_are_thinned_without_losing_their_mean():
    series = Series(steps=list(range(10_000)), values=[float(i % 7) for i in range(10_000)])
    steps, values = thin(series, 500)
    assert len(steps) == len(values) <= 500
    assert sum(values) / len(values) == pytest.approx(sum(series.values) / 10_000, rel=1e-2)
    assert thin(Series(steps=[1, 2], values=[math.nan, 2.0]), 10) == ([2.0], [2.0])


def test_smoothing():
    assert moving_average([1.0, 1.0, 4.0, 1.0, 1.0], 1) == [1.0, 2.0, 2.0, 2.0, 1.0]
    assert moving_median([1.0, 1.0, 90.0, 1.0, 1.0], 1) == [1.0] * 5


def test_like_lines_are_put_together(builder):
    rows = kernel_rows(builder.report.variants["composed"])
    assert [(r.operation, len(r.modules), bool(r.fallback)) for r in rows] == [
        ("forward", 2, True),
        ("weight_grad", 1, False),
    ]
    assert [line.pattern for line in skipped(PLAN.to_dict())] == ["head"]
    parts = [PlannedModule(f"layers.{i}.up", True, f"widens layers.{i}.mlp by 2.5") for i in range(3)]
    (line,) = changed(Plan("x", {}, tuple(parts)).to_dict())
    assert (line.pattern, line.reason, len(line.names)) == ("layers.*.up", "widens layers.*.mlp by 2.5", 3)


def test_figures_have_units():
    assert size(512) == ("512", "B")
    assert size(3 * 2**20) == ("3.00", "MiB")
    assert size(2**40) == ("1.00", "TiB")
    assert duration(5) == ("5.0", "s")
    assert duration(131) == ("2:11", "min")
    assert duration(7260) == ("2:01", "h")


def test_the_terminal_table(builder):
    from io import StringIO

    from rich.console import Console

    out = StringIO()
    Console(file=out, width=140).print(table(builder.report))
    assert "the composed" in out.getvalue()
    assert "0.9100" in out.getvalue()
    assert "+1.11 % against the baseline" in out.getvalue()


def test_the_schema_refuses_unknown_fields():
    with pytest.raises(ValueError):
        Report.model_validate({"title": "", "created": "", "updated": "", "recipe": {}, "extra": 1})
