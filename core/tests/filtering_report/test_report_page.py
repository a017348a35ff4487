"""The report page stands alone, shows what was stored, and survives whatever clips and plugins do to it."""

import base64
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from html_page import stands_alone
from planish import DataError
from planish.filtering.decisions import decide_all
from planish.filtering.local_engine import LocalEngine
from planish.filtering.policy import read_policy
from planish.filtering.report import gallery, write_report
from planish.filtering.report.bounds import Bounds, figure
from planish.filtering.run import score_clips
from planish.filtering.store import ScoreStore
from planish.interfaces import Clip, Illustration
from samples.brightness import Brightness, write_ppm
from samples.flicker import Flicker, flickering, write_stream

HOSTILE = "<script>alert('{}')&amp;.ppms"


def scored(folder: Path, data_filter, clips):
    """Score and decide clips; return the folder of the run."""
    score_clips(data_filter, clips, folder, LocalEngine(in_process=True))
    return decided(folder, data_filter)


def decided(folder: Path, data_filter, policy=None):
    decide_all(data_filter, ScoreStore.open(folder), policy or data_filter.Policy())
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A scored and decided run of many clips, some of them dark, flickering, both, or missing, under hostile names."""
    folder = tmp_path_factory.mktemp("clips")
    levels = np.random.default_rng(0)
    for number in range(30):
        base, spread = (int(levels.integers(0, 255)), int(levels.integers(1, 200)))
        pictures = np.clip(base + levels.integers(-spread, spread, 8), 0, 255)
        write_stream(folder / HOSTILE.format(number), flickering(pictures))
    data_filter = Flicker()
    clips = [
        replace(clip, id=f"{path.name}@{clip.start_s}", text="</script><b>bold</b>")
        for path in sorted(folder.glob("*.ppms"))
        for clip in data_filter.clips_of(path)
    ]
    clips += [Clip(f"gone-{n}", str(folder / f"gone {n}.ppms")) for n in range(3)]
    return scored(folder / "out of <b>run</b>", data_filter, clips)


@pytest.fixture(scope="module")
def page(made):
    path = write_report(made, Flicker())
    assert path == made / "report" / "index.html"
    return path.read_text()


def plain(text: str) -> str:
    """Return the page's text without tags and style, spaces made one."""
    text = re.sub(r"<style>.*?</style>|<svg.*?</svg>", " ", text, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def test_page_stands_alone_and_is_well_formed(page):
    found = stands_alone(page)
    for link in [f for f in found.fetched if f.startswith("#")]:
        assert link[1:] in found.ids
    assert not re.search(r'(?:src|href|url)\s*[=(]\s*["\']?(?:https?:|//|file:)', page)
    assert len(page) < 5_000_000


def test_hostile_names_and_texts_are_escaped(page):
    assert re.search(r"&lt;script&gt;alert\(&#39;\d+&#39;\)&amp;amp;\.ppms", page)
    assert "&lt;/script&gt;&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>bold" not in page
    assert "<b>run" not in page


def test_every_picture_has_an_alternative_text(page):
    pictures = re.findall(r"<img[^>]*>", page)
    assert pictures
    assert all(re.search(r'alt="[^"]{5,}"', picture) for picture in pictures)
    drawings = re.findall(r"<svg", page)
    assert len(drawings) == page.count('role="img" aria-label="Histogram of') + 1  # and the mark at the top
    assert page.count("<svg") == len(drawings)


def test_page_shows_the_figures_of_the_run(made, page):
    store = ScoreStore.open(made)
    funnel = decide_all(Flicker(), store, Flicker.Policy())
    shown = plain(page)
    assert f"{funnel.kept} of {funnel.clips} clips kept" in shown
    assert f"Errors 3 {100 * 3 / funnel.clips:.1f} % could not be scored" in shown
    assert store.identity.params_hash[:12] in shown
    assert "clips/s" in shown
    for count in funnel.rules:
        assert re.search(rf"{re.escape(count.rule)} {count.first} {count.left} {count.alone} {count.any}", shown), count
    for one in funnel.overlap:
        for other in funnel.overlap:
            assert f">{funnel.overlap[one][other]:,}</td>" in page
    assert "policy.yaml" in shown
    assert "max: 0.3" in shown
    assert "window_s: 4" in shown
    assert f"planish filter decide '{made!s}'" in page.replace("&#39;", "'").replace("&lt;", "<").replace("&gt;", ">")


def test_errors_are_listed_with_examples(page):
    shown = plain(page)
    assert re.search(r"No such file or directory: … 3 gone-0 : .*gone 0\.ppms", shown), shown[-2000:]


def test_gallery_has_kept_and_dropped_clips_with_pictures(made, page):
    funnel = decide_all(Flicker(), ScoreStore.open(made), Flicker.Policy())
    sizes = {"Kept": funnel.kept} | {count.rule: count.first for count in funnel.rules}
    found = dict(re.findall(r"<h3>(\S+) <small>(\d+) of", page))
    assert found == {rule: str(min(6, clips)) for rule, clips in sizes.items() if clips}
    sources = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    assert len(sources) == sum(map(int, found.values()))
    assert all(base64.b64decode(source).startswith(b"\x89PNG") for source in sources)


def test_same_run_gives_the_same_page(made, page):
    assert write_report(made, Flicker()).read_text() == page


def test_quantiles_are_shown_as_they_were_settled(made, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(made, folder)
    decided(folder, Flicker(), read_policy(Flicker(), preset="steady"))
    shown = plain(write_report(folder, Flicker()).read_text())
    assert "Policy as it decided, with quantiles worked out" in shown
    assert "max_quantile: 0.5" in shown
    limit = ScoreStore.open(folder).table(["flicker"])["flicker"].to_numpy()
    assert f"at most {figure(float(np.nanquantile(limit, 0.5)))}" in shown


class Balky(Flicker):
    """Makes pictures of some clips only."""

    def illustrate(self, clip, row):
        number = int(re.findall(r"\d+", Path(clip.path).name + "0")[0]) % 4
        if number == 0:
            raise OSError("<moov> atom not found")
        if number == 1:
            return [Illustration("Sound", b"RIFF", "audio/wav")]
        return [] if number == 2 else super().illustrate(clip, row)


def test_clips_without_pictures_do_not_sink_the_page(made, caplog):
    text = write_report(made, Balky()).read_text()
    stands_alone(text)
    assert "No pictures: OSError: &lt;moov&gt; atom not found" in text
    assert "is audio/wav; a page shows image/jpeg" in text
    assert "data:image/png" in text
    assert any("<moov> atom not found" in record.message for record in caplog.records)


class Heavy(Flicker):
    """Makes pictures too large for a page."""

    def illustrate(self, clip, row):
        return [Illustration("Noise", b"\x89PNG" + bytes(300_000), "image/png", "large")] * 2


def test_page_stays_small_whatever_pictures_there_are(made):
    text = write_report(made, Heavy()).read_text()
    assert len(text) < 5_000_000
    assert "Pictures are left out to keep the page small." in text
    first_cards = re.findall(r'<section class="group[^"]*">.*?<article.*?</article>', text, re.DOTALL)
    assert all("data:image/png" in card for card in first_cards), "each group keeps pictures of its first clip"


def test_page_of_a_filter_without_rule_names_bounds_or_pictures(tmp_path):
    for number, level in enumerate((5, 120, 130, 250)):
        write_ppm(tmp_path / f"{number}.ppm", np.full((16, 16, 3), level, dtype=np.uint8))
    clips = [Clip(f"c{n}", str(tmp_path / f"{n}.ppm")) for n in range(4)]
    folder = scored(tmp_path / "out", Brightness(), clips)
    text = write_report(folder, Brightness()).read_text()
    stands_alone(text)
    shown = plain(text)
    assert "luminance … is above … 1 3 1 1" in shown
    assert "0.2 to 0.9" in shown  # of min_luminance and max_luminance
    assert "Not drawn: side (16 everywhere)" in shown
    assert "<img" not in text
    assert "every clip was scored" in shown
    assert 'id="overlap"' not in text  # a clip has one reason


def test_page_where_nothing_could_be_scored(tmp_path):
    clips = [Clip(f"c{n}", str(tmp_path / f"{n}.ppm")) for n in range(2)]
    text = write_report(scored(tmp_path / "out", Brightness(), clips), Brightness()).read_text()
    stands_alone(text)
    assert "0 of 2 clips kept" in plain(text)
    assert 'class="card bad"' in text
    assert 'id="gallery"' not in text


def test_undecided_and_outdated_runs_are_refused(tmp_path):
    paths = [tmp_path / f"{n}.ppm" for n in range(3)]
    for path in paths:
        write_ppm(path, np.full((8, 8, 3), 100, dtype=np.uint8))
    clips = [Clip(path.stem, str(path)) for path in paths]
    out = tmp_path / "out"
    score_clips(Brightness(), clips[:2], out, LocalEngine(in_process=True))
    with pytest.raises(DataError, match="nothing was decided there"):
        write_report(out, Brightness())
    decided(out, Brightness())
    score_clips(Brightness(), clips, out, LocalEngine(in_process=True))
    with pytest.raises(DataError, match="other scores than were decided; run 'planish filter decide'"):
        write_report(out, Brightness())


# ---- the parts


def test_choice_depends_on_the_clips_alone():
    decided = [
        ("r" if n % 3 else None, gallery.Decided(f"clip-{n}", n % 3 == 0, "", ("r",) if n % 3 else ()))
        for n in range(500)
    ]
    first = gallery.choose(decided, 6)
    assert {rule: len(found) for rule, found in first.items()} == {"r": 6, None: 6}
    assert gallery.choose(decided[::-1], 6) == first
    assert {d.clip_id for d in first[None]} <= {f"clip-{n}" for n in range(0, 500, 3)}
    others = [d for d in decided if d[1].clip_id not in {c.clip_id for c in first["r"][:1]}]
    assert gallery.choose(others, 5)["r"] == first["r"][1:]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"flow": {"min": 3.0, "max": None, "missing": "keep"}}, Bounds(3.0, None)),
        ({"min_flow": 1, "max_flow": 2.5}, Bounds(1, 2.5)),
        ({"flow": True, "flow_mean": {"min": 1}}, Bounds()),
        ({"flow": {"min": True}}, Bounds()),
    ],
)
def test_bounds_are_found_by_name(policy, expected):
    assert Bounds.of(policy, "flow") == expected


def test_bounds_reject_what_is_outside_and_say_so():
    bounds = Bounds(3.0, 35.0)
    assert [bounds.reject(value) for value in (2.9, 3.0, 35.0, 35.1)] == [True, False, False, True]
    assert [str(b) for b in (bounds, Bounds(3.0), Bounds(None, 0.5), Bounds())] == [
        "3 to 35",
        "at least 3",
        "at most 0.5",
        "",
    ]
