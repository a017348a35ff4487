"""What a result says about where it was measured."""

import subprocess
from pathlib import Path

import torch
from planish.environment import Hardware, commit, cores, hardware, processor, versions


def test_hardware():
    found = hardware()
    assert found.gpus == torch.cuda.device_count()
    assert (found.gpu is None) == (found.gpus == 0)
    assert found.cores == cores() >= 1
    assert found.cpu == processor() != ""


def test_hardware_of_another_time_may_say_more():
    assert Hardware.model_validate({"gpu": "H200", "gpus": 1, "cpu": "x", "memory": 141}).model_extra == {"memory": 141}


def test_versions_name_torch_and_every_distribution_of_ours():
    found = versions()
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert found["planish"]
    assert next(iter(found)) == "python"


def test_the_commit_is_that_of_the_sources():
    import planish

    folder = Path(planish.__file__).parent
    done = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if done.returncode:
        assert commit() is None
    else:
        assert len(commit().removesuffix("+changes")) == 40
