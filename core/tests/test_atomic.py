"""Files and folders are written as a whole or not at all."""

import errno
import os

import pytest
from planish.atomic import make_folder, replacing, replacing_folder, write_text
from planish.errors import WorkError


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert os.listdir(path.parent) == ["b.json"]


def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "b.json"
    write_text(path, "old")

    def fail():
        with replacing(path) as beside:
            beside.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["b.json"]


def test_a_full_disk_is_a_work_error_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "b.json"
    write_text(path, "old")

    def fail():
        with replacing(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(WorkError, match=r"cannot write .*b\.json: No space left on device; free space"):
        fail()
    assert os.listdir(tmp_path) == ["b.json"]
    assert WorkError.exit_code == 1


def test_a_really_full_device_is_a_work_error(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")

    def fail():
        with replacing(tmp_path / "b.json"), open("/dev/full", "w") as full:
            full.write("x" * 100_000)

    with pytest.raises(WorkError, match="No space left on device"):
        fail()
    assert os.listdir(tmp_path) == []


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "model"
    for text in ("one", "two"):
        with replacing_folder(path) as beside:
            (beside / text).write_text(text)
    assert os.listdir(path) == ["two"]
    assert os.listdir(tmp_path) == ["model"]


def test_a_failure_in_the_middle_leaves_the_old_folder(tmp_path):
    path = tmp_path / "model"
    with replacing_folder(path) as beside:
        (beside / "old").write_text("old")

    def fail():
        with replacing_folder(path) as beside:
            (beside / "new").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["model"]


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(WorkError, match=r"cannot create folder .*out/run: Not a directory; choose another"):
        make_folder(tmp_path / "out" / "run")
    with pytest.raises(WorkError, match="cannot create folder"):
        write_text(tmp_path / "out" / "run" / "report.json", "x")
