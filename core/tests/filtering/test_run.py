"""A run scores what is missing, keeps what there is, and leaves no clip without exactly one row."""

import errno
import hashlib
import os
import signal
from collections import Counter
from dataclasses import replace

import planish.filtering.shard_writer as shard_writer
import pyarrow.parquet as pq
import pytest
from planish.errors import ConfigError, DataError, WorkError
from planish.filtering import ScoreStore
from planish.filtering.local_engine import LocalEngine
from planish.filtering.manifest import find_clips
from planish.filtering.run import score_clips
from planish.filtering.shards import ShardFolder
from planish.interfaces import Clip, FilterEngine, Stage
from ppm_filters import Columns, Pictures, Staged, write_ppm


@pytest.fixture
def clips(pictures):
    return [Clip(path.stem, str(path)) for path in sorted(pictures.iterdir())]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "side=3" / "out"  # a path that data sets would take for a column


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(shard_writer, "ROWS", 3)


class Recording(FilterEngine):
    """Scores in this process and keeps what it was asked for."""

    name = "recording"
    summary = "scores in this process"
    Config = LocalEngine.Config

    def __init__(self, **options):
        super().__init__(**options)
        self.groups = []

    def run(self, job, clips):
        data_filter = job.build()
        for group in clips:
            self.groups.append([clip.id for clip in group])
            yield data_filter.score(group)


def score(clips, out, *, data_filter=None, **keywords):
    """Run, check that the store holds exactly one row a clip, in order, and return summary and scored ids."""
    data_filter = data_filter or Pictures()
    engine = Recording()
    summary = score_clips(data_filter, clips, out, engine, **keywords)
    rows = list(ScoreStore.open(out).rows(data_filter))
    assert [row.clip_id for row in rows] == [clip.id for clip in clips]
    assert rows == data_filter.score(clips)
    scored = [clip_id for group in engine.groups for clip_id in group]
    assert summary.scored == len(scored) == len(set(scored))
    assert summary.reused == len(clips) - len(scored)
    return summary, sorted(scored)


def test_all_clips_have_their_row_in_order(clips, out):
    summary, scored = score(clips[::-1], out)
    assert scored == sorted(clip.id for clip in clips)
    assert (summary.clips, summary.errors, summary.errors_reused) == (12, 2, 0)
    assert summary.reasons == {"cut short: … of … bytes": 1, "not a binary PPM file": 1}
    store = ScoreStore.open(out)
    assert store.clips() == clips[::-1]
    assert store.missing() == []
    assert store.missing(retry_errors=True) == [4, 8]
    assert (store.run.state, store.run.clips, store.run.errors, store.run.scored) == ("finished", 12, 2, 12)
    assert len(store.shards.shards()) == 1  # the small ones have been compacted


def test_a_second_run_scores_nothing(clips, out):
    score(clips, out)
    summary, scored = score(clips, out)
    assert scored == []
    assert (summary.errors, summary.errors_reused, summary.clips_per_s) == (2, 2, None)
    assert ScoreStore.open(out).run.scored == 12


def test_further_clips_are_scored_alone(clips, out):
    score(clips[:5], out)
    _, scored = score(clips, out)
    assert scored == [clip.id for clip in clips[5:]]


def test_other_clips_replace_the_list_and_come_back_for_nothing(clips, out):
    score(clips[:6], out)
    score(clips[6:], out)
    assert ScoreStore.open(out).clips() == clips[6:]
    _, scored = score(clips, out)
    assert scored == []


@pytest.mark.parametrize(
    "change", [{"text": "said"}, {"start_s": 0.5}, {"end_s": 2.0}, {"extra": {"imu_path": "/imu.csv"}}]
)
def test_a_clip_that_has_changed_is_scored_again(clips, out, change):
    score(clips, out)
    changed = [replace(clips[0], **change), *clips[1:]]
    _, scored = score(changed, out)
    assert scored == ["00"]
    assert score(clips, out)[1] == []  # the row of the earlier state is still there


def test_a_file_that_has_changed_is_scored_again(clips, out, pictures):
    score(clips, out)
    write_ppm(pictures / "02.ppm", seed=99)
    os.utime(pictures / "04.ppm", ns=(1, 1))
    _, scored = score(clips, out)
    assert scored == ["02", "04"]


def test_a_data_set_that_moves_as_a_whole_keeps_its_scores(clips, out, pictures):
    score(clips, out)
    pictures.rename(pictures.with_name("elsewhere"))
    moved = [replace(clip, path=clip.path.replace("/pictures/", "/elsewhere/")) for clip in clips]
    assert score(moved, out)[1] == []


def test_a_file_that_appears_is_scored(clips, out, pictures):
    lost = pictures / "02.ppm"
    data = lost.read_bytes()
    lost.unlink()
    assert score(clips, out)[0].errors == 3
    lost.write_bytes(data)
    summary, scored = score(clips, out)
    assert scored == ["02"]
    assert summary.errors == 2


def test_errors_are_tried_again_on_demand(clips, out):
    score(clips, out)
    assert score(clips, out, retry_errors=False)[1] == []
    summary, scored = score(clips, out, retry_errors=True)
    assert scored == ["03", "07"]
    assert (summary.errors, summary.errors_reused) == (2, 0)


def test_other_options_and_versions_have_scores_of_their_own(clips, out, monkeypatch):
    score(clips, out)
    _, scored = score(clips, out, data_filter=Pictures(gain=2.0))
    assert len(scored) == 12
    assert ScoreStore.open(out).run.params == {"gain": 2.0}
    assert ScoreStore.open(out).run.scored == 12
    monkeypatch.setattr(Pictures, "metric_version", 2)
    assert len(score(clips, out)[1]) == 12
    monkeypatch.undo()
    monkeypatch.setattr(shard_writer, "ROWS", 3)
    assert score(clips, out)[1] == []
    assert len(score(clips, out, data_filter=Staged())[1]) == 12
    assert sorted(path.name.split("-v")[0] for path in (out / "scores").iterdir()) == ["pictures"] * 3 + [
        "staged-pictures"
    ]


def test_bookkeeping_says_where_a_row_comes_from(clips, out, pictures):
    score(clips, out, hash_sources=True)
    (row,) = ScoreStore.open(out).table().slice(1, 1).to_pylist()
    found = (pictures / "01.ppm").stat()
    assert (row["source_size"], row["source_mtime_ns"]) == (found.st_size, found.st_mtime_ns)
    assert row["source_sha256"] == hashlib.sha256((pictures / "01.ppm").read_bytes()).hexdigest()
    assert (row["filter"], row["metric_version"]) == ("pictures", 1)
    assert row["params_hash"] == ScoreStore.open(out).identity.params_hash
    assert row["scored_at"].tzinfo is not None
    write_ppm(pictures / "01.ppm", seed=77)
    score(clips, out, hash_sources=True)
    (again,) = ScoreStore.open(out).table(["source_sha256"]).slice(1, 1).to_pylist()
    assert again["source_sha256"] == hashlib.sha256((pictures / "01.ppm").read_bytes()).hexdigest()


def test_single_columns_can_be_read(clips, out):
    score(clips, out)
    store = ScoreStore.open(out)
    assert store.table(["side", "clip_id"]).slice(0, 1).to_pylist() == [{"side": 4, "clip_id": "00"}]
    with pytest.raises(DataError, match=r"no column 'sharpness'; columns: .*clip_id"):
        store.table(["clip_id", "sharpness"])


def test_shards_are_written_as_rows_come(clips, out, monkeypatch):
    seen = []

    class Watching(Recording):
        def run(self, job, clips):
            for rows in super().run(job, clips):
                yield rows
                seen.append(len(list((out / "scores").glob("*/part-*"))))

    score_clips(Pictures(), clips, out, Watching())
    assert seen == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4]
    monkeypatch.setattr(shard_writer, "SECONDS", 0.0)
    seen.clear()
    score_clips(Pictures(gain=3.0), clips, out, Watching())
    assert seen == list(range(2, 14))  # beside the one that the first run was compacted to


def test_many_shards_are_compacted_on_the_way(clips, out, monkeypatch):
    monkeypatch.setattr(shard_writer, "ROWS", 1)
    monkeypatch.setattr(shard_writer, "_COMPACT_AFTER", 4)
    counts = []

    class Watching(Recording):
        def run(self, job, clips):
            for rows in super().run(job, clips):
                yield rows
                counts.append(len(list((out / "scores").glob("*/part-*"))))

    score_clips(Pictures(), clips, out, Watching())
    assert counts == [1, 2, 3, 1, 2, 3, 4, 1, 2, 3, 4, 1]


def test_clips_of_one_file_come_together_in_order(tmp_path, out, monkeypatch):
    files = [write_ppm(tmp_path / f"{name}.ppm", 1) for name in "ab"]
    clips = [Clip(f"{path.stem}{n:03d}", str(path), float(n), n + 1.0) for n in range(200) for path in files]
    engine = Recording()
    score_clips(Pictures(), clips, out, engine)
    assert [len(group) for group in engine.groups] == ([6] * 33 + [2]) * 2
    assert all(len({clip_id[0] for clip_id in group}) == 1 for group in engine.groups)
    assert [i for group in engine.groups for i in group] == sorted(clip.id for clip in clips)

    class OnGpu(Pictures):
        def stages(self):
            return [Stage("score", self._score_works, gpus=1, batch_size=5)]

    monkeypatch.setattr("ppm_filters.Pictures.stages", OnGpu.stages)
    engine = Recording()
    score_clips(Pictures(gain=2.0), clips, out, engine)
    assert [len(group) for group in engine.groups] == [5] * 80


# ---- what goes wrong


class Faulty(Recording):
    def __init__(self, fault, **options):
        super().__init__(**options)
        self.fault = fault

    def run(self, job, clips):
        for number, rows in enumerate(super().run(job, clips)):
            if number == 7:
                if isinstance(self.fault, BaseException):
                    raise self.fault
                yield from self.fault(rows)
            else:
                yield rows


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), WorkError("the cluster is gone")])
def test_an_interrupted_run_keeps_its_rows_and_goes_on(clips, out, fault):
    with pytest.raises(type(fault)) as raised:
        score_clips(Pictures(), clips, out, Faulty(fault))
    if isinstance(fault, KeyboardInterrupt):
        assert str(raised.value).startswith("interrupted with 7 of 12 clips scored; they are kept in ")
    store = ScoreStore.open(out)
    assert (store.run.state, store.run.scored) == ("interrupted", 7)
    assert [row.clip_id for row in store.rows(Pictures())] == [clip.id for clip in clips[:7]]
    assert score(clips, out)[1] == [clip.id for clip in clips[7:]]
    assert ScoreStore.open(out).run.scored == 12


def test_an_engine_that_leaves_a_gap_is_found_out(clips, out):
    with pytest.raises(WorkError, match="engine 'recording' gave no row for 1 clips, such as '07'"):
        score_clips(Pictures(), clips, out, Faulty(lambda rows: []))
    assert score(clips, out)[1] == ["07"]


def test_an_engine_that_repeats_itself_is_found_out(clips, out):
    with pytest.raises(WorkError, match="engine 'recording' gave a row too many for clip '07'"):
        score_clips(Pictures(), clips, out, Faulty(lambda rows: [rows, rows]))
    score(clips, out)
    with pytest.raises(WorkError, match="a row too many for clip 'stranger'"):
        score_clips(Pictures(gain=2.0), clips, out, Faulty(lambda rows: [[Columns(clip_id="stranger")]]))


def test_a_full_disk_keeps_what_was_written(clips, out, monkeypatch):
    write_table, calls = pq.write_table, Counter()

    def full(*arguments, **keywords):
        calls["write"] += 1
        if calls["write"] > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_table(*arguments, **keywords)

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(WorkError, match=r"cannot write .*part-000002\.parquet: No space left on device; free space"):
        score_clips(Pictures(), clips, out, Recording())
    assert not [path for path in out.rglob(".*") if path.name != ".run.json.lock"]
    monkeypatch.setattr(pq, "write_table", write_table)
    assert score(clips, out)[1] == [clip.id for clip in clips[6:]]


def test_damaged_shards_are_scored_again(clips, out):
    score(clips, out)
    (shard,) = out.glob("scores/*/part-*")
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(DataError, match="is damaged"):
        list(ScoreStore.open(out).rows(Pictures()))
    summary, scored = score(clips, out)
    assert len(scored) == 12
    assert summary.damaged == [f"{shard}.damaged"]


def test_a_value_that_cannot_be_stored_is_an_error_row(clips, out, monkeypatch):
    measure = Pictures.score_one

    def huge(self, clip):
        row = measure(self, clip)
        return row.model_copy(update={"side": 2**70}) if clip.id == "01" else row

    monkeypatch.setattr("ppm_filters.Pictures.score_one", huge)
    summary = score_clips(Pictures(), clips, out, Recording())
    assert summary.errors == 3
    rows = list(ScoreStore.open(out).rows(Pictures()))
    assert rows[1].error.startswith("column 'side' cannot be stored as int64")
    assert rows[2].side == 4


def test_text_that_is_not_utf8_is_an_error_row_and_an_error_keeps_its_words(clips, out, monkeypatch):
    """Bytes of a tag or a name that are no UTF-8 are lone surrogates in Python, which no file of ours can hold."""

    class Labelled(Columns):
        label: str | None = None

    measure = Pictures.score_one

    def undecodable(self, clip):
        row = measure(self, clip)
        told = {"01": {"label": "caf\udce9"}, "02": {"error": "no caf\udce9 today"}}
        return row.model_copy(update=told.get(clip.id, {}))

    monkeypatch.setattr("ppm_filters.Pictures.Columns", Labelled)
    monkeypatch.setattr("ppm_filters.Pictures.score_one", undecodable)
    assert score_clips(Pictures(), clips, out, Recording()).errors == 4
    rows = list(ScoreStore.open(out).rows(Pictures()))
    assert rows[1].error.startswith("column 'label' cannot be stored as string: ")
    assert rows[2].error == r"no caf\udce9 today"
    assert rows[4].error is None


def test_a_folder_with_other_things_is_left_alone(clips, out):
    out.mkdir(parents=True)
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds files that 'planish filter' did not write \(thesis\.tex\)"):
        score_clips(Pictures(), clips, out, Recording())
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]
    (out / "thesis.tex").rename(out / "run.json")
    with pytest.raises(DataError, match=r"run\.json is no record of a filter run"):
        score_clips(Pictures(), clips, out, Recording())
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        score_clips(Pictures(), clips, out / "run.json", Recording())
    assert (out / "run.json").read_text() == "mine"


def test_two_runs_do_not_share_a_folder(clips, out):
    class Second(Recording):
        def run(self, job, clips):
            with pytest.raises(WorkError, match="another 'planish filter' writes to"):
                score_clips(Pictures(), [Clip("x", "x")], out, Recording())
            yield from super().run(job, clips)

    score_clips(Pictures(), clips, out, Second())
    assert ScoreStore.open(out).clips() == clips


def test_clips_must_be_there_and_have_ids_of_their_own(clips, out):
    with pytest.raises(DataError, match="no clips"):
        score_clips(Pictures(), [], out, Recording())
    with pytest.raises(DataError, match="id '00' occurs twice"):
        score_clips(Pictures(), [*clips, clips[0]], out, Recording())
    assert not out.exists()


@pytest.mark.parametrize(
    "clip",
    [
        Clip("caf\udce9", "caf.ppm"),
        Clip("a", "caf\udce9.ppm"),
        Clip("a", "a.ppm", text="caf\udce9"),
        Clip("a", "a.ppm", extra={"place": ["caf\udce9"]}),
    ],
)
def test_a_clip_that_is_not_named_in_utf8_is_refused_before_anything_is_scored(clip, clips, out):
    with pytest.raises(DataError, match=r"clip '.*' of '.*' cannot be stored: .* not UTF-8; rename the file"):
        score_clips(Pictures(), [*clips, clip], out, Recording())
    assert not out.exists()


def test_a_run_that_died_at_its_very_start_is_no_obstacle(clips, out):
    score(clips, out)
    (out / "clips.parquet").unlink()
    with pytest.raises(DataError, match=r"has no clips\.parquet"):
        ScoreStore.open(out).clips()
    assert score(clips, out)[1] == []
    fresh = out.with_name("fresh")
    fresh.mkdir()
    (fresh / ".run.json.lock").touch()
    (fresh / ".run.json.abc").touch()
    assert len(score(clips, fresh)[1]) == 12


def test_unreadable_folders_are_part_of_the_summary(pictures, out):
    manifest = find_clips([pictures], Pictures())
    manifest.unreadable.append("/secret (Permission denied)")
    summary = score_clips(Pictures(), manifest, out, Recording())
    assert summary.unreadable == ["/secret (Permission denied)"]
    assert ScoreStore.open(out).run.unreadable == ["/secret (Permission denied)"]


def test_the_whole_way_from_python(pictures, out):
    import planish.filtering as filtering

    assert [name for name in filtering.__all__ if not hasattr(filtering, name)] == []
    with pytest.raises(AttributeError, match="no attribute 'score_all'"):
        _ = filtering.score_all
    pictures_filter = Pictures()
    filtering.score_clips(pictures_filter, filtering.find_clips([pictures], pictures_filter), out, Recording())
    store = filtering.ScoreStore.open(out)
    assert (store.identity.filter, store.identity.distribution) == ("pictures", "")
    funnel = filtering.decide_all(pictures_filter, store, filtering.read_policy(pictures_filter))
    assert (funnel.clips, funnel.failed) == (12, 2)
    assert filtering.write_report(out, pictures_filter).exists()


def test_an_interruption_while_a_shard_is_written_doubles_nothing(clips, out, monkeypatch):
    append = ShardFolder.append

    def interrupted(self, table, **keywords):
        written = append(self, table, **keywords)
        os.kill(os.getpid(), signal.SIGINT)
        return written

    monkeypatch.setattr(ShardFolder, "append", interrupted)
    with pytest.raises(KeyboardInterrupt, match="interrupted with 3 of 12 clips scored"):
        score_clips(Pictures(), clips, out, Recording())
    monkeypatch.setattr(ShardFolder, "append", append)
    assert sum(shard.rows for shard in ScoreStore.open(out).shards.shards()) == 3
    assert score(clips, out)[1] == [clip.id for clip in clips[3:]]
