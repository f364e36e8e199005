"""Videos -> clip store: which inputs are to be done, by whom, and a row for every one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from tqdm import tqdm

from syncdisc_plugin.data.cost import Cost
from syncdisc_plugin.data.inputs import (
    canonical,
    list_inputs,
    named,
    read_speakers,
)
from syncdisc_plugin.data.manifest import seen_by
from syncdisc_plugin.data.pool import Begin, Job, Results, run_local
from syncdisc_plugin.data.worker import begin_work, detector_for, is_unread, key_of
from syncdisc_plugin.data.writer import StoreWriter
from syncdisc_plugin.errors import (
    MediaError,
)
from syncdisc_plugin.faces import (
    TrackSettings,
)
from syncdisc_plugin.faces.detect import require_points
from syncdisc_plugin.spec import ClipSpec

STAYS = "What was prepared of it before stays."
Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class PrepareSettings:
    """How videos become clips."""

    detector: str = "auto"
    """auto (yunet; sfd where faces are prepared on CUDA), yunet, sfd, blazeface, retinaface, scrfd;
    lbp needs no file and finds frontal faces only; none takes footage that is already a face
    crop."""
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

    def by_yunet(self) -> PrepareSettings:
        """These, with "auto" as YuNet wherever it runs: shipped weights learnt by its boxes."""
        return replace(self, detector="yunet") if self.detector == "auto" else self


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
    differ: int = 0
    """Finished clips that keep a speaker whom this call would name otherwise, without a table."""
    noted: int = 0
    """Inputs prepared in this call with a note: what was damaged, or is odd."""
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
        detector_for(spec, settings)
    clips, seconds, refused, same, noted, cost = 0, 0.0, [], 0, 0, Cost()
    with StoreWriter(out, spec) as writer:
        # What need not be looked at, by jobs' keys, and not be prepared, by clips' keys.
        finished = [r for r in writer.rows if r["status"] == "ok" or not settings.retry]
        by_key, seen = {}, {seen_by(row) for row in finished}
        held = {named(row["path"]) for row in finished if row["status"] == "ok"}
        for video in videos:
            name = canonical(video.place)
            key = key_of(name, video.version, spec, settings)
            if key not in seen:
                speaker = speakers.get(name) or video.folder
                by_key[key] = Job(key, video.place, speaker, store, languages.get(name) or "")
        begin = partial(begin_work, spec, settings, {row["key"] for row in finished})
        bar = tqdm(total=len(by_key), desc="prepare", unit="video", disable=None)
        with bar, closing(run(list(by_key.values()), begin)) as results:
            for result in results:
                rows = result.rows
                if any(is_unread(row) and named(row["path"]) in held for row in rows):
                    # A disk that is not mounted today must not cost what was prepared from it.
                    rows = [{**row, "reason": f"{row['reason']} {STAYS}"} for row in rows]
                elif rows:
                    writer.add(rows)
                writer.see(result.same)
                same += len(result.same)
                cost.add(result.cost)
                good = [row for row in rows if row["status"] == "ok"]
                clips += len(good)
                noted += any(row["note"] for row in good)
                seconds += sum(row["n_frames"] for row in good) / spec.fps
                refused += [row for row in rows if row["status"] != "ok"]
                bar.set_postfix(clips=clips, minutes=f"{seconds / 60:.1f}", refused=len(refused))
                bar.update()
        renamed = writer.rename(speakers, languages)
        differ = 0
        if not settings.speakers:
            folders = {canonical(video.place): video.folder for video in videos}
            differ = sum(
                folders.get(canonical(row["path"]), row["speaker"]) != row["speaker"]
                for row in finished
                if row["status"] == "ok"
            )
    return PrepareResult(
        videos=len(by_key) - same,
        clips=clips,
        seconds=seconds,
        refused=refused,
        cost=cost,
        same=same,
        unnamed=unnamed,
        renamed=renamed,
        differ=differ,
        noted=noted,
        finished=len(videos) - len(by_key),
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
