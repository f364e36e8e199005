"""Prepared clips in the folders that generators' own data loaders read.

    OUT/SPEAKER/CLIP/0.jpg ...      the face without the store's margin
    OUT/SPEAKER/CLIP/audio.wav      16 kHz mono PCM16; sample 0 is heard at frame 0
    OUT/SPEAKER/CLIP/clip.json      what the folder was made from; no host looks at it
    OUT/filelists/{train,val,test}.txt    a clip folder per line; val and test are the same
    OUT/layout.jsonl                a row for every clip of the store, also those left out
    OUT/layout.json                 which layout, of which store

Sources: Wav2Lip `wav2lip_train.py`, `color_syncnet_train.py` (Dataset), `hparams.py`
(get_image_list); wav2lip_288x288 `hq_wav2lip_sam_train.py`, `train_syncnet_sam.py`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import unicodedata
import wave
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from syncdisc_plugin.atomic import write_text
from syncdisc_plugin.data.augment import cut_input
from syncdisc_plugin.data.filter import second_dataset
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.split import Split, split_store
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.errors import StoreError

FPS, SAMPLE_RATE_HZ = 25, 16000  # both hosts' hparams.py
MIN_FRAMES = 16  # both hosts' loaders pass over folders with 3 * 5 pictures or fewer
PIECE = 256  # frames in memory at once
LISTS, WRITING, MARK = "filelists", ".writing", "clip.json"
# The hosts' own preprocessing saves at 95 with halved colour; here lips keep their colour's edges.
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95]
JPEG += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]

_Verdicts = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class Layout:
    """What one family of hosts looks for."""

    frame: str
    """Name of frame number n, counted from 0."""
    audio: str
    """Name of the sound."""
    full_paths: bool
    """Whether the file lists hold full paths; else they are relative to the host's data root."""
    use: str
    """What to do with the folder, in a sentence; {out} is where it is."""


LAYOUTS = {
    "wav2lip": Layout(
        "{}.jpg",
        "audio.wav",
        False,
        "copy {out}/filelists/*.txt into the host's filelists/ and train with --data_root {out}",
    ),
    "wav2lip_288": Layout(
        "{:05}.jpg",
        "synced.wav",
        True,
        "copy {out}/filelists/*.txt into the host's filelists/; they hold full paths",
    ),
}
"""By name. wav2lip_288 is for the two sam trainers of wav2lip_288x288, which read such names."""


@dataclass(frozen=True)
class LayoutResult:
    """What `write_layout` did."""

    clips: int
    """Clips that the host can use."""
    written: int
    """How many of them were written in this call; the others were there."""
    seconds: float
    """Seconds of footage in those clips."""
    train: int
    """Lines of train.txt."""
    val: int
    """Lines of val.txt and test.txt."""
    left_out: list[dict[str, Any]]
    """Rows of the clips that were left out, with the reason."""
    note: str
    """How the split was made, and whether pictures were enlarged."""
    use: str
    """What to do with the folder."""


def check_name(layout: str) -> None:
    """Raise ValueError for what is no key of LAYOUTS."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout: no {layout!r}. There are: {', '.join(LAYOUTS)}.")


def write_layout(
    store: ClipStore,
    out: Path,
    layout: str = "wav2lip",
    *,
    verdicts: _Verdicts | None = None,
    lag_frames: int = 0,
    size_px: int | None = None,
    split: Split | None = None,
) -> LayoutResult:
    """Write the clips of a store as a host's training data; what is there and whole is kept.

    Args:
        store: the clips.
        out: a new folder, or one that an earlier call on this store and layout began.
        layout: a name in LAYOUTS.
        verdicts: rows of a filter.jsonl. Dropped clips are left out, the others are aligned by
            their lags to a fraction of a frame, as for the discriminator itself; ends that lose
            their sound or their picture by that are cut. A training clip without a row is left
            out, a held-out one (a run's own filter does not judge them) is taken as it is.
        lag_frames: how early the audio of the whole set is, which is undone too; a run's is in
            RUN/reference.json.
        size_px: side of the pictures; the store's face_px when None. Enlarging adds no detail.
        split: which clips are for val; the store's own when None, which is made when there is none.

    Raises:
        ValueError: an unknown layout, a size below 16, rows that are no verdicts, or a path that
            the host's loader would misread.
        StoreError: `out` holds something else, the store has another rate than the hosts, or
            nothing is left for train or val.
    """
    check_name(layout)
    spec, kind = store.spec, LAYOUTS[layout]
    if (spec.fps, spec.mel.sample_rate_hz) != (FPS, SAMPLE_RATE_HZ):
        raise StoreError(
            f"{store.root}: not {FPS} fps and {SAMPLE_RATE_HZ} Hz, as the hosts read. Prepare anew."
        )
    size_px = spec.face_px if size_px is None else size_px
    if size_px < 16:
        raise ValueError(f"size_px: expected at least 16, got {size_px}.")
    split = split or split_store(store, stored=True)
    plans = _plan(store, split, verdicts, lag_frames)
    _check_parts([plan for plan in plans if not plan.left_out], plans)
    _open(out, kind, {"layout": layout, "store": str(store.root.resolve())})

    written, done = 0, []
    for plan in tqdm(plans, desc="layout", unit="clip", disable=None):
        if not plan.left_out:
            try:
                written += _write_clip(store, plan, out, kind, size_px)
            except StoreError as error:  # a damaged shard; the rest goes on
                plan = replace(plan, reason=str(error), left_out=True)
        done.append(plan)
    good = [plan for plan in done if not plan.left_out]
    train, val = _check_parts(good, done)
    _write_lists(out, kind, train, val)
    write_text(out / "layout.jsonl", "".join(json.dumps(plan.row()) + "\n" for plan in done))
    for plan in done:
        # Only now: until the new lists were there, the old ones named it.
        if plan.left_out and (out / plan.folder / MARK).exists():
            shutil.rmtree(out / plan.folder)
    grown = f"; pictures enlarged from {spec.face_px} to {size_px} px, which adds no detail"
    note = split.note + (grown if size_px > spec.face_px else "")
    seconds = sum(plan.n_frames for plan in good) / FPS
    left_out = [plan.row() for plan in done if plan.left_out]
    use = kind.use.format(out=out)
    return LayoutResult(len(good), written, seconds, len(train), len(val), left_out, note, use)


@dataclass(frozen=True)
class _Plan:
    """What is to become of one clip."""

    clip: Clip
    train: bool
    val: bool  # both, where there is one video only
    lag: Fraction  # frames by which its audio is early
    reason: str
    left_out: bool

    @property
    def folder(self) -> str:
        """Below OUT, with one slash."""
        who = _safe_name(self.clip.speaker)
        return f"{who}/{_ascii(Path(self.clip.source).stem)}-{_hash(self.clip.id, 10)}"

    @property
    def first_frame(self) -> int:
        """The first frame whose sound is in the clip."""
        return max(0, math.ceil(self.lag))

    @property
    def n_frames(self) -> int:
        """How many frames have their sound."""
        return max(0, self.clip.n_frames - self.first_frame + min(0, math.floor(self.lag)))

    def row(self) -> dict[str, Any]:
        """For layout.jsonl."""
        return {
            "clip_id": self.clip.id,
            "source": self.clip.source,
            "speaker": self.clip.speaker,
            "folder": self.folder,
            "status": "left out" if self.left_out else "written",
            "reason": self.reason,
            "part": "train" if self.train else "val",
            "n_frames": self.n_frames,
            "lag_frames": float(self.lag),
        }


def _plan(store: ClipStore, split: Split, verdicts: _Verdicts | None, lag: int) -> list[_Plan]:
    train, val = ({clip.id for clip in part} for part in (split.train, split.heldout))
    try:
        rows = {row["clip_id"]: dict(row) for row in verdicts or ()}
        items = second_dataset(store.clips, rows.values(), lag)
        why = {name: row["reason"] for name, row in rows.items()}
    except KeyError as error:
        raise ValueError(f"verdicts: no {error} in a row. Give a filter.jsonl's rows.") from error
    lags = {item.clip.id: item.lag_frames for item in items}
    plans, either = [], train | val
    for clip in (clip for clip in store.clips if clip.id in either):
        in_train, in_val = clip.id in train, clip.id in val
        unjudged = "" if verdicts is None else "not judged by the filter"
        reason = why.get(clip.id, unjudged)
        left_out = clip.id not in lags and (clip.id in why or (bool(unjudged) and in_train))
        early = Fraction(lags.get(clip.id, lag)).limit_denominator(100)  # as verdicts are
        plan = _Plan(clip, in_train, in_val, early, reason, left_out)
        if not left_out and plan.n_frames < MIN_FRAMES:
            reason = f"{plan.n_frames} frames; the host passes over less than {MIN_FRAMES}"
            plan = replace(plan, reason=reason, left_out=True)
        plans.append(plan)
    return plans


def _check_parts(good: list[_Plan], plans: list[_Plan]) -> tuple[list[str], list[str]]:
    """Folders for train and for val. With an empty list a host waits forever, in silence."""
    parts = {"train": [p.folder for p in good if p.train], "val": [p.folder for p in good if p.val]}
    for name, folders in parts.items():
        if not folders:
            reasons = Counter(p.reason for p in plans if p.left_out and getattr(p, name))
            worst = ", ".join(f"{n} x {reason}" for reason, n in reasons.most_common(3))
            raise StoreError(
                f"layout: no clip is left for {name} ({worst}). Give verdicts of this store, or "
                "none, or hold out other speakers."
            )
    return parts["train"], parts["val"]


def _open(out: Path, kind: Layout, what: dict[str, str]) -> None:
    full, path = out.resolve().as_posix(), out / "layout.json"
    # The loaders hand folders to glob(), and cut lines of a file list at the first space.
    if set(full) & set("*?[ " if kind.full_paths else "*?["):
        raise ValueError(f"out {full}: the host fails at *, ?, [ or spaces. Give another folder.")
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != what:  # its lists would lose those clips
            raise StoreError(f"{out}: holds {found}, now asked for {what}. Give another folder.")
    elif out.exists() and any(out.iterdir()):
        raise StoreError(f"{out}: not empty, and not made by this command. Give a new folder.")
    else:
        write_text(path, json.dumps(what))


def _write_clip(store: ClipStore, plan: _Plan, out: Path, kind: Layout, size_px: int) -> bool:
    """Make the clip's folder, wholly or not at all. False: it was there."""
    made = {key: plan.row()[key] for key in ("clip_id", "n_frames", "lag_frames")}
    made |= {"size_px": size_px}
    folder, temp = out / plan.folder, out / WRITING
    if _is_whole(folder, made, kind):
        return False
    shutil.rmtree(temp, ignore_errors=True)  # what a kill left
    try:
        temp.mkdir()
        _write_frames(store, plan, temp, kind.frame, size_px)
        _write_audio(store, plan, temp / kind.audio)
        (temp / MARK).write_text(json.dumps(made), encoding="utf-8")
        folder.parent.mkdir(exist_ok=True)
        if folder.exists():
            shutil.rmtree(folder)  # other settings, or another verdict
        temp.rename(folder)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    return True


def _is_whole(folder: Path, made: dict[str, Any], kind: Layout) -> bool:
    try:
        if json.loads((folder / MARK).read_text(encoding="utf-8")) != made:
            return False
    except (OSError, ValueError):
        return False
    names = {path.name for path in folder.iterdir()}  # hosts add their own, such as mel.npy
    return names >= {kind.audio, *(kind.frame.format(i) for i in range(made["n_frames"]))}


def _write_frames(store: ClipStore, plan: _Plan, folder: Path, name: str, size_px: int) -> None:
    whole = replace(store.spec, region="face")  # the detector's box, as hosts cut it
    how = cv2.INTER_CUBIC if size_px > whole.face_px else cv2.INTER_AREA
    first, last = plan.first_frame, plan.first_frame + plan.n_frames
    for start in range(first, last, PIECE):
        stored = store.frames(plan.clip, start, min(start + PIECE, last))
        for i, face in enumerate(cut_input(stored, whole), start - first):
            picture = cv2.cvtColor(face, cv2.COLOR_RGB2BGR)
            if size_px != whole.face_px:
                picture = cv2.resize(picture, (size_px, size_px), interpolation=how)
            # imwrite() says nothing when the disk is full.
            data = cv2.imencode(".jpg", picture, JPEG)[1]
            (folder / name.format(i)).write_bytes(data.tobytes())


def _write_audio(store: ClipStore, plan: _Plan, path: Path) -> None:
    # Frame f is heard at f - lag; floored, as in timing.py.
    first = (plan.first_frame - plan.lag) * SAMPLE_RATE_HZ // FPS
    audio = store.audio(plan.clip, first, first + plan.n_frames * SAMPLE_RATE_HZ // FPS)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes((audio * 32768).astype("<i2").tobytes())  # exact: the store holds int16


def _write_lists(out: Path, kind: Layout, train: list[str], val: list[str]) -> None:
    root = out.resolve().as_posix() + "/" if kind.full_paths else ""
    # Wav2Lip measures on val, wav2lip_288x288 on test.
    for name, folders in (("train", train), ("val", val), ("test", val)):
        write_text(out / LISTS / f"{name}.txt", "".join(f"{root}{f}\n" for f in folders))


def _safe_name(text: str) -> str:
    """A folder name of letters, digits, - and _; different texts get different names.

    The loaders split lists at spaces and glob in folders; OpenCV opens only ASCII paths on Windows.
    """
    plain = _ascii(text)
    return plain if plain == text != LISTS else f"{plain}-{_hash(text, 6)}"


def _ascii(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_-]+", "_", letters)[:40].strip("_-") or "x"


def _hash(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:digits]
