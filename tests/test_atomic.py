"""A file is there whole or not at all."""

from __future__ import annotations

import errno
import resource
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from syncdisc_plugin.atomic import replacing, write_text


def test_a_text_is_written_into_folders_that_do_not_exist_yet(tmp_path: Path) -> None:
    path = tmp_path / "a" / "б" / "note.txt"
    write_text(path, "звук\n")
    assert path.read_text(encoding="utf-8") == "звук\n"
    assert [p.name for p in path.parent.iterdir()] == ["note.txt"]


def test_what_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")
    with pytest.raises(OSError, match="disk"), replacing(path) as temp:
        temp.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["note.txt"]


def test_a_disk_that_is_full_for_tensors_is_an_os_error(tmp_path: Path) -> None:
    """Their writer says so in words only, of a kind that no caller expects."""
    path = tmp_path / "state.safetensors"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"state\.safetensors") as caught, replacing(path) as temp:
            save_file({"x": np.zeros(100_000)}, temp)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    with replacing(path) as temp:
        temp.touch(mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
