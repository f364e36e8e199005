"""The clip store: what is written comes back, damage is named, and only what is asked is read."""

from __future__ import annotations

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from syncdisc_plugin.data.manifest import Clip, clip_row, read_rows, refused_row
from syncdisc_plugin.data.store import ClipStore, read_spec
from syncdisc_plugin.data.writer import StoreWriter, write_shard
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.evaluate.store_report import write_store_report
from syncdisc_plugin.spec import ClipSpec, MelSpec

# Small crops: these tests are about bytes, not about faces.
SPEC = ClipSpec(face_px=32)
SIDE = SPEC.stored_px
N_FRAMES, N_MELS = 20, 65
Tensors = dict[str, np.ndarray]


def make_clip(key: str, track: int = 0, speaker: str = "ann", **more: object) -> Clip:
    about = {"source": f"{speaker}/{key}.mp4", "start_s": 0.12, "face_px": 77.5} | more
    return Clip(
        id=f"{key}-0/{track}",
        speaker=speaker,
        n_frames=N_FRAMES,
        n_mels=N_MELS,
        loudness_db=-20.0,
        **about,
    )


def make_tensors(seed: int) -> Tensors:
    """Every frame, mel frame and sample differs from its neighbours."""
    rng = np.random.default_rng(seed)
    return {
        "frames": rng.integers(0, 256, (N_FRAMES, SIDE, SIDE, 3), np.uint8),
        "mel": rng.uniform(-4, 4, (N_MELS, 80)).astype(np.float32),
        "audio": rng.integers(-32768, 32768, N_FRAMES * 640, np.int16),
    }


def add_input(writer: StoreWriter, clips: list[Clip], seed: int = 0) -> list[Tensors]:
    """One input with these clips, all in one shard."""
    made = [make_tensors(seed + i) for i in range(len(clips))]
    shard = {
        f"{c.track}.{name}": t
        for c, tensors in zip(clips, made, strict=True)
        for name, t in tensors.items()
    }
    write_shard(writer.root, clips[0].shard, shard)
    key = clips[0].shard.rsplit("-", 1)[0]
    writer.add([clip_row(key, clip) for clip in clips])
    return made


@pytest.fixture
def one(tmp_path: Path) -> tuple[ClipStore, Clip, Tensors]:
    """A store of one clip, the clip, and what was written."""
    (made,) = add_input(StoreWriter(tmp_path / "store", SPEC), [make_clip("k1")])
    store = ClipStore(tmp_path / "store")
    return store, store.clips[0], made


def shard_of(store: ClipStore, clip: Clip) -> Path:
    return store.root / "shards" / f"{clip.shard}.safetensors"


# --- round trip


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store", SPEC)
    clips = [make_clip("k1", 0), make_clip("k1", 1, note="odd")]
    made = add_input(writer, clips)
    made += add_input(writer, [make_clip("k2", speaker="bob")], seed=7)
    writer.add([refused_row("k3", tmp_path / "no.mp4", "no audio stream")])

    store = ClipStore(tmp_path / "store")
    assert store.spec == SPEC
    assert store.clips == [*clips, make_clip("k2", speaker="bob")]
    assert len(store) == 3 and store["k1-0/1"].note == "odd"
    assert [(r["path"], r["reason"]) for r in store.refused] == [
        (str(tmp_path / "no.mp4"), "no audio stream")
    ]
    for clip, tensors in zip(store.clips, made, strict=True):
        np.testing.assert_array_equal(store.frames(clip), tensors["frames"])
        np.testing.assert_array_equal(store.mel(clip), tensors["mel"])
        audio = store.audio(clip)
        assert audio.dtype == np.float32 and np.abs(audio).max() <= 1
        np.testing.assert_array_equal(audio, tensors["audio"] / np.float32(32768))
    assert not list(store.root.rglob("*.tmp")), "temporary files are left"


def test_whole_windows_are_counted(one: tuple[ClipStore, Clip, Tensors]) -> None:
    store, clip, _ = one
    # 20 frames hold 16 windows of 5; the last begins at frame 15, mel 48, and ends at mel 64.
    assert store.windows(clip) == 16


def test_unicode_survives(tmp_path: Path) -> None:
    names = ["Ольга Петрова", "李 小龙", "زينب", "emoji 🎬", "line\u2028separator", 'quo"te\\n\n']
    writer = StoreWriter(tmp_path / "Ünï störe", SPEC)
    for i, name in enumerate(names):
        add_input(writer, [make_clip(f"k{i}", speaker=name, note=f"{name}?")])
    writer.add([refused_row("bad", "папка/файл.mp4", "нет звука")])
    writer.close()
    for _ in range(2):
        store = ClipStore(tmp_path / "Ünï störe")
        assert sorted(c.speaker for c in store.clips) == sorted(names)
        assert all(c.note == f"{c.speaker}?" for c in store.clips)
        assert store["k1-0/0"].source == "李 小龙/k1.mp4"
        assert store.refused[0]["reason"] == "нет звука"
        StoreWriter(store.root, SPEC)  # opening for writing writes the manifest anew


def test_a_file_name_that_is_not_text_gets_its_row(tmp_path: Path) -> None:
    # Names on Linux are bytes: an old archive in Latin-1 is a lone surrogate in Python.
    name = os.fsdecode(b"caf\xe9.mp4")
    writer = StoreWriter(tmp_path / "s", SPEC)
    add_input(writer, [make_clip("k1")])
    writer.add([refused_row("k2", name, f"{name}: no face")])
    assert ClipStore(tmp_path / "s").refused[0]["path"] == name
    # And no page is lost for it.
    page = write_store_report(tmp_path / "s").read_text(encoding="utf-8")
    assert r"caf\udce9.mp4: no face" in page


# --- slices


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 5), (7, 12), (19, 20), (0, None), (13, None), (4, 4), (20, 20)]
)
def test_slices(one: tuple[ClipStore, Clip, Tensors], start: int, stop: int | None) -> None:
    store, clip, made = one
    np.testing.assert_array_equal(store.frames(clip, start, stop), made["frames"][start:stop])
    np.testing.assert_array_equal(store.mel(clip, start, stop), made["mel"][start:stop])
    audio = store.audio(clip, start, stop)
    np.testing.assert_array_equal(audio, made["audio"][start:stop] / np.float32(32768))


@pytest.mark.parametrize(("start", "stop"), [(15, 40), (19, 21), (20, 25), (64, 70), (500, 600)])
def test_slices_beyond_the_end_are_short(
    one: tuple[ClipStore, Clip, Tensors], start: int, stop: int
) -> None:
    store, clip, made = one
    np.testing.assert_array_equal(store.frames(clip, start, stop), made["frames"][start:stop])
    np.testing.assert_array_equal(store.mel(clip, start, stop), made["mel"][start:stop])


def test_a_slice_touches_only_its_own_bytes(one: tuple[ClipStore, Clip, Tensors]) -> None:
    store, clip, made = one
    store.frames(clip, 0, 1)  # the file is open and mapped
    raw = bytearray(shard_of(store, clip).read_bytes())
    inside = raw.find(made["frames"][10].tobytes())
    assert inside > 0
    # In place, under the map: a slice that copied more than it was asked for would not see it.
    with shard_of(store, clip).open("r+b") as file:
        file.seek(inside)
        file.write(bytes(SIDE * SIDE * 3))
    np.testing.assert_array_equal(store.frames(clip, 8, 10), made["frames"][8:10])
    assert (store.frames(clip, 10, 11) == 0).all()
    np.testing.assert_array_equal(store.frames(clip, 11), made["frames"][11:])
    np.testing.assert_array_equal(store.mel(clip), made["mel"])


# --- a run that was killed


def redo(writer: StoreWriter, inputs: dict[str, list[Clip]]) -> None:
    """What prepare does: all inputs that are not done."""
    for key, clips in inputs.items():
        if key not in writer.done:
            add_input(writer, clips)


def test_half_a_line_is_skipped_and_its_input_is_redone(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "s", SPEC)
    add_input(writer, [make_clip("k1")])
    add_input(writer, [make_clip("k2")])
    whole = writer.manifest.read_bytes()
    writer.manifest.write_bytes(whole[:-40])
    writer.close()

    assert [c.id for c in ClipStore(tmp_path / "s").clips] == ["k1-0/0"]
    again = StoreWriter(tmp_path / "s", SPEC)
    assert "k2" not in again.done
    redo(again, {"k1": [make_clip("k1")], "k2": [make_clip("k2")]})
    assert [c.id for c in ClipStore(tmp_path / "s").clips] == ["k1-0/0", "k2-0/0"]


def test_rows_of_a_path_as_it_was_typed_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stores of before name their videos so; the new rows are absolute."""
    (tmp_path / "videos").mkdir()
    monkeypatch.chdir(tmp_path)
    with StoreWriter(tmp_path / "s", SPEC) as writer:
        add_input(writer, [make_clip("old", source="videos/a.mp4")])
    with StoreWriter(tmp_path / "s", SPEC) as writer:
        add_input(writer, [make_clip("new", source=str(tmp_path / "videos" / "a.mp4"))])
    assert [c.shard for c in ClipStore(tmp_path / "s").clips] == ["new-0"]


def test_many_replacements_are_written_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large store each would write all rows anew: hours, for 100,000 clips."""
    n = 6
    with StoreWriter(tmp_path / "s", SPEC) as writer:
        for i in range(n):
            add_input(writer, [make_clip(f"old{i}", source=f"{i}.mp4")])
    monkeypatch.setattr("syncdisc_plugin.data.writer.QUICK_S", -1)
    monkeypatch.setattr("syncdisc_plugin.data.writer.PAUSE", 1e9)
    written = []
    whole = StoreWriter._rewrite
    monkeypatch.setattr(
        StoreWriter, "_rewrite", lambda self, rows: (written.append(len(rows)), whole(self, rows))
    )
    with StoreWriter(tmp_path / "s", SPEC) as writer:
        for i in range(n):
            add_input(writer, [make_clip(f"new{i}", source=f"{i}.mp4")])
        add_input(writer, [make_clip("newer1", source="1.mp4")])  # replaces what waits
    assert len(written) <= 4
    store = ClipStore(tmp_path / "s")
    wanted = ["new0-0", "newer1-0", *[f"new{i}-0" for i in range(2, n)]]
    assert [c.shard for c in store.clips] == wanted
    assert sorted(p.stem for p in (tmp_path / "s" / "shards").iterdir()) == sorted(
        c.shard for c in store.clips
    )


def test_half_a_letter_at_the_end_is_skipped_too(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "s", SPEC)
    add_input(writer, [make_clip("k1")])
    with writer.manifest.open("ab") as out:
        out.write('{"key": "k2", "path": "Я'.encode()[:-1])
    writer.close()
    assert len(ClipStore(tmp_path / "s")) == 1
    assert "k2" not in StoreWriter(tmp_path / "s", SPEC).done


def test_an_input_cut_between_its_clips_is_redone_whole(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "s", SPEC)
    add_input(writer, [make_clip("k1")])
    clips = [make_clip("k2", 0), make_clip("k2", 1)]
    add_input(writer, clips)
    whole = writer.manifest.read_bytes()
    writer.manifest.write_bytes(whole[:-40])  # k2's first row is whole, its second is not
    writer.close()

    again = StoreWriter(tmp_path / "s", SPEC)
    assert "k2" not in again.done, "its second clip would be lost for good"
    redo(again, {"k1": [make_clip("k1")], "k2": clips})
    ids = [c.id for c in ClipStore(tmp_path / "s").clips]
    assert ids == ["k1-0/0", "k2-0/0", "k2-0/1"]


@pytest.mark.parametrize("killed_after", ["lock", "shards", ".store.json.12.tmp"])
def test_a_store_that_was_only_begun_is_no_foreign_folder(
    tmp_path: Path, killed_after: str
) -> None:
    for name in ("lock", ".store.json.12.tmp"):
        (tmp_path / name).write_text("{")
        if name == killed_after:
            break
    if killed_after != "lock":
        (tmp_path / "shards").mkdir()
    add_input(StoreWriter(tmp_path, SPEC), [make_clip("k1")])
    assert len(ClipStore(tmp_path)) == 1
    assert {p.name for p in tmp_path.iterdir()} == {
        "lock",
        "shards",
        "store.json",
        "manifest.jsonl",
    }


def test_half_written_files_are_taken_by_nobody_and_go(tmp_path: Path) -> None:
    add_input(StoreWriter(tmp_path, SPEC), [make_clip("k1")])
    temps = [tmp_path / "shards" / ".k2-0.safetensors.77.tmp", tmp_path / ".manifest.jsonl.77.tmp"]
    temps.append(tmp_path / "shards" / ".tmpPffIaA")  # what save_file makes by itself
    others = [tmp_path / ".split.json.77.tmp", tmp_path / "shards" / ".nfs0000000005"]
    for path in temps + others:
        path.write_bytes(b"half")
    assert len(ClipStore(tmp_path)) == 1 and all(path.exists() for path in temps)
    StoreWriter(tmp_path, SPEC)
    assert not any(path.exists() for path in temps)
    assert all(path.exists() for path in others), "those of somebody else, who may be at work"


def test_a_shard_that_is_not_whole_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(tensors: Tensors, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("syncdisc_plugin.data.writer.save_file", half)
    with pytest.raises(OSError, match="No space"):
        write_shard(tmp_path, "k1-0", make_tensors(0))
    assert not list((tmp_path / "shards").iterdir())


def test_several_inputs_are_added_together(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path, SPEC)
    rows = [clip_row("k1", make_clip("k1", n)) for n in range(2)]
    writer.add([*rows, refused_row("k2", "b.mp4", "no face")])
    assert [row["rows"] for row in writer.rows] == [2, 2, 1]
    writer.close()
    assert StoreWriter(tmp_path, SPEC).done == {"k1", "k2"}


def test_an_input_that_changed_takes_the_place_of_the_old(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path, SPEC)
    add_input(writer, [make_clip("old", 0, source="a.mp4"), make_clip("old", 1, source="a.mp4")])
    add_input(writer, [make_clip("other")])
    add_input(writer, [make_clip("new", source="a.mp4")])
    assert writer.done == {"other", "new"}
    assert {p.stem for p in (tmp_path / "shards").iterdir()} == {"other-0", "new-0"}
    # The same content, now by another way of writing its path.
    add_input(writer, [make_clip("new", source="./a.mp4")])
    store = ClipStore(tmp_path)
    assert [clip.source for clip in store.clips] == ["./a.mp4", "ann/other.mp4"]
    assert len(store.frames(store["new-0/0"])) == N_FRAMES


def test_a_broken_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "s", SPEC)
    add_input(writer, [make_clip("k1")])
    text = writer.manifest.read_text()
    writer.manifest.write_text("{half\n" + text)
    with pytest.raises(StoreError, match=r"manifest\.jsonl: line 1 is not JSON"):
        ClipStore(tmp_path / "s")


def test_rows_of_a_missing_file() -> None:
    assert list(read_rows(Path("nowhere.jsonl"))) == []


# --- damage and mistakes


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path: Path) -> None:
    path.write_bytes(b"not safetensors" * 100)


def swap(path: Path) -> None:
    write_shard(path.parents[1], path.stem, {"5.frames": np.zeros(3, np.uint8)})


@pytest.mark.parametrize("damage", [cut_off, overwrite, Path.unlink, swap])
def test_a_damaged_shard_names_the_clip_and_the_fix(
    one: tuple[ClipStore, Clip, Tensors], damage
) -> None:
    store, clip, _ = one
    damage(shard_of(store, clip))
    for read in (store.frames, store.mel, store.audio):
        with pytest.raises(StoreError, match=r"clip k1-0/0 \(ann/k1\.mp4\)") as caught:
            read(clip, 0, 1)
        assert "`prepare`" in str(caught.value)
        assert str(caught.value).endswith("goes on without it with --resume.")


@pytest.mark.parametrize(
    "other", [ClipSpec(), ClipSpec(face_px=32, mel=MelSpec(pad_mode="reflect"))]
)
def test_another_spec_is_refused(one: tuple[ClipStore, Clip, Tensors], other: ClipSpec) -> None:
    store = one[0]
    before = (store.root / "manifest.jsonl").read_bytes()
    with pytest.raises(StoreError, match="another spec"):
        StoreWriter(store.root, other)
    assert read_spec(store.root) == SPEC
    assert (store.root / "manifest.jsonl").read_bytes() == before
    assert StoreWriter(store.root, SPEC).done == {"k1"}


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="not empty and not a clip store"):
        StoreWriter(tmp_path, SPEC)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(StoreError, match=r"not a clip store.*syncdisc prepare"):
        ClipStore(tmp_path)
    with pytest.raises(StoreError, match="not a clip store"):
        ClipStore(tmp_path / "nowhere")


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    StoreWriter(tmp_path / "s", SPEC)
    assert read_spec(tmp_path / "s") == SPEC


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1, "spec": {"fps": 25}}'])
def test_a_damaged_store_json_is_named(one: tuple[ClipStore, Clip, Tensors], text: str) -> None:
    root = one[0].root
    (root / "store.json").write_text(text)
    with pytest.raises(StoreError, match=r"store\.json: damaged"):
        ClipStore(root)


def test_another_format_is_refused(one: tuple[ClipStore, Clip, Tensors]) -> None:
    meta = one[0].root / "store.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"format": 99}))
    with pytest.raises(StoreError, match="store format 99, this version reads 1"):
        ClipStore(one[0].root)


def test_a_store_without_a_clip_says_how_many_were_refused(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "s", SPEC)
    writer.add([refused_row("k1", "a.mp4", "silent")])
    writer.add([refused_row("k2", "b.mp4", "no face")])
    with pytest.raises(StoreError, match=r"no usable clip \(2 inputs refused"):
        ClipStore(tmp_path / "s")


# --- workers


def _read_there(store: ClipStore, clip: Clip) -> np.ndarray:
    return store.frames(clip, 3, 6)


def test_a_store_travels_to_a_worker(one: tuple[ClipStore, Clip, Tensors]) -> None:
    store, clip, made = one
    store.frames(clip, 0, 1)  # with a file open, as in a training that evaluates
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        there = pool.submit(_read_there, store, clip).result(timeout=120)
    np.testing.assert_array_equal(there, made["frames"][3:6])
    np.testing.assert_array_equal(store.frames(clip, 3, 6), made["frames"][3:6])


def test_more_shards_than_stay_open(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "s", SPEC)
    made = [add_input(writer, [make_clip(f"k{i}")], seed=i)[0] for i in range(140)]
    store = ClipStore(tmp_path / "s")
    for _ in range(2):
        for i, tensors in enumerate(made):
            mel = store.mel(store[f"k{i}-0/0"], 2, 4)
            np.testing.assert_array_equal(mel, tensors["mel"][2:4])
