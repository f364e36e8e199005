"""Videos -> clip store: decode, follow faces, cut crops, compute mel; a row for every input."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from tqdm import tqdm

from syncdisc_plugin.data.cost import Cost, peak_memory_mb
from syncdisc_plugin.data.footage import Footage, decibels
from syncdisc_plugin.data.inputs import (
    canonical,
    list_inputs,
    named,
    read_speakers,
    unreadable,
    version,
)
from syncdisc_plugin.data.manifest import Clip, clip_row, refused_row, seen_by
from syncdisc_plugin.data.pool import Begin, Done, Job, Results, Work, run_local
from syncdisc_plugin.data.remote import is_url, local_copy
from syncdisc_plugin.data.store import shard_path
from syncdisc_plugin.data.writer import StoreWriter, write_shard
from syncdisc_plugin.digest import sha256
from syncdisc_plugin.errors import (
    FaceError,
    MediaError,
    RunError,
    SyncDiscError,
    is_machines_fault,
    is_out_of_memory,
)
from syncdisc_plugin.faces import (
    Detector,
    QualityMeter,
    Track,
    TrackSettings,
    load_detector,
)
from syncdisc_plugin.faces.detect import require_points
from syncdisc_plugin.spec import ClipSpec

STAYS = "What was prepared of it before stays."
SHARD_FRAMES = 3000  # a long video is written in parts of two minutes: memory stays flat
Engine = Literal["local", "ray"]


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
    """CSV with the columns path,speaker (paths relative to it, or URLs), and language if you like.
    It holds for clips that are in the store already, too. What it does not name has the first
    folder below the one that is given for its speaker, with all that this holds."""
    workers: int = 0
    """Processes; 0 takes one per core. One is a process of its own too, which a file that crashes
    the decoder can take down without the command."""
    engine: Engine = "local"
    """What runs them: local, on this machine; ray, on a Ray cluster whose nodes all have this
    package and see the videos and the store under the same paths. The store is the same."""
    ray_address: str | None = None
    """The cluster, as ray.init takes it. Without it: the one that RAY_ADDRESS names, else one that
    is started on this machine and ended afterwards."""
    retry: bool = False
    """Try inputs again that were refused: after an update of decoder or detector, say."""
    track: TrackSettings = TrackSettings()
    """How faces are found and followed."""

    def __post_init__(self) -> None:
        """Refuse engines that there are not."""
        if self.engine not in get_args(Engine):
            raise ValueError(f"engine: expected local or ray, got {self.engine!r}.")
        if self.ray_address and self.engine != "ray":
            raise ValueError(f"ray_address: {self.ray_address} is of no use without --engine ray.")


@dataclass(frozen=True)
class PrepareResult:
    """What `prepare` did."""

    videos: int
    """Inputs prepared in this call (finished ones of an earlier call are not)."""
    clips: int
    """Clips written."""
    seconds: float
    """Seconds of footage in those clips."""
    refused: list[dict[str, Any]]
    """Rows of the inputs that gave nothing."""
    cost: Cost = field(default_factory=Cost)
    """Seconds by step, summed over the workers, and the peak memory of the largest of them."""
    same: int = 0
    """Finished inputs that have another time since, and the same bytes: nothing was redone."""
    unnamed: int = 0
    """Inputs that the table of speakers does not name, where one was given."""
    renamed: int = 0
    """Finished clips that got another speaker or language, by the table."""
    finished: int = 0
    """Inputs of this call that an earlier one finished, refused ones too: not opened."""


def prepare(
    paths: Sequence[str | Path],
    out: Path,
    spec: ClipSpec | None = None,
    settings: PrepareSettings | None = None,
    *,
    shard: tuple[int, int] = (1, 1),
) -> PrepareResult:
    """Fill the store `out` from videos and folders of videos, or the i-th of n parts of them.

    URLs are what fsspec reads, and have to be str (a Path drops a slash): each file is copied into
    the store's folder while it is at work. Finished inputs are not redone: one whose size and time
    are as they were is not opened, and one that was only touched or copied back is read once, to
    see that its bytes are the same. `shard` is (i, n), counted from 1.

    Raises:
        ValueError: a shard that is none.
        MediaError: a path or URL that does not exist, no video in any of them, or a table of
            speakers that names none of these.
        FaceError: the detector cannot be loaded (nothing is written then).
        StoreError: `out` is no store of the same spec, or another process is at work on it.
        RunError: workers cannot start, or there is no Ray. No input is refused then.
    """
    spec, settings = spec or ClipSpec(), settings or PrepareSettings()
    if not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"shard: expected (i, n) with 1 <= i <= n, got {shard}. Count from 1.")
    # Workers of a cluster are in another folder than this process.
    store = os.path.join(os.getcwd(), out)
    if settings.models:
        settings = replace(settings, models=Path.cwd() / settings.models)
    run = _engine(settings)
    videos = list_inputs(paths)
    speakers = read_speakers(settings.speakers)
    languages = read_speakers(settings.speakers, "language")
    unnamed = 0
    if settings.speakers:
        unnamed = sum(canonical(video.place) not in speakers for video in videos)
    if unnamed == len(videos):
        raise MediaError(
            f"--speakers {settings.speakers}: names none of the {len(videos)} videos, such as "
            f"{canonical(videos[0].place)}, but {next(iter(speakers), 'nothing')}. Its paths are "
            "relative to the table's own folder, or absolute."
        )
    videos = videos[shard[0] - 1 :: shard[1]]
    if spec.crop == "aligned":
        require_points(settings.detector)
    if settings.engine == "local" or settings.device == "cpu":  # a cluster's head may have no GPU
        # Loaded here once, so that a missing model file is an error before anything is written.
        _load_detector(spec, settings)
    clips, seconds, refused, same, cost = 0, 0.0, [], 0, Cost()
    with StoreWriter(out, spec) as writer:
        # What need not be looked at, by jobs' keys, and not be prepared, by clips' keys.
        finished = [r for r in writer.rows if r["status"] == "ok" or not settings.retry]
        by_key, seen = {}, {seen_by(row) for row in finished}
        held = {named(row["path"]) for row in finished if row["status"] == "ok"}
        for video in videos:
            name = canonical(video.place)
            key = _key(name, video.version, spec, settings)
            if key not in seen:
                speaker = speakers.get(name) or video.folder
                by_key[key] = Job(key, video.place, speaker, store, languages.get(name) or "")
        begin = partial(_begin, spec, settings, {row["key"] for row in finished})
        bar = tqdm(total=len(by_key), desc="prepare", unit="video", disable=None)
        with bar, closing(run(list(by_key.values()), begin)) as results:
            for result in results:
                rows = result.rows
                if any(_is_unread(row) and named(row["path"]) in held for row in rows):
                    # A disk that is not mounted today must not cost what was prepared from it.
                    rows = [{**row, "reason": f"{row['reason']} {STAYS}"} for row in rows]
                elif rows:
                    writer.add(rows)
                writer.see(result.same)
                same += len(result.same)
                cost.add(result.cost)
                good = [row for row in rows if row["status"] == "ok"]
                clips += len(good)
                seconds += sum(row["n_frames"] for row in good) / spec.fps
                refused += [row for row in rows if row["status"] != "ok"]
                bar.set_postfix(clips=clips, minutes=f"{seconds / 60:.1f}", refused=len(refused))
                bar.update()
        renamed = writer.rename(speakers, languages)
    return PrepareResult(
        videos=len(by_key) - same,
        clips=clips,
        seconds=seconds,
        refused=refused,
        cost=cost,
        same=same,
        unnamed=unnamed,
        renamed=renamed,
        finished=len(videos) - len(by_key),
    )


def _load_detector(spec: ClipSpec, settings: PrepareSettings) -> Detector:
    return load_detector(
        settings.detector,
        models=settings.models,
        device=settings.device,
        points=spec.crop == "aligned",
    )


def _engine(settings: PrepareSettings) -> Callable[[Sequence[Job], Begin], Results]:
    if settings.engine == "local":
        return partial(run_local, workers=settings.workers)
    from syncdisc_plugin.data.ray_pool import require_ray, run_ray

    require_ray()  # before anything is written
    return partial(
        run_ray,
        workers=settings.workers,
        address=settings.ray_address,
        gpu=settings.device.startswith("cuda"),
    )


def _key(name: str, version: list[Any], spec: ClipSpec, settings: PrepareSettings) -> str:
    """Changes when the version, the spec or what decides the crops changes.

    With the time of a file as its version it is a job's key, with the hash of its bytes its clips'.
    What cannot be looked at has a key too: it ends as a row, and is tried again when it can be.
    """
    # "auto" is another detector on another device.
    detector = f"{settings.detector}@{settings.device.split(':')[0]}"
    how = [detector, asdict(settings.track)]
    what = [name, *version, spec.to_json(), how]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:20]


class _Worker:
    """What a process keeps between videos."""

    spec: ClipSpec
    settings: PrepareSettings
    detect: Detector
    cost: Cost
    quality: QualityMeter
    known: set[str]
    """Keys of the rows that the store had when this began."""


def _begin(spec: ClipSpec, settings: PrepareSettings, known: set[str]) -> Work:
    """In a worker, once: load the detector; give what does a job."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    _Worker.spec, _Worker.settings, _Worker.known = spec, settings, known
    _Worker.detect = _load_detector(spec, settings)
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
            reason = f"{job.path}: cannot be read ({error.strerror}). The same command tries again."
            return _unread(job, error, reason)
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


def _unread(job: Job, error: OSError, reason: str) -> tuple[str, list[dict[str, Any]]]:
    """A refusal with a key that no file has, which no job has seen: the next run does it again."""
    key = _key_now(job, unreadable(error))
    return key, [{**refused_row(key, job.path, reason), "seen": key}]


def _is_unread(row: dict[str, Any]) -> bool:
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
    return _key(canonical(job.path), version, _Worker.spec, _Worker.settings)


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
                with _Worker.cost.step("write"):
                    write_shard(Path(job.store), f"{job.key}-{part}", pending)
                pending, held, part = {}, 0, part + 1
    except FaceError as error:
        # As `_rows_of` does, with what was seen: the report tells minutes from it.
        reason = str(error).replace(str(video), job.path)
        return [{**refused_row(job.key, job.path, reason), "footage": footage.seen}]
    if pending:
        with _Worker.cost.step("write"):
            write_shard(Path(job.store), f"{job.key}-{part}", pending)
    # Known only now: how far the file could be decoded, and what else was in it.
    also = {"note": footage.recording.note or "", "footage": footage.seen}
    return [{**row, **also} for row in rows]


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
