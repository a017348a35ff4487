"""Kernels compile for Hopper and Ampere GPUs, which needs none of them; the interpreter is more lenient."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_kernels_compile_for_hopper_and_ampere(tmp_path):
    pytest.importorskip("triton", reason="triton is not installed")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    program = Path(__file__).with_name("compile_kernels.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(program)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert len(outcome) == 26 + 5 + 1 + 13
    refused = {name: found for name, found in outcome.items() if isinstance(found, str)}
    assert not refused
    for name, found in outcome.items():
        assert found["machine_code"] > 0, name
        # A layout that repeats values in every thread shows as a program many times as long, which spills.
        assert found["lines"] < 7000, name
        on_hopper = name.startswith("matmul") and not name.endswith("Ampere")
        assert (found["wgmma"] > 0) == on_hopper, f"{name} runs on tensor cores of Hopper: {found['wgmma']}"
