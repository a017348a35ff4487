"""The benchmark pages of the docs are what ``planish bench --page`` makes of the result files beside them."""

from pathlib import Path

import pytest
from planish.benchmark import page, read_result

FOLDER = Path(__file__).parents[1] / "docs" / "benchmarks"
RESULTS = sorted(FOLDER.glob("*.json"))
ON_PROCESSORS = {"egovid", "egovid-cleaning", "egovid-flow", "egovid-memory", "jetfire-learning"}
"""Results that do not depend on a GPU; all others are of the same one."""


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_page_is_drawn_from_its_result(path: Path) -> None:
    assert path.with_suffix(".md").read_text().strip() == page(read_result(path)).strip()


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_result_is_one_to_quote(path: Path) -> None:
    result = read_result(path)
    assert result.oracle_passed
    if path.stem in ON_PROCESSORS:
        assert result.hardware.gpu is None
        assert result.hardware.cpu not in ("", "x86_64", "aarch64", "arm64"), "a result names its processor"
    else:
        assert result.hardware.gpu == "NVIDIA H200"
    assert result.rows
