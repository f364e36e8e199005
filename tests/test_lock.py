"""One writer at a time, and a lock that is no obstacle when its holder is gone."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_store import SPEC, add, make

from syncdisc_plugin.data import lock
from syncdisc_plugin.data.lock import Lock
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.data.writer import StoreWriter
from syncdisc_plugin.errors import StoreError

posix = pytest.mark.skipif(lock.fcntl is None, reason="needs flock")
HOLD = (
    "import sys, time; from pathlib import Path; from syncdisc_plugin.data.lock import Lock; "
    "held = Lock(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"
)


@posix
def test_a_second_writer_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", SPEC) as writer:
        add(writer, "k1")
        before = writer.manifest.read_bytes()
        with pytest.raises(StoreError) as caught:
            StoreWriter(tmp_path / "s", SPEC)
        text = str(caught.value)
        assert str(tmp_path / "s") in text and f"process {os.getpid()} on " in text
        assert "expected no other" in text and "Wait for it or stop it" in text
        assert writer.manifest.read_bytes() == before
        assert len(ClipStore(tmp_path / "s")) == 1, "readers need no lock"
        add(writer, "k2")
    with StoreWriter(tmp_path / "s", SPEC) as again:
        assert again.done == {"k1", "k2"}


@posix
def test_what_is_refused_while_opening_lets_go(tmp_path: Path) -> None:
    make(tmp_path, {"k1": 1})
    (tmp_path / "manifest.jsonl").write_text("{half\n{}\n")
    with pytest.raises(StoreError, match="line 1 is not JSON") as caught:
        StoreWriter(tmp_path, SPEC)
    (tmp_path / "manifest.jsonl").write_text("")
    StoreWriter(tmp_path, SPEC).close()
    del caught


@posix
def test_a_killed_holder_is_no_obstacle(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE)
    try:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreError, match=f"process {holder.pid} on "):
            Lock(tmp_path)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    assert (tmp_path / "lock").exists(), "the file stays, the lock is gone"
    Lock(tmp_path).release()


@posix
def test_a_lock_ends_with_its_object(tmp_path: Path) -> None:
    Lock(tmp_path)
    held = Lock(tmp_path)
    held.release()
    held.release()
    Lock(tmp_path)


@posix
def test_readers_that_need_it_to_hold_still_share(tmp_path: Path) -> None:
    nothing = Lock(tmp_path, shared=True)
    assert not (tmp_path / "lock").exists(), "a reader writes nothing"
    nothing.release()
    Lock(tmp_path).release()
    one, two = Lock(tmp_path, shared=True), Lock(tmp_path, shared=True)
    with pytest.raises(StoreError, match="at work on this store"):
        Lock(tmp_path)
    one.release()
    two.release()
    held = Lock(tmp_path)
    with pytest.raises(StoreError, match="at work on this store"):
        Lock(tmp_path, shared=True)
    held.release()


@posix
def test_another_users_lock_file_is_locked_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lock").write_text("")
    really = os.open

    def open_(path: Path, flags: int, mode: int = 0) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really(path, flags)

    monkeypatch.setattr(os, "open", open_)
    held = Lock(tmp_path)
    with pytest.raises(StoreError, match="it has not said which"):
        Lock(tmp_path)
    held.release()


@posix
def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with pytest.warns(UserWarning, match=r"cannot be locked.*No locks available.*there is one"):
        writer = StoreWriter(tmp_path / "s", SPEC)
    with writer:
        add(writer, "k1")
    assert len(ClipStore(tmp_path / "s")) == 1


def test_a_system_without_flock_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    with pytest.warns(UserWarning, match="this system has no flock"):
        StoreWriter(tmp_path / "s", SPEC).close()
