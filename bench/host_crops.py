"""Where our face box lies in the frames of each host, and what the weights make of those frames.

    python bench/host_crops.py --clips DIR --mesh-python PYTHON [--json FILE]

Hosts cut their faces by landmarks, our discriminator sees the lower half of a detector's box. For
each host this prints `region` = top, bottom, left, right of that box as ratios of the host's frame,
mean and standard deviation over speakers; then the pair accuracy on clips that are cut the host's
way and cut back by the measured region, beside our own crops of the same clips.

DIR holds folders of videos and clips.csv (path, speaker). The landmarks come from mediapipe, an
extra of this measurement alone: it wants numpy < 2 and its models left the wheel later, so it has
an environment of its own, `pip install "mediapipe==0.10.14" "numpy<2"`, whose PYTHON is named here.
That second process runs this same file: it gets file names of frames, and answers in JSON.

What a host does in whole pixels is done at the face size of the footage it trains on. Hosts that
cut by S3FD get the boxes of --host-detector, raw, one per frame. By default that is YuNet, ours, so
that only smoothing and pads differ there; name sfd where its file is at hand.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

FRAMES = 100  # of each clip, 4 s
MIN_FRAMES = 25
MIN_VALIDATED = 60
PATCH_FACE_PX = 160  # boxes in patches are no more than about twice as high
AROUND = 0.8  # of the box on each side; no host's frame reaches much farther
SMOOTH_FRAMES = 5  # on each side, as the tracker does
# Width of the face, ear to ear, in what the hosts train on: HDTF is 720p and more, VoxCeleb2 comes
# as 224 x 224 and LRS2 as 160 x 160, both cut around the head.
HDTF_PX, VOXCELEB2_PX, LRS2_PX = 300, 110, 80

# Points of the mesh that stand for the 68 of iBUG: jaw, brows, nose, eyes, lips outside and inside.
# fmt: off
IBUG = (
    127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)
# What IP_LAP bounds: brows, nose, and the oval without the forehead (eyes and lips lie inside).
IP_LAP = (
    389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172,
    58, 132, 93, 234, 127, 162, 46, 53, 52, 65, 55, 70, 63, 105, 66, 107, 276, 283, 282, 295, 285,
    300, 293, 334, 296, 336, 168, 6, 197, 195, 5, 4, 45, 220, 115, 48, 275, 440, 344, 278,
)
# fmt: on
ALAE = (129, 358)  # the outer sides of the nose


@dataclass(frozen=True)
class Faces:
    """One face through a clip, in pixels of its patch."""

    mesh: np.ndarray
    """(F, 478, 2) mediapipe's points, x and y."""
    raw: np.ndarray
    """(F, 4) x1, y1, x2, y2 as the detector gives them, frame by frame."""
    box: np.ndarray
    """(F, 4) as our tracker smooths them: what the discriminator was trained on."""

    @property
    def points(self) -> np.ndarray:
        """(F, 68, 2) landmarks in iBUG's order."""
        return self.mesh[:, IBUG]

    def pixel(self, face_px: float) -> float:
        """Patch pixels that are one pixel of footage whose faces are so wide."""
        x = self.points[..., 0]
        return float(np.median(x.max(1) - x.min(1))) / face_px

    def smoothed(self) -> Faces:
        """The same where all that a host cuts by is averaged over time."""
        return replace(self, mesh=_smooth(self.mesh), raw=_smooth(self.raw))


@dataclass(frozen=True)
class Host:
    """How a host cuts a face."""

    height: int
    """Rows of its frame."""
    width: int
    """Columns of its frame."""
    cut: Callable[[Faces], np.ndarray]
    """Gives (F, 2, 3) maps from patch pixels to ratios (x, y) of the frame."""
    by_points: bool = True
    """Whether landmarks decide, or only a detector's box, which is ours all but for smoothing."""


def _wav2lip(faces: Faces) -> np.ndarray:
    """The detector's box as it is (Wav2Lip `preprocess.py`)."""
    return _box_maps(faces.raw)


def _wav2lip_inference(faces: Faces) -> np.ndarray:
    """10 pixels below the box, mean of it and the next 4 (Wav2Lip `inference.py`)."""
    return _box_maps(_padded_ahead(faces, 10))


def _video_retalking(faces: Faces) -> np.ndarray:
    """What its L-Net sees: 20 pixels below the box, mean of 5 (`utils/inference_utils.py`)."""
    return _box_maps(_padded_ahead(faces, 20))


def _ffhq(faces: Faces) -> np.ndarray:
    """FFHQ's square in the first frame, upright, for the whole clip (`utils/ffhq_preprocess.py`).

    video-retalking cuts its footage so before all else; its L-Net does not see this frame.
    """
    p = faces.points[0]
    eyes = [p[36:42].mean(0), p[42:48].mean(0)]
    across, middle = eyes[1] - eyes[0], (eyes[0] + eyes[1]) / 2
    down = (p[48] + p[54]) / 2 - middle
    x = across + np.array([down[1], -down[0]])
    x *= max(2.0 * math.hypot(*across), 1.8 * math.hypot(*down)) / math.hypot(*x)
    y = np.array([-x[1], x[0]])
    centre = middle + 0.1 * down
    corners = np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])
    box = np.concatenate([corners.min(0), corners.max(0)])
    return _box_maps(np.repeat(box[None], len(faces.box), 0))


def _latentsync(faces: Faces) -> np.ndarray:
    """A similarity of three points, then squashed to a square (`latentsync/utils`).

    `image_processor.py` takes the middles of both brows and of the nose, in whole pixels;
    `affine_transform.py` fits them to a canvas of 75 x 100. Its drifting shift is left out: the
    points there are divided by their spread, so it never comes to half a pixel.
    """
    p = faces.points
    nose = (p[:, 29] + p[:, 30] + faces.mesh[:, ALAE[0]] + faces.mesh[:, ALAE[1]]) / 4
    three = np.stack([p[:, 17:22].mean(1), p[:, 22:27].mean(1), nose], axis=1)
    px = faces.pixel(VOXCELEB2_PX)
    three = np.round(three / px) * px
    canvas = np.array([[17.0, 20.0], [58.0, 20.0], [37.5, 40.0]])
    centre, target = three.mean(1), canvas.mean(0)
    a, b = three - centre[:, None], canvas - target
    # The best rotation, and not the best scale with it but the ratio of the spreads.
    angle = np.arctan2((a[..., 0] * b[:, 1] - a[..., 1] * b[:, 0]).sum(1), (a * b).sum((1, 2)))
    scale = np.sqrt((b**2).sum() / (a**2).sum((1, 2)))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], axis=1)
    shift = target - np.einsum("fij,fj->fi", linear, centre)
    return np.concatenate([linear, shift[..., None]], axis=2) / np.array([[75.0], [100.0]])


def _musetalk(faces: Faces) -> np.ndarray:
    """The box and all 68 landmarks, and about 10 pixels below (`musetalk/data/dataset.py`).

    The margin is drawn anew for each clip, 10 +- 10 held within 0 and 20; its mean is taken.
    """
    p = faces.points
    low = np.minimum(faces.raw[:, :2], p.min(1))
    high = np.maximum(faces.raw[:, 2:], p.max(1))
    high[:, 1] += 10 * faces.pixel(HDTF_PX)
    return _box_maps(np.concatenate([low, high], axis=1))


def _dinet(faces: Faces) -> np.ndarray:
    """A frame of 2.5 x 3.25 radii around two points of the nose (`utils/data_processing.py`).

    The radius is the largest of 9 frames, a multiple of 4 pixels; it is scaled by 1.05 to 1.15 at
    random for each clip, 1.1 here.
    """
    p, px = faces.points, faces.pixel(HDTF_PX)
    down = p[..., 1].max(1) - p[:, 29, 1]
    across = p[:, 54, 0] - p[:, 48, 0]
    radius = 1.1 * np.maximum(down, across) / px // 2
    blocks = np.arange(len(p)) // 9
    largest = np.array([radius[blocks == block].max() for block in blocks])
    r = (np.floor(largest / 4) + 1) * 4 * px
    x, y = p[:, 33, 0], p[:, 29, 1]
    return _box_maps(np.stack([x - 1.25 * r, y - r, x + 1.25 * r, y + 2.25 * r], axis=1))


def _ip_lap(faces: Faces) -> np.ndarray:
    """The bounds of the mesh without the forehead, and 5 pixels (`preprocess_video.py`)."""
    p, margin = faces.mesh[:, IP_LAP], 5 * faces.pixel(LRS2_PX)
    return _box_maps(np.concatenate([p.min(1) - margin, p.max(1) + margin], axis=1))


def _ultralight(faces: Faces) -> np.ndarray:
    """A square from the nose's bridge down, as wide as the jaw (`face_utils.py`).

    Its points 1 and 31 of 110 lie between the first two of iBUG's jaw on either side, 52 is iBUG's
    29: so says its `mean_face.txt`. The square of 168 pixels loses 4 on each side.
    """
    p = faces.points
    left, right = p[:, :2, 0].mean(1), p[:, 15:17, 0].mean(1)
    side = right - left
    border = side * 4 / 168
    box = np.stack([left, p[:, 29, 1], right, p[:, 29, 1] + side], axis=1)
    return _box_maps(box + border[:, None] * np.array([1, 1, -1, -1]))


HOSTS = {
    # wav2lip_288x288, TalkLip and diff2lip cut as Wav2Lip does, at other sizes.
    "wav2lip": Host(96, 96, _wav2lip, by_points=False),
    "wav2lip inference": Host(96, 96, _wav2lip_inference, by_points=False),
    "video_retalking": Host(384, 384, _video_retalking, by_points=False),
    "video_retalking, ffhq": Host(256, 256, _ffhq),
    "latentsync": Host(256, 256, _latentsync),
    "musetalk": Host(256, 256, _musetalk),
    "dinet": Host(416, 320, _dinet),
    "ip_lap": Host(128, 128, _ip_lap),
    "ultralight": Host(160, 160, _ultralight),
}
WAYS = {
    "lower half": "of the host's frame, as it is",
    "region": "the lower half of the measured region",
    "clip's": "of the region measured on this clip",
    "frame's": "of the box itself, frame by frame",
    "smoothed": "of the measured region, where the host's landmarks are smoothed as our boxes are",
}


def _box_maps(boxes: np.ndarray) -> np.ndarray:
    """(F, 4) boxes -> (F, 2, 3) maps that send each to the unit square."""
    low, side = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    linear = np.einsum("fi,ij->fij", 1 / side, np.eye(2))
    return np.concatenate([linear, (-low / side)[..., None]], axis=2)


def _padded_ahead(faces: Faces, below_px: float) -> np.ndarray:
    """Boxes with pixels added below, each the mean of itself and the next four."""
    boxes = faces.raw.copy()
    boxes[:, 3] += below_px * faces.pixel(HDTF_PX)
    boxes = np.concatenate([boxes, np.repeat(boxes[-1:], 4, 0)])
    return np.stack([boxes[i : i + 5].mean(0) for i in range(len(faces.raw))])


def _smooth(x: np.ndarray) -> np.ndarray:
    """Mean over as many frames on either side, fewer towards the ends."""
    n, out = len(x), np.empty(x.shape)
    for i in range(n):
        reach = min(SMOOTH_FRAMES, i, n - 1 - i)
        out[i] = x[i - reach : i + reach + 1].mean(0)
    return out


def regions(maps: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(F, 4) top, bottom, left, right of the boxes in the host's frames, as ratios.

    Where the host turns the face the box turns with it: the middles of its edges are taken.
    """
    x1, y1, x2, y2 = boxes.T
    middles = [((x1 + x2) / 2, y1), ((x1 + x2) / 2, y2), (x1, (y1 + y2) / 2), (x2, (y1 + y2) / 2)]
    points = np.stack([np.stack(point, axis=1) for point in middles], axis=1)  # (F, 4, 2)
    there = np.einsum("fij,fkj->fki", maps[..., :2], points) + maps[:, None, :, 2]
    return np.stack([there[:, 0, 1], there[:, 1, 1], there[:, 2, 0], there[:, 3, 0]], axis=1)


def roll_deg(maps: np.ndarray) -> np.ndarray:
    """(F,) by how much the host turns the frame, in degrees."""
    rows = np.linalg.inv(maps[..., :2])[..., 0]  # the frame's x axis, in the patch
    return np.degrees(np.arctan2(rows[:, 1], rows[:, 0]))


def host_frames(patches: np.ndarray, maps: np.ndarray, host: Host) -> np.ndarray:
    """Cut (F, h, w, 3) patches -> (F, H, W, 3) uint8; beyond a patch its border is repeated."""
    fine = np.array([[2.0 * host.width], [2.0 * host.height]])  # halved again, against aliasing
    out = np.empty((len(patches), host.height, host.width, 3), np.uint8)
    for i in range(len(patches)):
        matrix = maps[i] * fine
        matrix[:, 2] += matrix[:, :2].sum(1) / 2 - 0.5  # both count from pixel centres
        size = (2 * host.width, 2 * host.height)
        large = cv2.warpAffine(patches[i], matrix, size, borderMode=cv2.BORDER_REPLICATE)
        out[i] = cv2.resize(large, (host.width, host.height), interpolation=cv2.INTER_AREA)
    return out


def lower_half(frames: np.ndarray, region: np.ndarray, input_hw: tuple[int, int]) -> Any:
    """The lower half of `region` in (F, H, W, 3) uint8, as the net sees it: (F, 3, h, w) in [0, 1].

    `region` is (4,), or (F, 4) with one for each frame. Edges are rounded to whole pixels; beyond
    the frame its border is repeated.
    """
    import torch

    rows, columns = frames.shape[1:3]
    out = []
    for frame, (top, bottom, left, right) in zip(
        frames, np.broadcast_to(region, (len(frames), 4)), strict=True
    ):
        y = np.round(np.array([(top + bottom) / 2, bottom]) * rows).astype(int)
        x = np.round(np.array([left, right]) * columns).astype(int)
        at = np.ix_(np.arange(*y).clip(0, rows - 1), np.arange(*x).clip(0, columns - 1))
        half = torch.from_numpy(frame[at]).permute(2, 0, 1)[None].float() / 255
        out.append(
            torch.nn.functional.interpolate(
                half, input_hw, mode="bilinear", antialias=True, align_corners=False
            )
        )
    return torch.cat(out)


@dataclass(frozen=True)
class Shot:
    """A clip with all that is known about its face."""

    name: str
    """Its path below the folder of clips."""
    kind: str
    """First folder of that path."""
    speaker: str
    """Who speaks."""
    faces: Faces
    """Boxes and landmarks."""
    patches: Path
    """(F, h, w, 3) uint8 .npy: the surroundings of the face."""
    own: np.ndarray
    """(F, S, S, 3) uint8, our own crops."""
    mel: np.ndarray
    """(L, M) the sound."""


class Mesh:
    """mediapipe's mesh, in the process of another Python."""

    def __init__(self, python: Path) -> None:
        self.process = subprocess.Popen(
            [str(python), __file__, "--mesh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "GLOG_minloglevel": "2"},
        )

    def __call__(self, patches: Path) -> list[Any]:
        """Per frame of the .npy file a list of 478 [x, y] in pixels, or None."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{patches}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("--mesh-python: its mediapipe does not answer; try it by hand.")
        return json.loads(answer)


def serve_mesh() -> None:
    """Answer each line of stdin, the name of an .npy file, with a line of JSON (see `Mesh`)."""
    import mediapipe

    # As IP_LAP has it: every frame on its own.
    mesh = mediapipe.solutions.face_mesh.FaceMesh(
        static_image_mode=True,
        max_num_faces=1,
        refine_landmarks=True,
        min_detection_confidence=0.5,
    )
    for line in sys.stdin:
        rows: list[Any] = []
        for patch in np.load(line.strip(), mmap_mode="r"):
            height, width = patch.shape[:2]
            found = mesh.process(np.ascontiguousarray(patch)).multi_face_landmarks
            points = found[0].landmark if found else []
            rows.append([[round(p.x * width, 2), round(p.y * height, 2)] for p in points] or None)
        print(json.dumps(rows), flush=True)


def read_shot(
    path: Path, row: dict[str, str], detect: Any, host_detect: Any, mesh: Mesh, out: Path
) -> Shot | None:
    """One clip; None where no face stays, or where its landmarks are missed too often."""
    import torch

    from syncdisc_plugin.faces import TrackSettings, follow
    from syncdisc_plugin.faces.crop import block_mean
    from syncdisc_plugin.faces.detect import overlap
    from syncdisc_plugin.media import decode
    from syncdisc_plugin.mel import log_mel
    from syncdisc_plugin.spec import ClipSpec
    from syncdisc_plugin.timing import sample_of_frame

    spec = ClipSpec()
    recording = decode(path, fps=spec.fps, sample_rate_hz=spec.mel.sample_rate_hz)
    frames = list(itertools.islice(recording.frames(), FRAMES))
    tracks = follow(
        frames,
        detect,
        TrackSettings(min_frames=MIN_FRAMES),
        face_px=spec.face_px,
        margin=spec.margin,
    )
    track = max(tracks, key=lambda t: t.n_frames, default=None)
    if track is None:
        return None
    sides = np.median(track.boxes[:, 2:] - track.boxes[:, :2], axis=0)
    rows, columns = frames[0].shape[:2]
    left, top = np.maximum(0, track.boxes[:, :2].min(0) - AROUND * sides).astype(int)
    right, bottom = np.ceil(track.boxes[:, 2:].max(0) + AROUND * sides).astype(int)
    factor = max(1, int(sides[1] // PATCH_FACE_PX))
    here = frames[track.start_frame : track.start_frame + track.n_frames]
    patches = np.stack(
        [block_mean(f[top : min(bottom, rows), left : min(right, columns)], factor) for f in here]
    )
    np.save(out, patches)
    box = (track.boxes - np.array([left, top] * 2)) / factor
    points = mesh(out)
    raw = np.full(box.shape, np.nan)
    found = np.full((len(box), 478, 2), np.nan)
    for i, patch in enumerate(patches):
        boxes = host_detect(patch)
        if len(boxes) and (shared := overlap(box[i : i + 1], boxes)[0]).max() > 0.3:
            raw[i] = boxes[shared.argmax(), :4]
        if points[i] is not None:
            x, y = np.array(points[i])[IBUG, :].mean(0)
            if box[i, 0] < x < box[i, 2] and box[i, 1] < y < box[i, 3]:  # not another's face
                found[i] = points[i]
    if max(np.isnan(raw[:, 0]).mean(), np.isnan(found[:, 0, 0]).mean()) > 0.1:
        return None
    first, last = (
        sample_of_frame(f, spec) for f in (track.start_frame, track.start_frame + len(box))
    )
    audio = torch.from_numpy(recording.sound.read(first, last))
    return Shot(
        name=row["path"],
        kind=Path(row["path"]).parts[0],
        speaker=row["speaker"],
        faces=Faces(mesh=_filled(found), raw=_filled(raw), box=box),
        patches=out,
        own=track.crops,
        mel=log_mel(audio, spec.mel).T.contiguous().numpy(),
    )


def _filled(x: np.ndarray) -> np.ndarray:
    """Frames that miss, NaN, are interpolated."""
    flat = x.reshape(len(x), -1).copy()
    has = ~np.isnan(flat[:, 0])
    at = np.arange(len(x))
    for column in flat.T:
        column[~has] = np.interp(at[~has], at[has], column[has])
    return flat.reshape(x.shape)


def read_shots(args: argparse.Namespace, folder: Path) -> Iterator[Shot]:
    """One clip for each speaker: the first that shows a face."""
    from syncdisc_plugin.errors import SyncDiscError
    from syncdisc_plugin.faces import load_detector

    detect, host_detect = (
        load_detector(name, models=args.models) for name in ("yunet", args.host_detector)
    )
    mesh = Mesh(args.mesh_python)
    by_speaker: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (args.clips / "clips.csv").open(newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            by_speaker[row["speaker"]].append(row)
    order = sorted(by_speaker, key=lambda speaker: speaker not in args.speakers)  # stable
    for number, speaker in enumerate(order):
        for row in by_speaker[speaker][:3]:
            out = folder / f"{number}.npy"
            try:
                shot = read_shot(args.clips / row["path"], row, detect, host_detect, mesh, out)
            except SyncDiscError as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            if shot is not None:
                yield shot
                break


def measure(shots: list[Shot]) -> dict[str, dict[str, Any]]:
    """For each host the region's mean and standard deviation over speakers, and the roll."""
    out = {}
    for name, host in HOSTS.items():
        means, within, rolls = [], [], []
        for shot in shots:
            maps = host.cut(shot.faces)
            each = regions(maps, shot.faces.box)
            means.append(each.mean(0))
            within.append(each.std(0))
            rolls.append(np.abs(roll_deg(maps)).mean())
        out[name] = {
            "region": np.mean(means, 0).tolist(),
            "sd_speakers": np.std(means, 0, ddof=1).tolist(),
            "sd_frames": np.mean(within, 0).tolist(),
            "roll_deg": float(np.mean(rolls)),
        }
    return out


def validate(shots: list[Shot], measured: dict[str, dict[str, Any]], weights: str) -> list[dict]:
    """Pair accuracy of each clip, cut by us and by each host: rows of clip, host, way, accuracy."""
    import torch

    from syncdisc_plugin import weights as checkpoints
    from syncdisc_plugin.data.embed import embed_frames, embed_mel

    net = checkpoints.load(weights).eval()
    rows: list[dict] = []

    @torch.no_grad()
    def add(shot: Shot, host: str, way: str, v: torch.Tensor) -> None:
        s = (v @ embed_mel(net, shot.mel, len(v)).T).numpy()
        rows.append({"clip": shot.name, "kind": shot.kind, "host": host, "way": way, **_judge(s)})

    @torch.no_grad()
    def embed(frames: np.ndarray, region: np.ndarray) -> torch.Tensor:
        return net.embed_frames(lower_half(frames, region, net.spec.input_hw)[None])[0]

    for shot in shots:
        add(shot, "own", "region", embed_frames(net, shot.own))
        patches = np.load(shot.patches, mmap_mode="r")
        for name, host in HOSTS.items():
            region = np.array(measured[name]["region"])
            maps = host.cut(shot.faces)
            frames = host_frames(patches, maps, host)
            add(shot, name, "lower half", embed(frames, np.array([0.0, 1.0, 0.0, 1.0])))
            add(shot, name, "region", embed(frames, region))
            if host.by_points:
                each = regions(maps, shot.faces.box)
                add(shot, name, "clip's", embed(frames, each.mean(0)))
                add(shot, name, "frame's", embed(frames, each))
                frames = host_frames(patches, host.cut(shot.faces.smoothed()), host)
                add(shot, name, "smoothed", embed(frames, region))
        print(f"{shot.name}: done", file=sys.stderr)
    return rows


def _judge(similarity: np.ndarray) -> dict[str, float]:
    """Pair accuracy of one clip (N, N), and the mean similarity of its true pairs."""
    import torch

    from syncdisc_plugin.evaluate import metrics

    @dataclass
    class Judged:  # what the metric reads of an embedded clip
        similarity: torch.Tensor

    clip: Any = Judged(torch.from_numpy(similarity))
    pairs = metrics.far_pairs([clip])
    return {
        "accuracy": metrics.pair_accuracy([clip]),
        "true": float(pairs.true.mean()),
        "gap": float(pairs.true.mean() - pairs.false.mean()),
    }


def show(measured: dict[str, dict[str, Any]], rows: list[dict]) -> None:
    """Print both tables."""
    print(f"{'host':22} top, bottom, left, right (sd over speakers; in a clip)   roll")
    for name, m in measured.items():
        cells = "  ".join(
            f"{mean:5.2f} ({sd:.2f}; {sd_in:.2f})"
            for mean, sd, sd_in in zip(m["region"], m["sd_speakers"], m["sd_frames"], strict=True)
        )
        print(f"{name:22} {cells}  {m['roll_deg']:4.1f} deg")
    for way, meaning in WAYS.items():
        print(f"{way:>12}: {meaning}")
    for kind in dict.fromkeys(row["kind"] for row in rows):
        ours = {r["clip"]: r for r in rows if r["kind"] == kind and r["host"] == "own"}
        accuracy, gap = _means(list(ours.values()))
        print(
            f"\n{kind}, {len(ours)} clips; own crops: pair accuracy {accuracy:.1f}%, "
            f"gap {gap:.3f}\n{'accuracy, less own (s.e.), gap':30}"
            + "".join(f"{way:>26}" for way in WAYS)
        )
        for name in measured:
            line = f"{name:30}"
            for way in WAYS:
                mine = [r for r in rows if r["clip"] in ours and r["host"] == name]
                mine = [r for r in mine if r["way"] == way]
                if not mine:
                    continue
                off = 100 * np.array([r["accuracy"] - ours[r["clip"]]["accuracy"] for r in mine])
                error = off.std(ddof=1) / math.sqrt(len(off)) if len(off) > 1 else math.nan
                accuracy, gap = _means(mine)
                line += f"{f'{accuracy:.1f} {off.mean():+5.1f} ({error:.1f}) {gap:.3f}':>26}"
            print(line)


def _means(rows: list[dict]) -> tuple[float, float]:
    """Pair accuracy in percent and gap, means over clips."""
    return 100 * float(np.mean([r["accuracy"] for r in rows])), float(
        np.mean([r["gap"] for r in rows])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--mesh-python", type=Path, help="Python of the environment with mediapipe")
    parser.add_argument("--models", type=Path, help="folder with detector files")
    parser.add_argument("--host-detector", default="yunet")
    parser.add_argument("--weights", default="base")
    parser.add_argument("--kinds", nargs="*", default=["presenters", "mixed"], help="validated on")
    parser.add_argument("--per-kind", type=int, default=12, help="clips of each that are validated")
    parser.add_argument(
        "--speakers", nargs="*", default=[], help="validated first: who was not trained on, say"
    )
    parser.add_argument("--json", type=Path, help="both tables in full")
    parser.add_argument("--mesh", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.mesh:
        serve_mesh()
        return
    if not (args.clips and args.mesh_python):
        parser.error("--clips and --mesh-python are needed.")
    kept: dict[str, list[Shot]] = {kind: [] for kind in args.kinds}
    shots = []
    with tempfile.TemporaryDirectory() as folder:
        for shot in read_shots(args, Path(folder)):
            shots.append(shot)
            room = kept.get(shot.kind)
            if room is not None and len(room) < args.per_kind and len(shot.own) >= MIN_VALIDATED:
                room.append(shot)
            else:
                shot.patches.unlink()
        print(f"{len(shots)} speakers, {sum(len(s.own) for s in shots)} frames", file=sys.stderr)
        measured = measure(shots)
        rows = validate([s for room in kept.values() for s in room], measured, args.weights)
    show(measured, rows)
    if args.json:
        args.json.write_text(json.dumps({"regions": measured, "validation": rows}, indent=1))


if __name__ == "__main__":
    main()
