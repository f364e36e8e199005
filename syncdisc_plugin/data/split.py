"""Which speakers are held out. Made once per store and stored beside the clips."""

from __future__ import annotations

import errno
import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from syncdisc_plugin.atomic import write_text
from syncdisc_plugin.data.choice import Choice, choose
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.store import SPLIT, ClipStore
from syncdisc_plugin.errors import StoreError


@dataclass(frozen=True)
class Split:
    """Two disjoint sets of clips; no speaker is in both."""

    train: list[Clip]
    """Clips to learn from."""
    heldout: list[Clip]
    """Clips that are only measured on."""
    note: str
    """How the split was made, in a sentence."""

    @property
    def apart(self) -> bool:
        """Whether anything is held out; else both sets are the same clips."""
        return self.train != self.heldout


def split_store(
    store: ClipStore,
    *,
    share: float = 0.15,
    speakers: Sequence[str] = (),
    seed: int = 0,
    stored: bool = False,
) -> Split:
    """The store's split: read when it exists, else made and written to STORE/split.json.

    One of a time when there was one video, or one speaker, is made anew once there are more.

    Args:
        store: the clips.
        share: part of the footage (in frames) to hold out, when `speakers` is empty.
        speakers: hold out exactly these.
        seed: which speakers are drawn.
        stored: take the one that is stored, whatever it was asked with.

    Raises:
        StoreError: an unknown speaker is named, nothing would be left to train on, or the store
            has a split that was asked for otherwise.

    With a single speaker the split is by source video, with a single video there is none: the
    same clips then serve both, and the note says so.
    """
    asked = {"share": share, "speakers": sorted(speakers), "seed": seed}
    known = {clip.speaker for clip in store.clips}
    found = _read(store)
    if found and found[0].apart and (found[2] == "speaker" or len(known) == 1):
        split, before, _ = found
        if stored or before == asked:
            return split
        raise StoreError(
            f"{store.root / SPLIT}: made with {before}, now asked for {asked}. One store has one "
            "split, or figures would be on training clips. Ask for the same, or delete the "
            "file; earlier runs' held-out figures are then no longer comparable."
        )
    unknown = set(speakers) - known
    if unknown:
        raise StoreError(
            f"held-out speakers: {sorted(unknown)} are not in {store.root}. It has {sorted(known)}."
        )
    by = "speaker" if speakers or len(known) > 1 else "source"
    if speakers:
        heldout = set(speakers)
        note = f"{len(heldout)} named speaker{'s' * (len(heldout) > 1)} held out"
    else:
        heldout = _draw(store, by, share, seed)
        note = f"{len(heldout)} of {len({getattr(c, by) for c in store.clips})} {by}s held out"
        if by == "source":
            note += " (only one speaker is known: figures say nothing about other speakers)"
        if not heldout:
            why = "one video only" if share > 0 else "as asked"
            note = f"{why}: nothing is held out, figures are on training clips"
    split = _divide(store, by, heldout, note)  # may refuse: nothing is stored then
    saved = {"asked": asked, "by": by, "heldout": sorted(heldout), "note": note}
    try:
        write_text(store.root / SPLIT, json.dumps(saved, indent=1))
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        # A colleague's store, a snapshot: the same is drawn the next time.
        split = replace(split, note=f"{note}; the store cannot be written, so it is not kept there")
    return split


def merged_split(stores: Mapping[Path, Collection[str]], out: Path) -> None:
    """Write the split of a store that others were merged into, where they have some.

    Held out are the speakers that one of them holds out and none trains on: figures of weights
    that were trained on one of them stay those of unseen speakers.

    Args:
        stores: of each the speakers.
        out: the store that they were merged into; a split that it has stays.

    Raises:
        StoreError: one of the splits is damaged.
    """
    if (out / SPLIT).exists():
        return
    heldout, trained = set[str](), set[str]()
    asked: dict[str, Any] | None = None
    for root, speakers in stores.items():
        saved = _saved(root)
        if saved and saved["by"] == "speaker" and saved["heldout"]:
            heldout |= set(saved["heldout"])
            trained |= set(speakers) - set(saved["heldout"])
            asked = asked or saved["asked"]
    if heldout := heldout - trained:
        n = len({s for speakers in stores.values() for s in speakers})
        note = f"{len(heldout)} of {n} speakers held out, as in the stores that were merged"
        saved = {"asked": asked, "by": "speaker", "heldout": sorted(heldout), "note": note}
        write_text(out / SPLIT, json.dumps(saved, indent=1))


def read_split(store: ClipStore) -> Split | None:
    """The store's split as it was made, None where none was. Raises StoreError if it is damaged."""
    found = _read(store)
    return found[0] if found else None


def _read(store: ClipStore) -> tuple[Split, dict[str, Any], str] | None:
    """The stored split, with what it was asked for, and by what it divides."""
    saved = _saved(store.root)
    if saved is None:
        return None
    split = _divide(store, saved["by"], set(saved["heldout"]), saved["note"])
    return split, saved["asked"], saved["by"]


def _saved(root: Path) -> dict[str, Any] | None:
    """What STORE/split.json holds."""
    path = root / SPLIT
    if not path.exists():
        return None
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        kinds = {"asked": dict, "by": str, "heldout": list, "note": str}
        if odd := [key for key, kind in kinds.items() if not isinstance(saved[key], kind)]:
            raise ValueError(f"{odd[0]} is no {kinds[odd[0]].__name__}")
        return dict(saved)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: damaged ({error}). Delete it; it is made anew.") from error


def _draw(store: ClipStore, by: str, share: float, seed: int) -> set[str]:
    """Whole groups in a seeded order, until `share` of all frames is reached."""
    frames: dict[str, int] = defaultdict(int)
    for clip in store.clips:
        frames[getattr(clip, by)] += clip.n_frames
    wanted = share * sum(frames.values())
    order = {
        g: hashlib.sha256(f"{seed}/{g}".encode("utf-8", "surrogateescape")).digest() for g in frames
    }
    # A main speaker, bigger than all that is to be held out, stays in training; where the others
    # are too little to measure on, the least of the big ones goes too, but never the biggest.
    small = sorted((g for g in frames if frames[g] <= wanted), key=order.__getitem__)
    big = sorted((g for g in frames if frames[g] > wanted), key=lambda g: (frames[g], order[g]))
    taken, out = 0, set()
    for group in [*small, *big[:-1]]:
        if taken >= (wanted if frames[group] <= wanted else wanted / 2):
            break
        out.add(group)
        taken += frames[group]
    return out


def _divide(store: ClipStore, by: str, heldout: set[str], note: str) -> Split:
    train = [clip for clip in store.clips if getattr(clip, by) not in heldout]
    held = [clip for clip in store.clips if getattr(clip, by) in heldout]
    if not train:
        raise StoreError("held-out speakers: nothing is left to train on. Hold out fewer.")
    return Split(train=train, heldout=held or train, note=note)


def chosen_split(split: Split, store: ClipStore, choice: Choice) -> Split:
    """What a choice leaves of both sides; which speakers are held out does not depend on it.

    Raises:
        StoreError: it leaves nothing of one side, or needs what is not there.
    """
    train, heldout = (
        choose(clips, store.root, store.spec.fps, choice) for clips in (split.train, split.heldout)
    )
    for side, left in (("to train on", train), ("held out", heldout)):
        if not left.clips:
            raise StoreError(
                f"--choose: nothing that is {side} is left: {left.note}. Ask for less; the page "
                f"of `syncdisc report {store.root}` shows what each threshold takes."
            )
    notes = [split.note, train.note, heldout.note and f"held out: {heldout.note}"]
    return Split(train.clips, heldout.clips, "; ".join(note for note in notes if note))


def some_frames(clips: list[Clip], frames: int) -> list[Clip]:
    """Clips of the speakers in turn until there are enough frames."""
    by_speaker: dict[str, list[Clip]] = {}
    for clip in clips:
        by_speaker.setdefault(clip.speaker, []).append(clip)
    out: list[Clip] = []
    there = 0
    for clip in chain.from_iterable(zip_longest(*by_speaker.values())):
        if clip and there < frames:
            out.append(clip)
            there += clip.n_frames
    return out
