"""What this distribution offers to planish."""

from __future__ import annotations

import planish
from planish.plugins.hookspecs import Register


@planish.hookimpl
def planish_register_data_filters(register: Register) -> None:
    """Register the whole pipeline, and each axis alone."""
    register("egovid", "planish_egovid.filters:EgoVid", "all axes of egocentric cleaning, each clip decoded once")
    register("egovid-motion", "planish_egovid.filters:Motion", "how strongly and how evenly the picture moves")
    register("egovid-consistency", "planish_egovid.filters:Consistency", "whether the frames belong together")
    register("egovid-clarity", "planish_egovid.filters:Clarity", "how sharp and how well exposed the picture is")
    register("egovid-text", "planish_egovid.filters:Text", "whether the picture shows what the text says")
    register("egovid-kinematics", "planish_egovid.filters:Kinematics", "how the camera moves: rotation, path, IMU")
    register("egovid-released", "planish_egovid.clips.released_filter:ReleasedScores", "published scores, from a table")


@planish.hookimpl
def planish_register_commands(register: Register) -> None:
    """Register the verb for what is particular to egocentric data."""
    register("egovid", "planish_egovid.cli:egovid", "segment, split, import and export egocentric data sets")


@planish.hookimpl
def planish_register_benchmarks(register: Register) -> None:
    """Register the benchmark programs."""
    register("egovid", "planish_egovid.benchmark.scoring:bench", "clips a second on processors, beside Data-Juicer")
    register("egovid-memory", "planish_egovid.benchmark.memory:bench", "memory of the workers over 10 000 clips")
    register(
        "egovid-cleaning",
        "planish_egovid.benchmark.cleaning:bench",
        "a video model trained on what the pipeline keeps, on everything, and at random",
    )
    register("egovid-models", "planish_egovid.benchmark.model_backends:bench", "CLIP and RAFT on a GPU, clips a second")
    register("egovid-flow", "planish_egovid.benchmark.flow_accuracy:bench", "optical flow against exact flow")


@planish.hookimpl
def planish_register_diagnostics(register: Register) -> None:
    """Register the checks of decoders and optional backends."""
    register("egovid", "planish_egovid.diagnostics:checks", "decoders, and which backends are installed")
