"""Held-out speakers: never on both sides, drawn once, and the same ever after."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from syncdisc_plugin.data.manifest import Clip, clip_row
from syncdisc_plugin.data.split import (
    Split,
    merged_split,
    read_split,
    some_frames,
    split_store,
)
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.data.writer import StoreWriter
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.spec import ClipSpec

# A split reads the manifest only: no shard is needed.


def add_clips(root: Path, sizes: Mapping[str, Sequence[int]]) -> ClipStore:
    """Add a clip of so many frames each to the store: {speaker: [frames, ...]}."""
    writer = StoreWriter(root, ClipSpec())
    for speaker, frames in sizes.items():
        for i, n in enumerate(frames):
            key = f"{speaker}{i}"
            clip = Clip(f"{key}-0/0", speaker, f"{speaker}/{i}.mp4", 0.0, n, n * 16 // 5, 80, -20)
            writer.add([clip_row(key, clip)])
    return ClipStore(root)


def crowd(n: int = 20, clips: int = 3) -> dict[str, list[int]]:
    return {f"speaker {i}": [100 + i] * clips for i in range(n)}


def speakers(clips: Sequence[Clip]) -> set[str]:
    return {clip.speaker for clip in clips}


def ids(split: Split) -> tuple[list[str], list[str]]:
    return [c.id for c in split.train], [c.id for c in split.heldout]


def frames(clips: Sequence[Clip]) -> int:
    return sum(clip.n_frames for clip in clips)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.05, 0.15, 0.4])
def test_speakers_are_disjoint_and_the_share_is_kept(
    tmp_path: Path, seed: int, share: float
) -> None:
    store = add_clips(tmp_path, crowd())
    split = split_store(store, share=share, seed=seed)
    assert not speakers(split.train) & speakers(split.heldout)
    assert sorted(c.id for c in split.train + split.heldout) == sorted(c.id for c in store.clips)
    # Whole speakers until the share is reached: over by less than one of twenty.
    assert share <= frames(split.heldout) / frames(store.clips) < share + 0.06


def test_seeds_draw_different_speakers(tmp_path: Path) -> None:
    store = add_clips(tmp_path, crowd())
    drawn = set()
    for seed in range(6):
        drawn.add(frozenset(speakers(split_store(store, seed=seed).heldout)))
        (tmp_path / "split.json").unlink()
    assert len(drawn) >= 5


def test_a_split_is_stored_and_read_again(tmp_path: Path) -> None:
    store = add_clips(tmp_path, crowd())
    first = split_store(store, seed=3)
    before = (tmp_path / "split.json").read_bytes()
    again = split_store(ClipStore(tmp_path), seed=3)
    assert ids(again) == ids(first) and again.note == first.note
    assert (tmp_path / "split.json").read_bytes() == before
    # Whoever evaluates does not know what it was asked with.
    assert ids(split_store(ClipStore(tmp_path), stored=True)) == ids(first)


def test_new_footage_does_not_move_anyone(tmp_path: Path) -> None:
    first = split_store(add_clips(tmp_path, crowd(10)))
    again = split_store(add_clips(tmp_path, {"newcomer": [5000]}))
    assert speakers(again.heldout) == speakers(first.heldout)
    assert speakers(again.train) == speakers(first.train) | {"newcomer"}


def test_the_same_clips_in_another_folder_are_split_alike(tmp_path: Path) -> None:
    one = split_store(add_clips(tmp_path / "one", crowd()))
    other = split_store(add_clips(tmp_path / "two", dict(reversed(crowd().items()))))
    assert speakers(one.heldout) == speakers(other.heldout)


def test_another_wish_does_not_replace_the_split(tmp_path: Path) -> None:
    """Else the figures of an earlier run would be on clips that a later one trained on."""
    store = add_clips(tmp_path, crowd())
    first = split_store(store)
    with pytest.raises(StoreError, match=r"split\.json: made with .*speaker 4.*delete the file"):
        split_store(store, speakers=["speaker 4", "speaker 9"])
    assert ids(split_store(store, stored=True)) == ids(first)
    (tmp_path / "split.json").unlink()
    named = split_store(store, speakers=["speaker 4", "speaker 9"])
    assert speakers(named.heldout) == {"speaker 4", "speaker 9"}


def test_named_speakers_are_held_out_exactly(tmp_path: Path) -> None:
    store = add_clips(tmp_path, crowd(5) | {"Ольга": [900, 900]})
    split = split_store(store, speakers=["Ольга", "speaker 2"])
    assert speakers(split.heldout) == {"Ольга", "speaker 2"}
    assert len(split.heldout) == 5 and len(split.train) == 12
    assert "2 named speakers" in split.note


def test_an_unknown_name_is_an_error_that_lists_the_known(tmp_path: Path) -> None:
    store = add_clips(tmp_path, {"ann": [100], "bob": [100]})
    with pytest.raises(StoreError, match=r"\['amm'\] are not in .* \['ann', 'bob'\]"):
        split_store(store, speakers=["amm", "bob"])
    assert not (tmp_path / "split.json").exists()


def test_holding_out_everybody_is_an_error(tmp_path: Path) -> None:
    store = add_clips(tmp_path, {"ann": [100], "bob": [100]})
    with pytest.raises(StoreError, match="nothing is left to train on"):
        split_store(store, speakers=["ann", "bob"])
    # The mistake does not stay: the next one who asks gets a split.
    assert speakers(split_store(store).heldout) in ({"ann"}, {"bob"})


def test_holding_out_the_only_speaker_is_an_error(tmp_path: Path) -> None:
    store = add_clips(tmp_path, {"ann": [100, 100, 100]})
    with pytest.raises(StoreError, match="nothing is left to train on"):
        split_store(store, speakers=["ann"])


def test_a_single_speaker_is_split_by_video(tmp_path: Path) -> None:
    store = add_clips(tmp_path, {"ann": [100] * 20})
    split = split_store(store)
    sources = [{c.source for c in part} for part in (split.train, split.heldout)]
    assert not sources[0] & sources[1]
    assert len(split.heldout) == 3
    assert "only one speaker" in split.note
    assert ids(split_store(store, stored=True)) == ids(split)


def test_two_faces_of_one_video_stay_together(tmp_path: Path) -> None:
    store = add_clips(tmp_path, {"ann": [100] * 10})
    writer = StoreWriter(tmp_path, ClipSpec())
    for clip in store.clips:
        twin = Clip(**{**clip.__dict__, "id": clip.id[:-1] + "1"})
        key = clip.shard.removesuffix("-0")
        writer.add([clip_row(key, clip), clip_row(key, twin)])
    split = split_store(ClipStore(tmp_path))
    assert not {c.source for c in split.train} & {c.source for c in split.heldout}
    assert len(split.train) + len(split.heldout) == 20


def test_a_single_video_is_said_to_be_measured_on_itself(tmp_path: Path) -> None:
    split = split_store(add_clips(tmp_path, {"ann": [100]}))
    assert split.train == split.heldout and len(split.train) == 1
    assert "nothing is held out" in split.note and "training clips" in split.note


@pytest.mark.parametrize("seed", range(8))
def test_a_main_speaker_stays_in_training(tmp_path: Path, seed: int) -> None:
    sizes = {"main": [1000] * 9, "guest 1": [300], "guest 2": [300], "guest 3": [400]}
    split = split_store(add_clips(tmp_path, sizes), seed=seed)
    assert "main" in speakers(split.train)
    assert speakers(split.heldout) <= {"guest 1", "guest 2", "guest 3"}
    assert split.heldout


@pytest.mark.parametrize("seed", range(4))
def test_of_two_speakers_the_smaller_is_held_out(tmp_path: Path, seed: int) -> None:
    store = add_clips(tmp_path, {"ann": [500, 500], "bob": [400, 400]})
    assert speakers(split_store(store, seed=seed).heldout) == {"bob"}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("full", [2, 3, 5])
def test_a_cameo_is_not_all_that_is_held_out(tmp_path: Path, seed: int, full: int) -> None:
    sizes = {f"speaker {i}": [1500] * 10 for i in range(full)} | {"cameo": [30]}
    split = split_store(add_clips(tmp_path, sizes), seed=seed)
    # Whole speakers of 15000: one at the least, and never all.
    assert 15000 <= frames(split.heldout) <= frames(split.train) + 30


def test_a_short_video_of_one_speaker_is_not_all_that_is_held_out(tmp_path: Path) -> None:
    split = split_store(add_clips(tmp_path, {"ann": [1500] * 5 + [40]}))
    assert frames(split.heldout) == 1540


@pytest.mark.parametrize("stored", [False, True])
def test_a_first_try_with_one_video_does_not_bind(tmp_path: Path, stored: bool) -> None:
    """Nothing was held out: there is nothing to be kept, and training clips are no yardstick."""
    assert not split_store(add_clips(tmp_path, {"ann": [100]})).apart
    store = add_clips(tmp_path, crowd())
    read = read_split(store)
    assert read and not read.apart  # who measures a net that was trained so does not draw anew
    split = split_store(store, stored=stored)
    assert split.apart and not speakers(split.train) & speakers(split.heldout)
    assert ids(split_store(ClipStore(tmp_path))) == ids(split)


def test_speakers_whose_name_is_no_text_are_split_too(tmp_path: Path) -> None:
    name = os.fsdecode(b"M\xfcller")
    split = split_store(add_clips(tmp_path, crowd(3) | {name: [100]}))
    assert name in speakers(split.train + split.heldout) and split.apart


def test_nothing_is_held_out_where_that_is_asked(tmp_path: Path) -> None:
    split = split_store(add_clips(tmp_path, crowd()), share=0)
    assert not split.apart and split.note.startswith("as asked: nothing is held out")


@pytest.mark.parametrize("text", ["", '{"asked": ', json.dumps({"asked": {}})])
def test_a_damaged_split_is_named(tmp_path: Path, text: str) -> None:
    store = add_clips(tmp_path, crowd(5))
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(StoreError, match=r"split\.json"):
        split_store(store, stored=True)


def test_small_speakers_that_nearly_fill_the_share_spare_a_big_one(tmp_path: Path) -> None:
    sizes = {"main": [5000], "big": [3000], "a": [350], "b": [350], "c": [300]}  # 15% are 1350
    split = split_store(add_clips(tmp_path, sizes))
    assert speakers(split.heldout) == {"a", "b", "c"}


def test_some_frames_are_of_speakers_in_turn_until_there_are_enough(tmp_path: Path) -> None:
    store = add_clips(tmp_path, {"ann": [100] * 9, "bob": [100] * 9})
    some = some_frames(store.clips, 350)
    assert sorted(clip.speaker for clip in some) == ["ann", "ann", "bob", "bob"]


@pytest.mark.parametrize("stored", [False, True])
def test_a_split_by_video_does_not_outlive_its_only_speaker(tmp_path: Path, stored: bool) -> None:
    """A first try with one folder, then all the footage."""
    first = split_store(add_clips(tmp_path, {"ann": [100] * 4}))
    assert first.apart and speakers(first.train) & speakers(first.heldout)
    store = add_clips(tmp_path, crowd())
    split = split_store(store, stored=stored)
    assert split.apart and not speakers(split.train) & speakers(split.heldout)


def test_some_frames_of_many_speakers_are_no_more_than_were_asked_for(tmp_path: Path) -> None:
    store = add_clips(tmp_path, {f"speaker {i}": [100] * 3 for i in range(20)})
    some = some_frames(store.clips, 350)
    assert len(some) == 4 == len(speakers(some))


def test_who_is_held_out_in_merged_stores_is_held_out_of_what_they_become(tmp_path: Path) -> None:
    """But for whom one of them trains on; what has no split says nothing."""
    one = add_clips(tmp_path / "one", {"a": [100], "b": [100], "c": [100]})
    two = add_clips(tmp_path / "two", {"b": [100], "d": [100], "e": [100]})
    three = add_clips(tmp_path / "three", {"f": [100]})
    split_store(one, speakers=["a", "b"])
    split_store(two, speakers=["d"])
    stores = {s.root: speakers(s.clips) for s in (one, two, three)}
    out = add_clips(tmp_path / "out", {name: [100] for name in "abcdef"})
    merged_split(stores, out.root)
    split = split_store(out, stored=True)
    assert speakers(split.heldout) == {"a", "d"}  # two's weights know b
    assert split.note == "2 of 6 speakers held out, as in the stores that were merged"
    before = (out.root / "split.json").read_text()
    merged_split({one.root: speakers(one.clips)}, out.root)  # what is there stays
    assert (out.root / "split.json").read_text() == before
    merged_split({three.root: {"f"}}, three.root)
    assert not (three.root / "split.json").exists()


def test_stores_that_were_split_as_usual_go_on_being_split_so(tmp_path: Path) -> None:
    stores = [add_clips(tmp_path / name, crowd(6)) for name in ("one", "two")]
    want, _ = (split_store(store) for store in stores)
    out = add_clips(tmp_path / "out", crowd(6))
    merged_split({s.root: speakers(s.clips) for s in stores}, out.root)
    assert ids(split_store(out)) == ids(want)  # no other wish


def test_a_store_that_cannot_be_written_is_split_alike_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = add_clips(tmp_path, crowd())

    def refuse(path: Path, text: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as here:
        here.setattr("syncdisc_plugin.data.split.write_text", refuse)
        first, second = split_store(store), split_store(store)
    assert first == second and first.note.endswith("cannot be written, so it is not kept there")
    assert not (tmp_path / "split.json").exists()
    assert ids(split_store(store)) == ids(first)
