"""Broken filter engines, one for each clause of the contract."""

from __future__ import annotations

import multiprocessing
import time

import numpy as np
from planish.interfaces import FilterJob
from planish.testing.probe_filters import StagedProbe
from samples.one_by_one import OneByOne, Worker
from samples.suites import OneByOneSuite as Suite

from broken.case import Broken


class DropsTheLast(OneByOne):
    def run(self, job, clips):
        for rows in super().run(job, clips):
            yield rows if len(rows) < 10 else rows[:-1]


class NeedsWork(OneByOne):
    def run(self, job, clips):
        clips = iter(clips)
        first = next(clips)

        def again():
            yield first
            yield from clips

        return super().run(job, again())


class LosesOptions(OneByOne):
    def run(self, job, clips):
        return super().run(FilterJob(job.target, {}), clips)


class StagesTradeSinglePrecision(OneByOne):
    def run(self, job, clips):
        for rows in super().run(job, clips):
            yield [single(row) for row in rows] if "Staged" in job.target else rows


def single(row):
    """Return the row with its spread in single precision."""
    return row if row.error else row.model_copy(update={"spread": float(np.float32(row.spread))})


class ReadsEverything(OneByOne):
    def run(self, job, clips):
        return super().run(job, list(clips))


class StopsAtAnException(OneByOne):
    def score(self, worker, clip):
        row = super().score(worker, clip)
        if row.error and row.error.startswith("RuntimeError"):
            raise RuntimeError(row.error)
        return row


class LosesTheGroup(OneByOne):
    def run(self, job, clips):
        for rows in super().run(job, clips):
            if any(row.error and "died" in row.error for row in rows):
                rows = [type(row)(clip_id=row.clip_id, error="its worker died") for row in rows]
            yield rows


class HasAllTheTime(OneByOne):
    def worker(self, job):
        class Patient(Worker):
            def score(self, clip, timeout_s):
                return super().score(clip, 60.0)

        return Patient(job)


class BlamesTheClips(OneByOne):
    def run(self, job, clips):
        if "NoSuch" in job.target:
            columns = StagedProbe.Columns
            return iter([[columns(clip_id=clip.id, error="no filter") for clip in group] for group in clips])
        return super().run(job, clips)


class LeavesAHelper(OneByOne):
    def run(self, job, clips):
        yield from super().run(job, clips)
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(3,), daemon=True).start()


class KeepsItsWorker(OneByOne):
    def run(self, job, clips):
        worker = self.worker(job)
        for group in clips:
            if group:
                kept[:] = [worker]  # a reference that outlives the run
                yield [self.score(worker, clip) for clip in group]
        worker.stop()


kept: list[Worker] = []

BROKEN = [
    Broken(Suite, "test_every_clip_gets_exactly_one_row", "without a row ['clip-29'", DropsTheLast),
    Broken(Suite, "test_no_clips_give_no_rows", "end without a row", NeedsWork),
    Broken(Suite, "test_rows_are_those_of_score", "score() in this process gives", LosesOptions),
    Broken(Suite, "test_stages_give_the_rows_of_score", "score() in this process gives", StagesTradeSinglePrecision),
    Broken(Suite, "test_clips_are_read_as_workers_become_free", "before the first row", ReadsEverything),
    Broken(Suite, "test_clip_that_raises_costs_only_its_row", "ended the run with RuntimeError", StopsAtAnException),
    Broken(Suite, "test_clip_that_kills_its_worker_costs_only_its_row", "their rows too", LosesTheGroup),
    Broken(Suite, "test_clip_that_hangs_costs_only_its_row", "set error", HasAllTheTime),
    Broken(Suite, "test_filter_that_cannot_be_built_is_an_error", "nothing was raised", BlamesTheClips),
    Broken(Suite, "test_nothing_is_left_running", "after the last row 1 processes go on", LeavesAHelper),
    Broken(Suite, "test_run_that_is_given_up_leaves_nothing_running", "closed half way", KeepsItsWorker),
]
