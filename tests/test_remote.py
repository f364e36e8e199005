"""Footage and stores by URL: what fsspec opens is what a folder would be."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from small_store import SPEC, add, contents, make
from synth import talk

from syncdisc_plugin.cli import main
from syncdisc_plugin.data import remote
from syncdisc_plugin.data.copy import CopyResult, copy
from syncdisc_plugin.data.inputs import canonical, list_inputs
from syncdisc_plugin.data.lock import Lock
from syncdisc_plugin.data.prepare import PrepareSettings, prepare
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.data.verify import verify
from syncdisc_plugin.data.writer import StoreWriter
from syncdisc_plugin.errors import MediaError, RunError, StoreError
from syncdisc_plugin.media import write_video
from syncdisc_plugin.spec import ClipSpec

SETTINGS = PrepareSettings(detector="none", workers=1)
SMALL = ClipSpec(face_px=48)
NAMES = ["ann/one.mp4", "ann/day 2/two #1.mp4", "bob/ö.mp4"]


class Odd(LocalFileSystem):
    """odd://: the disk, as object stores are: it fails, and says things in several ways."""

    protocol = "odd"
    failures: ClassVar[list[Exception]] = []
    """Raised one after the other by what reads or writes a file."""
    cut = False
    """Whether the last byte gets lost."""
    tags: ClassVar[dict[str, str]] = {}
    """ETags by file name: bare in listings, in quotes when asked for one."""

    def get_file(self, rpath: str, lpath: str, **more: Any) -> None:
        self._fail()
        data = Path(rpath).read_bytes()
        Path(lpath).write_bytes(data[:-1] if self.cut else data)

    def put_file(self, lpath: str, rpath: str, **more: Any) -> None:
        self._fail()
        data = Path(lpath).read_bytes()
        Path(rpath).write_bytes(data[:-1] if self.cut else data)

    def find(self, path: str, *args: Any, **more: Any) -> Any:
        found = LocalFileSystem().find(path, detail=True)
        for name, about in found.items():
            about.pop("mtime")
            if tag := self.tags.get(Path(name).name):
                about["etag"] = tag
        return found

    def info(self, path: str, **more: Any) -> dict[str, Any]:
        about = LocalFileSystem().info(path)
        tag = self.tags.get(Path(path).name)
        return about | ({"ETag": f'"{tag}"', "mtime": 0} if tag else {})

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Odd]]:
    """odd://, with a clean slate, and no pause between tries."""
    fsspec.register_implementation("odd", Odd, clobber=True)
    monkeypatch.setattr(remote, "PAUSES_S", (0.0, 0.0))
    yield Odd
    Odd.failures, Odd.cut, Odd.tags = [], False, {}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("remote") / "videos"
    for number, name in enumerate(NAMES):
        clip = talk(number, speaker=number, n_frames=28, side_px=64)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(root / name, clip.frames, audio=clip.audio)
    (root / "bob" / "page.mp4").write_text("<html>404</html>")
    (root / ".hidden.mp4").write_text("not looked at")
    (root / "notes.txt").write_text("no video")
    return root


@pytest.fixture(scope="module")
def archive(videos: Path) -> Path:
    path = videos.parent / "talks.zip"
    with zipfile.ZipFile(path, "w") as file:
        for video in sorted(videos.rglob("*.*")):
            file.write(video, video.relative_to(videos))
    return path


# --- what is a URL


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("s3://bucket/day 1", True), ("zip://a/b::s3://bucket/x.zip", True)),
        *(("simplecache::gs://b", True), ("C:\\videos", False), ("C:/videos", False)),
        *(("videos", False), ("a::b.mp4", False), ("/x/s3://y", False), ("s3:/bucket", False)),
    ],
)
def test_what_is_a_url(text: str, expected: bool) -> None:
    assert remote.is_url(text) is expected
    place = remote.location(text)
    assert place == (text if expected else Path(text))


def test_fsspec_is_loaded_for_urls_only(tmp_path: Path) -> None:
    """And merging or copying stores needs no torch."""
    code = (
        "import sys\n"
        "import syncdisc_plugin.data.copy, syncdisc_plugin.data.merge\n"
        "from syncdisc_plugin.data.inputs import list_inputs\n"
        f"list_inputs([{str(tmp_path)!r}])\n"
        "print([name for name in ('fsspec', 'torch') if name in sys.modules])"
    )
    (tmp_path / "a.mp4").touch()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


# --- footage


@pytest.mark.parametrize("kind", ["file", "zip"])
def test_prepare_from_a_url(kind: str, videos: Path, archive: Path, tmp_path: Path) -> None:
    """The clips of the folder; rows, refusals and messages name URLs."""
    url = f"file://{videos}" if kind == "file" else f"zip://::file://{archive}"
    prepare([videos], tmp_path / "local", SMALL, SETTINGS)
    done = prepare([url], tmp_path / "store", SMALL, SETTINGS)
    assert (done.videos, done.clips, len(done.refused)) == (4, 3, 1)
    assert done.cost.seconds["fetch"] > 0

    mine, local = ClipStore(tmp_path / "store"), ClipStore(tmp_path / "local")
    assert [clip.speaker for clip in mine.clips] == ["ann", "ann", "bob"]
    names = [str(Path(clip.source).relative_to(videos)) for clip in local.clips]
    assert [clip.source for clip in mine.clips] == [remote.join(url, name) for name in names]
    for one, other in zip(mine.clips, local.clips, strict=True):
        for read in ("frames", "mel", "audio"):
            np.testing.assert_array_equal(getattr(mine, read)(one), getattr(local, read)(other))
    reason = mine.refused[0]["reason"]
    assert reason == local.refused[0]["reason"].replace(
        str(videos / "bob" / "page.mp4"), remote.join(url, "bob/page.mp4")
    )
    # Nothing of the copies is left, nothing is done twice, and what changes is done again.
    assert not verify(tmp_path / "store").findings
    assert prepare([url], tmp_path / "store", SMALL, SETTINGS).videos == 0


def test_a_file_that_changed_is_done_again(videos: Path, tmp_path: Path) -> None:
    there = tmp_path / "bucket"
    there.mkdir()
    for name in ("one", "two"):
        (there / f"{name}.mp4").write_bytes((videos / NAMES[0]).read_bytes())
    url = f"file://{there}"
    assert prepare([url], tmp_path / "store", SMALL, SETTINGS).videos == 2
    (there / "two.mp4").write_bytes((videos / NAMES[2]).read_bytes())
    assert prepare([url], tmp_path / "store", SMALL, SETTINGS).videos == 1
    assert len(ClipStore(tmp_path / "store")) == 2


def test_inputs_are_those_of_the_folder(videos: Path, archive: Path) -> None:
    """In the same order, whatever they are reached by, so that array jobs agree."""
    roots: list[str | Path] = [videos, f"file://{videos}", f"zip://::file://{archive}"]
    local, by_file, by_zip = (list_inputs([root]) for root in roots)
    for found in (by_file, by_zip):
        assert [(x.below, x.folder) for x in found] == [(x.below, x.folder) for x in local]
    deep = list_inputs([f"zip://ann/day 2::file://{archive}"])
    assert [(x.below, x.folder) for x in deep] == [("two #1.mp4", "day 2")]
    single = f"file://{videos}/{NAMES[1]}"
    assert [(x.place, x.folder) for x in list_inputs([single])] == [(single, "day 2")]
    assert len(list_inputs([*roots, single])) == 12  # three times the four


def test_speakers_by_url(videos: Path, tmp_path: Path) -> None:
    url = f"file://{videos}"
    table = tmp_path / "speakers.csv"
    table.write_text(f"path,speaker,language\n{url}/{NAMES[0]},anna,de\n", encoding="utf-8")
    settings = PrepareSettings(detector="none", workers=1, speakers=table)
    prepare([f"{url}/ann"], tmp_path / "store", SMALL, settings)
    found = {
        Path(c.source).name: (c.speaker, c.language) for c in ClipStore(tmp_path / "store").clips
    }
    assert found == {"one.mp4": ("anna", "de"), "two #1.mp4": ("day 2", "")}


def test_places_that_there_are_not(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MediaError, match="nothing is there"):
        list_inputs([f"file://{tmp_path}/nowhere"])
    with pytest.raises(RunError, match=r"^nosuch://bucket: cannot be opened \(.*Check the part"):
        list_inputs(["nosuch://bucket"])
    # As a Path a URL has lost a slash; a store is a folder here.
    with pytest.raises(RunError, match="videos s3:/bucket: expected a path on this machine"):
        prepare([Path("s3://bucket")], tmp_path / "store")
    assert main(["prepare", str(videos), "--out", "s3://bucket/store", "--detector", "none"]) == 2
    assert "--out s3:/bucket/store: expected a path on this machine" in capsys.readouterr().err
    assert main(["store", "stats", "s3://bucket/store"]) == 2
    assert "Bring it here with syncdisc store copy" in capsys.readouterr().err
    assert not Path("s3:").exists()


def test_a_kill_leaves_no_copy_for_good(tmp_path: Path) -> None:
    store = make(tmp_path / "store", {"k1": 1})
    (store / "shards" / ".k2.incoming.mp4").write_bytes(b"half a video")
    assert [finding.kind for finding in verify(store).findings] == ["left"]
    StoreWriter(store, SPEC).close()
    assert not verify(store).findings


# --- what a network does


def test_the_version_is_the_same_however_it_is_told(odd: type[Odd], tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"abc")
    (tmp_path / "b.mp4").write_bytes(b"abc")
    odd.tags = {"a.mp4": "e1"}
    listed = {below: version for _, below, version in remote.list_videos(f"odd://{tmp_path}")}
    assert listed["a.mp4"] == remote.version(f"odd://{tmp_path}/a.mp4") == [3, "e1"]
    # One that the listing gives no version of is asked for it.
    assert listed["b.mp4"] == remote.version(f"odd://{tmp_path}/b.mp4") != [3]
    odd.tags = {"a.mp4": "e2"}
    assert remote.version(f"odd://{tmp_path}/a.mp4") == [3, "e2"]


def test_fetching_is_tried_three_times(odd: type[Odd], tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"abc")
    url, local = f"odd://{tmp_path}/a.mp4", tmp_path / "local.mp4"
    odd.failures = [ConnectionResetError("reset"), RuntimeError("503 slow down")]
    remote.fetch(url, local)
    assert local.read_bytes() == b"abc"
    odd.failures = [RuntimeError("503 slow down")] * 3
    with pytest.raises(OSError, match="503 slow down"):
        remote.fetch(url, local)
    assert not odd.failures
    odd.cut = True
    with pytest.raises(OSError, match="2 of 3 bytes came"):
        remote.fetch(url, local)
    with pytest.raises(OSError, match="2 of 3 bytes arrived"):
        remote.send(local.with_name("a.mp4"), f"odd://{tmp_path}/sent.mp4")


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOSPC])
def test_what_no_second_try_mends(odd: type[Odd], tmp_path: Path, number: int) -> None:
    (tmp_path / "a.mp4").write_bytes(b"abc")
    odd.failures = [OSError(number, "no"), AssertionError("a second try")]
    with pytest.raises(OSError) as raised:
        remote.fetch(f"odd://{tmp_path}/a.mp4", tmp_path / "local.mp4")
    assert raised.value.errno == number and len(odd.failures) == 1


# --- stores

ALL = {"k1": 1, "k2": 0, "k3": 2}


@pytest.mark.parametrize("kind", ["file://", ""])
def test_a_store_there_and_back(kind: str, tmp_path: Path) -> None:
    store = make(tmp_path / "store", ALL)
    (store / "split.json").write_text('{"heldout": ["ann"]}')
    (store / "shards" / "k9-0.safetensors").write_bytes(b"no row names it")
    there = f"{kind}{tmp_path}/bucket/day 1"
    assert copy(store, there) == CopyResult(clips=3, copied=2, there=0)
    assert copy(there, tmp_path / "back") == CopyResult(clips=3, copied=2, there=0)
    (store / "shards" / "k9-0.safetensors").unlink()
    assert contents(tmp_path / "back") == contents(store) == contents(tmp_path / "bucket" / "day 1")
    assert not verify(tmp_path / "back").findings
    # A second time there is nothing to do.
    assert copy(store, there) == copy(there, tmp_path / "back") == CopyResult(3, 0, 2)
    assert contents(tmp_path / "back") == contents(store)


def test_an_older_copy_gets_what_is_new(tmp_path: Path) -> None:
    store, there = make(tmp_path / "store", ALL), f"file://{tmp_path}/bucket"
    copy(store, there)
    copy(there, tmp_path / "back")
    with StoreWriter(store, SPEC) as writer:
        add(writer, "k4")
        add(writer, "k5", path="videos/k1.mp4")  # a file that was written anew
    (store / "judged.jsonl").write_text('{"clip_id": "k4-0/0"}\n')
    assert copy(store, there) == CopyResult(clips=4, copied=2, there=1)
    assert copy(there, tmp_path / "back") == CopyResult(clips=4, copied=2, there=1)
    assert contents(tmp_path / "back") == contents(tmp_path / "bucket") == contents(store)


@pytest.mark.parametrize("kind", ["file://", ""])
def test_an_older_copy_gets_new_names_of_speakers(kind: str, tmp_path: Path) -> None:
    """Else a split by the new names would be copied beside the old ones."""
    store, there = make(tmp_path / "store", ALL), f"{kind}{tmp_path}/bucket"
    copy(store, there)
    with StoreWriter(store, SPEC) as writer:
        named = {canonical(row["path"]): f"person {row['key']}" for row in writer.rows}
        assert writer.rename(named, {}) == 3
    (store / "split.json").write_text('{"heldout": ["person k3"]}')
    assert copy(store, there) == CopyResult(clips=3, copied=0, there=2)
    assert contents(tmp_path / "bucket") == contents(store)


def test_from_an_archive_and_between_urls(tmp_path: Path) -> None:
    store = make(tmp_path / "store", ALL)
    with zipfile.ZipFile(tmp_path / "store.zip", "w") as file:
        for path in store.rglob("*.*"):
            file.write(path, path.relative_to(store))
    copy(f"zip://::file://{tmp_path}/store.zip", f"file://{tmp_path}/bucket")
    assert contents(tmp_path / "bucket") == contents(store)


def test_a_copy_that_was_stopped_goes_on(odd: type[Odd], tmp_path: Path) -> None:
    """Until the manifest is there, nobody takes it for the store."""
    store = make(tmp_path / "store", {f"k{n}": 1 for n in range(20)})
    there, bucket = f"odd://{tmp_path}/bucket", tmp_path / "bucket"
    real = Odd.put_file
    sent: list[str] = []

    def put_some(self: Odd, lpath: str, rpath: str, **more: Any) -> None:
        if len(sent) > 8:
            raise PermissionError(errno.EACCES, "the token has run out")
        sent.append(rpath)
        real(self, lpath, rpath)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Odd, "put_file", put_some)
        with pytest.raises(
            StoreError, match=r"k\d+-0.*the token has run out.*same command goes on"
        ):
            copy(store, there)
    assert not (bucket / "manifest.jsonl").exists()
    with pytest.raises(StoreError, match=r"manifest\.jsonl: missing"):
        copy(there, tmp_path / "back")
    (bucket / "shards" / Path(sent[-1]).name).write_bytes(b"half of it")
    done = copy(store, there)
    assert done.copied + done.there == 20 and done.there >= len(sent) - 2
    assert contents(bucket) == contents(store)


def test_copies_that_are_refused(tmp_path: Path) -> None:
    store = make(tmp_path / "store", ALL)
    before = contents(store)
    other = make(tmp_path / "other", {"k7": 1})
    of_spec = make(tmp_path / "spec", ALL, ClipSpec(face_px=48))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.pdf").touch()
    for place in (str(tmp_path), f"file://{tmp_path}"):
        for name, message in (
            ("other", "has 1 inputs that the source lacks, such as videos/k7.mp4"),
            ("spec", "another spec"),
            ("home", "not empty and not a clip store"),
        ):
            with pytest.raises(StoreError, match=message):
                copy(store, f"{place}/{name}")
    assert contents(other) == contents(make(tmp_path / "other2", {"k7": 1}))
    assert len(ClipStore(of_spec)) == 3 and len(list((tmp_path / "home").iterdir())) == 1
    with pytest.raises(StoreError, match="the source itself"):
        copy(store, store)
    with pytest.raises(StoreError, match="not a clip store"):
        copy(f"file://{tmp_path}/home", tmp_path / "new")
    held = Lock(store)
    with pytest.raises(StoreError, match="expected no other process at work"):
        copy(store, f"file://{tmp_path}/new")
    held.release()
    (store / "shards" / "k3-0.safetensors").unlink()
    with pytest.raises(StoreError, match=r"shards/k3-0\.safetensors is missing, one of 1"):
        copy(store, f"file://{tmp_path}/new")
    assert not (tmp_path / "new").exists() and contents(store)[0] == before[0]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make(tmp_path / "store", ALL)
    assert main(["store", "copy", str(store), f"file://{tmp_path}/bucket"]) == 0
    assert capsys.readouterr().out == (
        f"file://{tmp_path}/bucket: 3 clips; 2 shards copied, 0 were there\n"
    )
    rows = [json.loads(line) for line in (tmp_path / "bucket" / "manifest.jsonl").open()]
    assert len(rows) == 4
    assert main(["store", "copy", str(store), "nosuch://bucket"]) == 2
    assert "syncdisc store: nosuch://bucket: cannot be opened" in capsys.readouterr().err
