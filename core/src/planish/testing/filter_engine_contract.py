"""FilterEngineContract: the contract of :class:`planish.interfaces.FilterEngine`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from planish.errors import PlanishError
from planish.interfaces.data_filter import Clip, DataFilter, Row
from planish.interfaces.engine import FilterJob
from planish.testing.child_processes import child_processes, left_running
from planish.testing.clause import not_claimed, refusal, require
from planish.testing.plugin_contract import PluginContract
from planish.testing.probe_filters import Probe, StagedProbe


class FilterEngineContract(PluginContract):
    """The whole battery for an engine::

    class TestDemo(FilterEngineContract):
        plugin = Demo
        options = {"workers": 2}
        limited_options = {"clip_timeout_s": 2.0}
    """

    kind: ClassVar[str] = "filter_engine"

    isolates: ClassVar[bool] = True
    """Whether a clip can take down no more than its worker. False for an engine that scores in its own process."""

    limited_options: ClassVar[Mapping[str, Any]] = {}
    """Options, beside ``options``, under which a clip that takes ``hang_s`` is given up."""

    hang_s: ClassVar[float] = 30.0
    """Seconds that a clip which hangs takes, unless it is given up."""

    read_ahead: ClassVar[int] = 100
    """Groups of one clip that may be read before the first row is there."""

    may_stay: ClassVar[tuple[str, ...]] = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
    """Words in the command lines of processes that may outlive a run."""

    patience_s: ClassVar[float] = 10.0
    """Seconds that processes get to end after a run."""

    # ---- clauses on rows

    def test_every_clip_gets_exactly_one_row(self, tmp_path: Path) -> None:
        """Each of many clips, in groups of any size, gets exactly one row, in any order."""
        clips = self._clips(tmp_path, 90)
        groups = [clips[:1], [], clips[1:4], clips[4:30], clips[30:31], *([clip] for clip in clips[31:])]
        found = Counter(row.clip_id for row in self._rows(Probe(), groups))
        expected = Counter(clip.id for clip in clips)
        require(
            found == expected,
            f"{len(clips)} clips: without a row {sorted(expected - found)[:3]}, with more than one or unknown "
            f"{sorted(found - expected)[:3]}; give each clip exactly one row",
        )

    def test_no_clips_give_no_rows(self) -> None:
        """No groups, and groups without clips, give no rows and no error."""
        nothing: list[list[list[Clip]]] = [[], [[], []]]
        for groups in nothing:
            try:
                rows = self._rows(Probe(), groups)
            except Exception as error:
                rows = []
                require(False, f"groups {groups} raised {type(error).__name__}: {error}; end without a row")
            require(rows == [], f"groups {groups} gave {rows!r}; end without a row")

    def test_rows_are_those_of_score(self, tmp_path: Path) -> None:
        """Rows equal, bit by bit, those that ``score`` returns in this process, under the job's options."""
        self._same_as_here(Probe(scale=0.7), tmp_path)

    def test_stages_give_the_rows_of_score(self, tmp_path: Path) -> None:
        """A filter in several stages gets the rows that ``score`` returns in this process."""
        self._same_as_here(StagedProbe(), tmp_path)

    def test_clips_are_read_as_workers_become_free(self, tmp_path: Path) -> None:
        """The first rows come before all groups have been read: there may be more of them than fit into memory."""
        clips = self._clips(tmp_path, 4 * self.read_ahead)
        read = 0

        def groups() -> Iterator[list[Clip]]:
            nonlocal read
            for clip in clips:
                read += 1
                yield [clip]

        answer = self.make_plugin().run(FilterJob.of(Probe()), groups())
        while not next(answer, [None]):
            pass
        before = read
        _give_up(answer)
        require(
            before <= self.read_ahead,
            f"{before} of {len(clips)} groups were read before the first row; read at most {self.read_ahead} ahead",
        )

    # ---- clauses on clips that go wrong

    def test_clip_that_raises_costs_only_its_row(self, tmp_path: Path) -> None:
        """A clip at which the filter raises gets a row with an error; the others are scored."""
        for probe in (Probe(), StagedProbe()):
            self._one_goes_wrong(tmp_path, probe, "raise", self.options)

    def test_clip_that_kills_its_worker_costs_only_its_row(self, tmp_path: Path) -> None:
        """A clip that takes its worker down gets a row with an error; the others are scored."""
        if not self.isolates:
            not_claimed("isolates is False")
        for probe in (Probe(), StagedProbe()):
            self._one_goes_wrong(tmp_path, probe, "die", self.options)

    def test_clip_that_hangs_costs_only_its_row(self, tmp_path: Path) -> None:
        """A clip that takes longer than the engine's limit gets a row with an error; the others are scored."""
        if not self.limited_options:
            not_claimed("limited_options is empty")
        self._one_goes_wrong(tmp_path, Probe(), "hang", {**self.options, **self.limited_options})

    def test_filter_that_cannot_be_built_is_an_error(self, tmp_path: Path) -> None:
        """A filter that a worker cannot build ends the run with one of planish's errors, not with a row per clip."""
        job = FilterJob(f"{Probe.__module__}:NoSuchProbe", {})
        with refusal(PlanishError, "NoSuchProbe", when=f"the filter {job.target} cannot be built"):
            list(self.make_plugin().run(job, [self._clips(tmp_path, 3)]))

    # ---- clauses on what stays behind

    def test_nothing_is_left_running(self, tmp_path: Path) -> None:
        """After the last row no process that the engine started goes on."""
        before = child_processes()
        self._rows(Probe(), [[clip] for clip in self._clips(tmp_path, 6)])
        self._require_ended(before, "after the last row")

    def test_run_that_is_given_up_leaves_nothing_running(self, tmp_path: Path) -> None:
        """After a run is given up half way no process that the engine started goes on."""
        before = child_processes()
        answer = self.make_plugin().run(FilterJob.of(Probe()), [[clip] for clip in self._clips(tmp_path, 40)])
        next(answer)
        _give_up(answer)
        self._require_ended(before, "after the run was closed half way")

    # ---- what several clauses need

    def _clips(self, folder: Path, count: int) -> list[Clip]:
        clips = []
        for number in range(count):
            path = folder / f"{number}.bin"
            path.write_bytes(bytes((7 * number + 3 * i) % 251 for i in range(5 + number % 11)))
            clips.append(Clip(f"clip-{number}", str(path), extra={"number": number}))
        return clips

    def _rows(
        self, probe: DataFilter, groups: Iterable[Sequence[Clip]], options: Mapping[str, Any] | None = None
    ) -> list[Row]:
        engine = self.construct(self.options if options is None else options)
        return [row for rows in engine.run(FilterJob.of(probe), groups) for row in rows]

    def _same_as_here(self, probe: DataFilter, folder: Path) -> None:
        clips = self._clips(folder, 12)
        clips.insert(5, Clip("missing", str(folder / "missing.bin")))
        found = {row.clip_id: row for row in self._rows(probe, [clips[:7], clips[7:8], clips[8:]])}
        for expected in probe.score(clips):
            row = found.get(expected.clip_id)
            if row is not None:  # rows that are missing are another clause's
                require(
                    type(row) is probe.Columns and row == expected,
                    f"the engine gave {row!r}; score() in this process gives {expected!r}",
                )

    def _one_goes_wrong(self, folder: Path, probe: DataFilter, how: str, options: Mapping[str, Any]) -> None:
        clips = self._clips(folder, 9)
        extra = {"misbehave": how, "hang_s": self.hang_s}
        bad = Clip("bad", clips[0].path, extra=extra)
        try:
            rows = self._rows(probe, [[clips[0], bad, *clips[1:3]], clips[3:5], clips[5:]], options)
        except Exception as error:
            rows = []
            require(False, f"a clip that should {how} ended the run with {type(error).__name__}: {error}")
        found = {row.clip_id: row for row in rows}
        require("bad" in found, f"a clip that should {how} has no row; give it one with an error")
        require(found["bad"].error, f"a clip that should {how} was scored as {found['bad']!r}; set error")
        spoiled = [clip.id for clip in clips if clip.id not in found or found[clip.id].error]
        require(not spoiled, f"a clip that should {how} cost {spoiled} their rows too")

    def _require_ended(self, before: Mapping[int, str], when: str) -> None:
        left = left_running(before, expected=self.may_stay, patience_s=self.patience_s)
        require(not left, f"{when} {len(left)} processes go on, such as {left[:1]}; end them")


def _give_up(answer: Iterator[Sequence[Row]]) -> None:
    close = getattr(answer, "close", None)
    if close is not None:
        close()
