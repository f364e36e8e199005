"""Videos -> clip store: decode, follow faces, cut crops, compute mel; a row for every input."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from syncdisc_plugin.data.store import Clip, StoreWriter, clip_row, refused_row, write_shard
from syncdisc_plugin.errors import FaceError, MediaError, SyncDiscError
from syncdisc_plugin.faces import (
    Detector,
    QualityMeter,
    Track,
    TrackSettings,
    TrackTally,
    follow,
    load_detector,
)
from syncdisc_plugin.spec import ClipSpec
from syncdisc_plugin.timing import sample_of_frame

SHARD_FRAMES = 3000  # a long video is written in parts of two minutes: memory stays flat
SILENT_DB = -60.0
_NOT_THE_VIDEOS_FAULT = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS)


@dataclass(frozen=True)
class PrepareSettings:
    """How videos become clips."""

    detector: str = "auto"
    """auto (yunet on CPU, sfd on CUDA), yunet, sfd, blazeface, retinaface, scrfd; lbp needs no
    file and finds frontal faces only; none takes footage that is already a face crop."""
    models: Path | None = None
    """Folder with detector files; SYNCDISC_MODELS or face-alignment's cache when not given."""
    device: str = "cpu"
    """Where the detector runs: cpu or cuda."""
    speakers: Path | None = None
    """CSV with the columns path,speaker (paths relative to it), and language if you like. Without
    it the first folder below the one that is given is the speaker, with all that it holds."""
    workers: int = 0
    """Processes; 0 takes one per core."""
    track: TrackSettings = TrackSettings()
    """How faces are found and followed."""


@dataclass(frozen=True)
class PrepareResult:
    """What `prepare` did."""

    videos: int
    """Inputs looked at in this call (finished ones of an earlier call are not)."""
    clips: int
    """Clips written."""
    seconds: float
    """Seconds of footage in those clips."""
    refused: list[dict[str, Any]]
    """Rows of the inputs that gave nothing."""


def prepare(
    paths: Sequence[Path],
    out: Path,
    spec: ClipSpec | None = None,
    settings: PrepareSettings | None = None,
    *,
    shard: tuple[int, int] = (1, 1),
) -> PrepareResult:
    """Fill the store `out` from videos and folders of videos, or the i-th of n parts of them.

    Finished inputs are not redone. `shard` is (i, n), counted from 1.

    Raises:
        ValueError: a shard that is none.
        MediaError: a path that does not exist, or no video in any of them.
        FaceError: the detector cannot be loaded (nothing is written then).
        StoreError: `out` is no store of the same spec, or another process is at work on it.
    """
    spec, settings = spec or ClipSpec(), settings or PrepareSettings()
    if not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"shard: expected (i, n) with 1 <= i <= n, got {shard}. Count from 1.")
    videos = _list_inputs([Path(p) for p in paths])[shard[0] - 1 :: shard[1]]
    speakers = _read_speakers(settings.speakers)
    languages = _read_speakers(settings.speakers, "language")
    # Loaded here once, so that a missing model file is one error and not one per video.
    load_detector(settings.detector, models=settings.models, device=settings.device)
    clips, seconds, refused = 0, 0.0, []
    with StoreWriter(out, spec) as writer:
        by_key, done = {}, writer.done
        for root, video in videos:
            speaker = speakers.get(video.resolve()) or _folder_speaker(root, video)
            key = _content_key(video, spec, settings)
            if key not in done:
                language = languages.get(video.resolve()) or ""
                by_key[key] = _Job(key, str(video), speaker, str(out), language)
        bar = tqdm(total=len(by_key), desc="prepare", unit="video", disable=None)
        for rows in _run(list(by_key.values()), spec, settings):
            writer.add(rows)
            good = [row for row in rows if row["status"] == "ok"]
            clips += len(good)
            seconds += sum(row["n_frames"] for row in good) / spec.fps
            refused += [row for row in rows if row["status"] != "ok"]
            bar.set_postfix(clips=clips, minutes=f"{seconds / 60:.1f}", refused=len(refused))
            bar.update()
        bar.close()
    return PrepareResult(len(by_key), clips, seconds, refused)


def _list_inputs(roots: Sequence[Path]) -> list[tuple[Path, Path]]:
    """(root, video) of every file, once, in an order that all jobs of an array agree upon."""
    from syncdisc_plugin.media import list_videos

    found = {os.path.realpath(v): (root, v) for root in roots for v in list_videos([root])}
    if not found:
        names = ", ".join(str(r) for r in roots)
        raise MediaError(f"videos: no video file in {names}. Give files, or folders of videos.")

    def place(item: tuple[Path, Path]) -> tuple[str, str]:
        # By the name below the root first: other machines may see the root elsewhere.
        root, video = item
        return video.relative_to(root if root.is_dir() else root.parent).as_posix(), str(video)

    return sorted(found.values(), key=place)


@dataclass(frozen=True)
class _Job:
    key: str
    path: str
    speaker: str
    store: str
    language: str = ""


def _read_speakers(path: Path | None, column: str = "speaker") -> dict[Path, str]:
    """A column of the speakers' table by path; nothing where there is no table or no such one."""
    if path is None:
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:  # Excel writes a BOM
        reader = csv.DictReader(file)
        if not {"path", "speaker"} <= set(reader.fieldnames or ()):
            raise MediaError(f"--speakers {path}: expected the columns path,speaker.")
        return {(path.parent / row["path"]).resolve(): row.get(column) or "" for row in reader}


def _folder_speaker(root: Path, video: Path) -> str:
    if root.is_dir():
        inside = video.parent.relative_to(root).parts
        return inside[0] if inside else root.resolve().name
    return video.resolve().parent.name


def _content_key(video: Path, spec: ClipSpec, settings: PrepareSettings) -> str:
    """Changes when the file, the spec or what decides the crops changes."""
    stat = video.stat()
    # "auto" is another detector on another device.
    detector = f"{settings.detector}@{settings.device.split(':')[0]}"
    how = [detector, asdict(settings.track)]
    what = [str(video.resolve()), stat.st_size, stat.st_mtime_ns, spec.to_json(), how]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:20]


def _run(
    jobs: Sequence[_Job], spec: ClipSpec, settings: PrepareSettings
) -> Iterator[list[dict[str, Any]]]:
    """Rows of each job as it ends. A job that kills its process is refused, the rest goes on."""
    workers = min(settings.workers or os.cpu_count() or 1, len(jobs))
    waiting, alone = list(reversed(jobs)), False
    suspects: list[_Job] = []
    while waiting or suspects:
        if not waiting:
            waiting, suspects, alone = [suspects.pop()], suspects, True
        pool = ProcessPoolExecutor(
            1 if alone else workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(spec, settings),
        )
        running: dict[Future[list[dict[str, Any]]], _Job] = {}
        try:
            while waiting or running:
                while waiting and len(running) < 2 * workers:
                    running[pool.submit(_prepare_video, waiting[-1])] = waiting[-1]
                    waiting.pop()  # only now: submit itself raises when the pool is broken
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    rows = done.result()
                    del running[done]
                    yield rows
        except BrokenProcessPool:
            # One of those in flight took the process down: each is tried again by itself.
            if alone:
                (job,) = running.values()
                yield [refused_row(job.key, job.path, "the decoder crashed on this file")]
            else:
                suspects += running.values()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        alone = False


class _Worker:
    """What a process keeps between videos."""

    spec: ClipSpec
    settings: PrepareSettings
    detect: Detector
    quality: QualityMeter


def _start_worker(spec: ClipSpec, settings: PrepareSettings) -> None:
    import cv2
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    _Worker.spec, _Worker.settings = spec, settings
    _Worker.detect = load_detector(
        settings.detector, models=settings.models, device=settings.device
    )
    _Worker.quality = QualityMeter(settings.models)


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers: they would wait for it for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _prepare_video(job: _Job) -> list[dict[str, Any]]:
    """Rows of one video. The one place where any exception becomes a row."""
    try:
        return _clips_of(job)
    except SyncDiscError as error:
        return [refused_row(job.key, job.path, str(error))]
    except Exception as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in _NOT_THE_VIDEOS_FAULT:
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        return [refused_row(job.key, job.path, reason)]


def _clips_of(job: _Job) -> list[dict[str, Any]]:
    spec = _Worker.spec
    footage = Footage(Path(job.path), _Worker.detect, spec, _Worker.settings.track)
    rows: list[dict[str, Any]] = []
    pending: dict[str, np.ndarray] = {}
    held = part = 0
    try:
        for number, (track, tensors) in enumerate(footage.clips()):
            clip = _clip_of(job, f"{part}/{number}", footage, track, len(tensors["mel"]))
            pending |= {f"{number}.{name}": tensor for name, tensor in tensors.items()}
            rows.append(clip_row(job.key, clip))
            held += track.n_frames
            if held >= SHARD_FRAMES:
                write_shard(Path(job.store), f"{job.key}-{part}", pending)
                pending, held, part = {}, 0, part + 1
    except FaceError as error:
        # As `_prepare_video` does, with what was seen: the report tells minutes from it.
        return [{**refused_row(job.key, job.path, str(error)), "footage": footage.seen}]
    if pending:
        write_shard(Path(job.store), f"{job.key}-{part}", pending)
    # Known only now: how far the file could be decoded, and what else was in it.
    also = {"note": footage.recording.note or "", "footage": footage.seen}
    return [{**row, **also} for row in rows]


def _clip_of(job: _Job, place: str, footage: Footage, track: Track, n_mels: int) -> Clip:
    """What the manifest says of a track; `place` is its shard and its number in the video."""
    side = np.median(np.sqrt(np.prod(track.boxes[:, 2:] - track.boxes[:, :2], axis=1)))
    quality = _Worker.quality(track.crops)
    return Clip(
        id=f"{job.key}-{place}",
        speaker=job.speaker,
        source=job.path,
        start_s=round(footage.recording.start_s + track.start_frame / footage.spec.fps, 4),
        n_frames=track.n_frames,
        n_mels=n_mels,
        face_px=round(float(side), 1),
        loudness_db=round(footage.loudness_db, 1),
        source_fps=round(footage.recording.source.fps, 3),
        face_score=round(float(np.median(track.scores)), 3),
        sharpness=round(quality.sharpness, 4),
        turn_deg=None if quality.turn_deg is None else round(quality.turn_deg, 1),
        language=job.language,
    )


class Footage:
    """One video, decoded and followed: its face tracks with their audio.

    Raises:
        MediaError: it cannot be decoded, or its audio is silent.
    """

    def __init__(self, path: Path, detect: Detector, spec: ClipSpec, track: TrackSettings) -> None:
        from syncdisc_plugin.media import decode

        self.path, self.detect, self.spec, self.track = path, detect, spec, track
        self.recording = decode(path, fps=spec.fps, sample_rate_hz=spec.mel.sample_rate_hz)
        power = float(np.mean(np.square(self.recording.audio)))
        self.tally = TrackTally()
        self.loudness_db = 10 * float(np.log10(max(1e-12, power)))
        if self.loudness_db < SILENT_DB:
            raise MediaError(
                f"{path}: the audio is silent ({self.loudness_db:.0f} dB). Nothing can be judged; "
                "check that the right audio stream is the first one."
            )

    def clips(self) -> Iterator[tuple[Track, dict[str, np.ndarray]]]:
        """Tracks with tensors as stored: frames (F, S, S, 3), mel (L, M), audio (F * 640,) int16.

        Raises:
            FaceError: at the end, when there was no track; the message says why.
        """
        spec, tally, found = self.spec, self.tally, False
        tracks = follow(
            self.recording.frames(),
            self.detect,
            self.track,
            face_px=spec.face_px,
            margin=spec.margin,
            tally=tally,
        )
        for track in tracks:
            found = True
            audio = _audio_of(self.recording.audio, track.start_frame, track.n_frames, spec)
            yield track, _tensors(track.crops, audio, spec)
        if not found:
            reason = f"{self.path}: {_why_no_clip(tally, self.track)}"
            note = self.recording.note
            raise FaceError(f"{reason}; {note}" if note else reason)

    @property
    def seen(self) -> dict[str, Any]:
        """What was met, for the manifest; final after `clips`. Tracks are pieces of tracks."""
        t, fps = self.tally, self.spec.fps
        return {
            "seconds": round(t.frames / fps, 2),
            "cuts": t.cuts,
            "detections": t.detections,
            "too_small": t.too_small,
            "too_unsure": t.too_unsure,
            "tracks": t.tracks + t.too_short,
            "too_short": t.too_short,
            "too_short_seconds": round(t.too_short_frames / fps, 2),
        }


def _why_no_clip(tally: TrackTally, track: TrackSettings) -> str:
    if not tally.frames:
        return "no frame where picture and sound overlap"
    if not tally.detections:
        return f"no face in {tally.frames} frames. Try another --detector"
    if tally.too_short:
        cuts = f" between {tally.cuts} scene cuts" if tally.cuts else ""
        return f"no face stays for {track.min_frames} frames{cuts}. Lower --track.min_frames"
    return (
        f"faces were seen, {tally.too_small} under {track.min_face_px} px and "
        f"{tally.too_unsure} under score {track.min_score}. Lower --track.min_face_px or min_score"
    )


def _audio_of(audio: np.ndarray, start: int, n_frames: int, spec: ClipSpec) -> np.ndarray:
    """Exactly the samples of those frames; a missing tail (under a frame) is silence."""
    first, last = sample_of_frame(start, spec), sample_of_frame(start + n_frames, spec)
    part = audio[first:last]
    return np.pad(part, (0, last - first - len(part)))


def _tensors(crops: np.ndarray, audio: np.ndarray, spec: ClipSpec) -> dict[str, np.ndarray]:
    import torch

    from syncdisc_plugin.mel import log_mel

    mel = log_mel(torch.from_numpy(audio), spec.mel).T.contiguous().numpy()
    pcm = np.clip(np.round(audio * 32768), -32768, 32767).astype(np.int16)
    return {"frames": crops, "mel": mel, "audio": pcm}
