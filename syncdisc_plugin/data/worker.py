"""One video -> its rows and shards: what a process of `prepare` does."""

from __future__ import annotations

import errno
import hashlib
import json
import traceback
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from syncdisc_plugin.data.cost import Cost, peak_memory_mb
from syncdisc_plugin.data.footage import Footage, decibels
from syncdisc_plugin.data.inputs import canonical, unreadable, version
from syncdisc_plugin.data.manifest import Clip, clip_row, refused_row
from syncdisc_plugin.data.pool import Done, Job, Work
from syncdisc_plugin.data.remote import is_url, local_copy
from syncdisc_plugin.data.store import shard_path
from syncdisc_plugin.data.writer import write_shard
from syncdisc_plugin.digest import sha256
from syncdisc_plugin.errors import (
    FaceError,
    RunError,
    SyncDiscError,
    is_machines_fault,
    is_out_of_memory,
    is_passing,
)
from syncdisc_plugin.faces import Detector, QualityMeter, Track, load_detector
from syncdisc_plugin.spec import ClipSpec

if TYPE_CHECKING:
    from syncdisc_plugin.data.prepare import PrepareSettings

SHARD_FRAMES = 3000  # a long video is written in parts of two minutes: memory stays flat


def key_of(name: str, version: list[Any], spec: ClipSpec, settings: PrepareSettings) -> str:
    """Changes when the version, the spec or what decides the crops changes.

    With the time of a file as its version it is a job's key, with the hash of its bytes its clips'.
    What cannot be looked at has a key too: it ends as a row, and is tried again when it can be.
    """
    # "auto" is another detector on another device.
    detector = f"{settings.detector}@{settings.device.split(':')[0]}"
    how = [detector, asdict(settings.track)]
    what = [name, *version, spec.to_json(), how]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:20]


def detector_for(spec: ClipSpec, settings: PrepareSettings) -> Detector:
    """Load the detector. Raises FaceError where its file is missing."""
    return load_detector(
        settings.detector,
        models=settings.models,
        device=settings.device,
        points=spec.crop == "aligned",
    )


class _Worker:
    """What a process keeps between videos."""

    spec: ClipSpec
    settings: PrepareSettings
    detect: Detector
    cost: Cost
    quality: QualityMeter
    known: set[str]
    """Keys of the rows that the store had when this began."""


def begin_work(spec: ClipSpec, settings: PrepareSettings, known: set[str]) -> Work:
    """In a worker, once: load the detector; give what does a job."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    _Worker.spec, _Worker.settings, _Worker.known = spec, settings, known
    _Worker.detect = detector_for(spec, settings)
    _Worker.quality = QualityMeter(settings.models)
    return _do


def _do(job: Job) -> Done:
    _Worker.cost = Cost()
    key, rows = _prepare_video(job)
    _Worker.cost.peak_mb = peak_memory_mb()
    same = {} if rows else {key: job.key}
    return Done([{"seen": job.key, **row} for row in rows], _Worker.cost, same)


def _prepare_video(job: Job) -> tuple[str, list[dict[str, Any]]]:
    """Key and rows of one video; no rows where the store has them."""
    if not is_url(job.path):
        return _if_unchanged(job, *_rows_of(job, Path(job.path)))
    beside = shard_path(Path(job.store), job.key)
    with ExitStack() as held:
        try:
            with _Worker.cost.step("fetch"):
                video = held.enter_context(local_copy(job.path, beside))
        except OSError as error:
            if is_machines_fault(error):
                raise
            return _again(job, error)
        return _if_unchanged(job, *_rows_of(job, video))


def _rows_of(job: Job, video: Path) -> tuple[str, list[dict[str, Any]]]:
    """Key and rows of the video at hand. The one place where any exception becomes a row."""
    try:
        with _Worker.cost.step("hash"):
            key = _content_key(job, video)
    except OSError as error:
        if is_machines_fault(error):
            raise
        from syncdisc_plugin.media.container import fix

        why = f"{job.path}: cannot be read ({error.strerror}). {fix(error)}"
        return _unread(job, error, f"{why} The same command tries again.")
    try:
        return key, [] if key in _Worker.known else _clips_of(replace(job, key=key), video)
    except RunError:  # this machine's fault, as a full disk is
        raise
    except SyncDiscError as error:
        reason = str(error)
    except Exception as error:
        if is_out_of_memory(error):
            reason = (
                f"{job.path}: memory ran out ({type(error).__name__}). The same command tries "
                "again; give it fewer workers: --workers 1."
            )
            _drop_shards(job, key)
            return _unread(job, OSError(errno.ENOMEM, reason), reason)
        if is_machines_fault(error):
            raise
        if isinstance(error, OSError) and is_passing(error):
            _drop_shards(job, key)
            return _again(job, error)
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
    _drop_shards(job, key)
    return key, [refused_row(key, job.path, reason.replace(str(video), job.path))]


def _content_key(job: Job, video: Path) -> str:
    """The key of the video's clips: the same for the same bytes, whenever they were written."""
    if video.is_file():  # what is none may never end
        return _key_now(job, [sha256(video)])
    return job.key  # the decoder says what is wrong with it


def _if_unchanged(
    job: Job, key: str, rows: list[dict[str, Any]]
) -> tuple[str, list[dict[str, Any]]]:
    """The rows; of a file that is no longer what the job says, a refusal.

    Sound and picture are read one after the other: they may be of two different files then.
    """
    if _key_now(job, version(job.path)) == job.key:
        return key, rows
    if rows:  # none: the store had them before
        _drop_shards(job, key)
    reason = (
        f"{job.path}: was written to, replaced or deleted after it was listed. "
        "Run the same command again when nothing writes to it."
    )
    return _unread(job, OSError(), reason)


def _again(job: Job, error: OSError) -> tuple[str, list[dict[str, Any]]]:
    """A refusal for a disk or network that failed."""
    reason = f"{job.path}: cannot be read ({error.strerror}). The same command tries again."
    return _unread(job, error, reason)


def _unread(job: Job, error: OSError, reason: str) -> tuple[str, list[dict[str, Any]]]:
    """A refusal with a key that no file has, which no job has seen: the next run does it again."""
    key = _key_now(job, unreadable(error))
    return key, [{**refused_row(key, job.path, reason), "seen": key}]


def is_unread(row: dict[str, Any]) -> bool:
    """Whether nobody has seen the bytes behind a refusal: a row of those has their key."""
    return row.get("seen") == row["key"] and row["status"] != "ok"


def _drop_shards(job: Job, key: str) -> None:
    """Delete what was written of an input that then failed: no row will name it."""
    for part in count():  # not by a look through the folder, which may hold very many
        shard = shard_path(Path(job.store), f"{key}-{part}")
        if not shard.exists():
            return
        shard.unlink()


def _key_now(job: Job, version: list[Any]) -> str:
    return key_of(canonical(job.path), version, _Worker.spec, _Worker.settings)


def _clips_of(job: Job, video: Path) -> list[dict[str, Any]]:
    spec = _Worker.spec
    footage = Footage(video, _Worker.detect, spec, _Worker.settings.track, _Worker.cost)
    rows: list[dict[str, Any]] = []
    pending: dict[str, np.ndarray] = {}
    held = part = 0
    try:
        for number, (track, tensors) in enumerate(footage.clips()):
            clip = _clip_of(job, f"{part}/{number}", footage, track, tensors)
            pending |= {f"{number}.{name}": tensor for name, tensor in tensors.items()}
            rows.append(clip_row(job.key, clip))
            held += track.n_frames
            if held >= SHARD_FRAMES:
                _write(job, part, pending)
                pending, held, part = {}, 0, part + 1
    except FaceError as error:
        # As `_rows_of` does, with what was seen: the report tells minutes from it.
        reason = str(error).replace(str(video), job.path)
        return [{**refused_row(job.key, job.path, reason), "footage": footage.seen}]
    if pending:
        _write(job, part, pending)
    # Known only now: how far the file could be decoded, and what else was in it.
    also = {"note": footage.recording.note or "", "footage": footage.seen}
    return [{**row, **also} for row in rows]


def _write(job: Job, part: int, tensors: dict[str, np.ndarray]) -> None:
    """Write a shard. What keeps it from being written is no fault of the video's."""
    try:
        with _Worker.cost.step("write"):
            write_shard(Path(job.store), f"{job.key}-{part}", tensors)
    except OSError as error:
        if is_machines_fault(error):
            raise
        if is_passing(error):
            raise OSError(error.errno, f"{error.strerror}, as its clips were written") from error
        raise RunError(
            f"--out {job.store}: cannot be written ({error.strerror}). Give yourself the right to "
            "write there, or mount it again; the same command goes on."
        ) from error


def _clip_of(
    job: Job, place: str, footage: Footage, track: Track, tensors: dict[str, np.ndarray]
) -> Clip:
    """What the manifest says of a track; `place` is its shard and its number in the video."""
    side = np.median(np.sqrt(np.prod(track.boxes[:, 2:] - track.boxes[:, :2], axis=1)))
    with _Worker.cost.step("quality"):
        quality = _Worker.quality(track.crops)
    return Clip(
        id=f"{job.key}-{place}",
        speaker=job.speaker,
        source=job.path,
        start_s=round(footage.recording.start_s + track.start_frame / footage.spec.fps, 4),
        n_frames=track.n_frames,
        n_mels=len(tensors["mel"]),
        face_px=round(float(side), 1),
        loudness_db=round(decibels(float(np.square(tensors["audio"] / 32768).mean())), 1),
        source_fps=round(footage.recording.source.fps, 3),
        face_score=round(float(np.median(track.scores)), 3),
        sharpness=round(quality.sharpness, 4),
        turn_deg=None if quality.turn_deg is None else round(quality.turn_deg, 1),
        crop_score=None if quality.crop_score is None else round(quality.crop_score, 4),
        language=job.language,
    )
