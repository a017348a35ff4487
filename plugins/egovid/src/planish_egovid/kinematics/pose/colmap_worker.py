"""Runs COLMAP on a folder of pictures, in a process of its own.

pycolmap and OpenCV carry their own copies of the same libraries and crash each other within one process, and COLMAP
aborts the process on some inputs. Run as ``python -m planish_egovid.kinematics.pose.colmap_worker job.json``; this
module must not import OpenCV.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def reconstruct(job: dict[str, Any]) -> dict[str, Any]:
    """Return the largest reconstruction of a folder of pictures.

    Args:
        job: ``folder`` with a subfolder ``images``, ``camera_model`` and ``camera_params`` as COLMAP writes them,
            ``overlap`` (pictures that each is matched with), ``max_features``, ``seed``.

    Returns:
        ``names`` of registered pictures, their ``w2c`` matrices, the number of ``points``, and their ``error_px``.
    """
    import pycolmap

    folder = Path(job["folder"])
    database, images = folder / "database.db", folder / "images"
    pycolmap.set_random_seed(job["seed"])
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model, reader.camera_params = job["camera_model"], job["camera_params"]
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.num_threads, extraction.use_gpu = 1, False
    extraction.sift.max_num_features = job["max_features"]
    pycolmap.extract_features(
        database,
        images,
        camera_mode=pycolmap.CameraMode.SINGLE,
        reader_options=reader,
        extraction_options=extraction,
        device=pycolmap.Device.cpu,
    )
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads, matching.use_gpu = 1, False
    pairing = pycolmap.SequentialPairingOptions()
    pairing.overlap, pairing.quadratic_overlap = job["overlap"], False
    pycolmap.match_sequential(database, matching_options=matching, pairing_options=pairing, device=pycolmap.Device.cpu)
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed = 1, job["seed"]
    options.ba_refine_focal_length = options.ba_refine_extra_params = False
    options.multiple_models, options.min_model_size = False, 3
    # A few seconds of a head camera: short baselines, mostly forward. COLMAP's defaults are for walks around things.
    options.mapper.init_min_tri_angle = 1.5
    options.mapper.init_max_forward_motion = 1.0
    options.mapper.init_min_num_inliers = 50
    options.mapper.filter_min_tri_angle = 0.5
    options.mapper.abs_pose_min_num_inliers = 20
    output = folder / "sparse"
    output.mkdir()
    models = pycolmap.incremental_mapping(database, images, output, options)
    if not models:
        return {"names": [], "w2c": [], "points": 0, "error_px": None}
    best = max(models.values(), key=lambda model: model.num_reg_images())
    registered = sorted((image for image in best.images.values() if image.has_pose), key=lambda image: image.name)
    return {
        "names": [image.name for image in registered],
        "w2c": [np.asarray(image.cam_from_world().matrix()).tolist() for image in registered],
        "points": int(best.num_points3D()),
        "error_px": float(best.compute_mean_reprojection_error()),
    }


def main(path: str) -> None:
    """Read a job from a file and write its result beside it, as ``result.json``."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    result = reconstruct(job)
    Path(job["folder"], "result.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
