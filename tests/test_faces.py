"""Detection, tracking and cropping of faces."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from syncdisc_plugin.errors import FaceError
from syncdisc_plugin.faces import (
    DETECTORS,
    QualityMeter,
    Track,
    TrackSettings,
    TrackTally,
    crop_face,
    follow,
    load_detector,
)
from syncdisc_plugin.faces.detect import Batch, overlap
from syncdisc_plugin.faces.quality import sharpness
from syncdisc_plugin.faces.shots import AHEAD, by_shot

# YuNet's box on scikit-image's portrait, at 512 pixels.
PORTRAIT_BOX = np.array([[178.0, 65.0, 270.0, 177.0]])
Boxes = list[tuple[float, float, float, float]]


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    data = pytest.importorskip("skimage.data")
    return data.astronaut()


# --- crop


@pytest.mark.parametrize("step", [0.5, 1, 2, 3])
def test_crop_puts_a_square_where_it_belongs(step: float) -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    side = int(32 * step)
    image[100 : 100 + side, 60 : 60 + side] = (200, 100, 50)
    crop = crop_face(image, (60, 100, 60 + side, 100 + side), face_px=32, margin=0.25)
    assert crop.shape == (48, 48, 3) and crop.dtype == np.uint8
    assert (crop[10:38, 10:38] == (200, 100, 50)).all()
    assert (crop[:6] == 0).all() and (crop[:, :6] == 0).all()
    assert (crop[42:] == 0).all() and (crop[:, 42:] == 0).all()


def test_crop_at_one_to_one_is_a_slice() -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 80, 3), np.uint8)
    crop = crop_face(image, (20, 30, 52, 62), face_px=32, margin=0.125)
    np.testing.assert_array_equal(crop, image[26:66, 16:56])


def test_crop_stretches_each_axis_on_its_own() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    image[40:104, 50:82] = 255
    crop = crop_face(image, (50, 40, 82, 104), face_px=32, margin=0.0)
    assert crop.shape == (32, 32, 3) and (crop[1:-1, 1:-1] == 255).all()


def test_crop_moves_by_parts_of_a_pixel() -> None:
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 200, 0).repeat(3, 2)
    means = [
        crop_face(ramp, (40 + d, 40, 104 + d, 104), face_px=64, margin=0.0).mean()
        for d in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    np.testing.assert_allclose(np.diff(means), 0.25, atol=0.27)
    assert means[0] == pytest.approx(71.5) and means[4] == pytest.approx(72.5)


def test_crop_shrinks_without_aliasing() -> None:
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255  # far above what the crop can show: it must turn grey
    crop = crop_face(stripes, (50, 50, 306, 306), face_px=64, margin=0.0)
    assert np.abs(crop.astype(int) - 127).max() <= 2


def test_crop_repeats_the_border_of_the_image() -> None:
    image = np.full((64, 64, 3), 10, np.uint8)
    image[:, 0], image[:, -1] = 90, 170
    crop = crop_face(image, (-32, 0, 96, 64), face_px=128, margin=0.0)
    assert (crop[:, :32] == 90).all() and (crop[:, 97:] == 170).all()
    outside = crop_face(image, (500, 500, 900, 900), face_px=32, margin=0.125)
    assert outside.shape == (40, 40, 3)


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (5, 9, 8, 2), (0, 0, float("nan"), 4)])
def test_crop_refuses_an_empty_box(box: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="box: expected finite"):
        crop_face(np.zeros((20, 20, 3), np.uint8), box, face_px=32, margin=0.0)


# --- detect


def test_lbp_finds_the_portrait_where_yunet_does(portrait: np.ndarray) -> None:
    found = load_detector("lbp")(portrait)
    assert found.shape == (1, 5) and found.dtype == np.float32
    assert overlap(found, PORTRAIT_BOX)[0, 0] > 0.7


def test_boxes_are_in_pixels_of_the_given_image(portrait: np.ndarray) -> None:
    found = load_detector("lbp")(portrait[30:330, 40:460].repeat(2, 0).repeat(2, 1))
    assert overlap(found, 2 * np.subtract(PORTRAIT_BOX, [40, 30, 40, 30]))[0, 0] > 0.7


def test_grey_images_are_taken(portrait: np.ndarray) -> None:
    detect = load_detector("lbp")
    grey = portrait.mean(axis=2).astype(np.uint8)
    assert overlap(detect(grey), PORTRAIT_BOX)[0, 0] > 0.7
    np.testing.assert_array_equal(detect(grey), detect(grey[..., None]))


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 40, 3), (900, 3, 3), (20, 20)])
def test_tiny_images_have_no_face(shape: tuple[int, ...]) -> None:
    assert load_detector("lbp")(np.full(shape, 90, np.uint8)).shape == (0, 5)


def test_none_takes_the_whole_image() -> None:
    found = load_detector("none")(np.zeros((30, 50, 3), np.uint8))
    np.testing.assert_array_equal(found, [[0, 0, 50, 30, 1]])


def test_unknown_name_lists_the_choices() -> None:
    with pytest.raises(ValueError, match="'mtcnn'") as caught:
        load_detector("mtcnn")
    assert all(name in str(caught.value) for name in DETECTORS)


@pytest.mark.parametrize("through", ["argument", "environment"])
def test_missing_file_says_what_to_do(
    through: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    models, cache = tmp_path / "models", tmp_path / "cache"
    models.mkdir()
    monkeypatch.setenv("TORCH_HOME", str(cache))
    monkeypatch.setenv("SYNCDISC_MODELS", str(models))

    def offline(url: str, dst: str, *rest: object, **options: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(FaceError) as caught:
        load_detector("yunet", models=models if through == "argument" else None)
    text = str(caught.value)
    for word in (
        "face_detection_yunet_2023mar.onnx",
        "https://github.com/opencv/opencv_zoo/",
        str(models),
        "--models",
        "SYNCDISC_MODELS",
        "--detector lbp",
        "no route",
    ):
        assert word in text
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "yunet_cut.onnx").write_bytes(b"half")
    with pytest.raises(FaceError, match=r"yunet_cut\.onnx"):
        load_detector("yunet", models=tmp_path)


@pytest.mark.real
def test_yunet_finds_the_portrait(portrait: np.ndarray) -> None:
    if not os.environ.get("SYNCDISC_MODELS"):
        pytest.skip("SYNCDISC_MODELS is not set")
    detect = load_detector("yunet")
    assert overlap(detect(portrait), PORTRAIT_BOX)[0, 0] > 0.85
    small = np.zeros((2600, 2600, 3), np.uint8)  # a wide shot: only the finer pass can see it
    small[700:1212, 500:1012] = portrait
    assert overlap(detect(small), np.add(PORTRAIT_BOX, [500, 700, 500, 700])).max() > 0.7
    assert detect(np.zeros((1, 1, 3), np.uint8)).shape == (0, 5)


def test_sfd_finds_in_a_batch_what_it_finds_in_one_image(
    portrait: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are 90 MB and not at hand: untrained ones, whose boxes are as good for this."""
    net_s3fd = pytest.importorskip("face_alignment.detection.sfd.net_s3fd")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(net_s3fd.s3fd().state_dict(), tmp_path / "s3fd.pth")
    one_by_one = load_detector("sfd", models=tmp_path, max_side=96)
    assert one_by_one.batch is None

    # No GPU here: what is sent to one stays.
    monkeypatch.setattr(torch.nn.Module, "to", lambda net, *_, **__: net)
    cuda = load_detector("sfd", models=tmp_path, max_side=96, device="cuda")
    assert cuda.batch.size > 1
    cuda.find_batch.__self__.device = "cpu"
    images = [portrait, portrait[:, ::-1], portrait[::-1]]
    images = [np.ascontiguousarray(image) for image in images]
    found = cuda.batch.find(images)
    assert len(found) == 3
    for image, rows in zip(images, found, strict=True):
        expected = one_by_one(image)
        assert len(expected) > 50
        np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-2)


# --- follow


def footage(n: int) -> Iterator[np.ndarray]:
    """Frames that carry their own index in their pixels."""
    for index in range(n):
        yield np.full((120, 200, 3), index % 250, np.uint8)


class Script:
    """A detector that is told by the frame's index what to find."""

    def __init__(self, boxes_at: Callable[[int], Boxes], score: float = 0.9) -> None:
        self.boxes_at, self.score, self.asked = boxes_at, score, []

    def __call__(self, image: np.ndarray) -> np.ndarray:
        index = int(image[0, 0, 0])
        self.asked.append(index)
        rows = [(*box, self.score) for box in self.boxes_at(index)]
        return np.array(rows, np.float32).reshape(-1, 5)


def run(n: int, script: Script, tally: TrackTally | None = None, **settings: object) -> list[Track]:
    made = TrackSettings(**settings)  # type: ignore[arg-type]
    return list(follow(footage(n), script, made, face_px=32, margin=0.125, tally=tally))


def moving(index: int) -> Boxes:
    return [(10 + index, 20 + index / 2, 60 + index, 80 + index / 2)]


def test_linear_motion_is_followed_exactly_to_both_ends() -> None:
    script = Script(moving)
    (track,) = run(58, script)
    assert script.asked == [*range(0, 58, 5), 57]
    assert track.start_frame == 0 and track.n_frames == 58
    expected = np.array([moving(index)[0] for index in range(58)])
    np.testing.assert_allclose(track.boxes, expected, atol=1e-4)
    assert track.boxes.dtype == track.scores.dtype == np.float32
    assert track.crops.shape == (58, 40, 40, 3)
    # Each crop is of its own frame.
    np.testing.assert_array_equal(track.crops[:, 20, 20, 0], np.arange(58))


def test_smoothing_calms_a_trembling_box_without_lag() -> None:
    def trembling(index: int) -> Boxes:
        shake = 3.0 * (-1) ** (index // 5)
        return [(50 + shake, 30, 110 + shake, 90)]

    (rough,) = run(101, Script(trembling), smooth_frames=0)
    (calm,) = run(101, Script(trembling), smooth_frames=5)
    assert rough.boxes[:, 0].std() > 1.5
    assert calm.boxes[10:-10, 0].std() < 0.5
    assert calm.boxes[10:-10, 0].mean() == pytest.approx(50, abs=0.1)


def test_two_faces_are_two_tracks() -> None:
    def pair(index: int) -> Boxes:
        boxes = [(10.0 + index / 10, 20.0, 60.0 + index / 10, 80.0), (120.0, 20.0, 170.0, 80.0)]
        return boxes[:: -1 if index % 2 else 1]  # the detector's order must not matter

    first, second = run(60, Script(pair))
    assert first.n_frames == second.n_frames == 60
    assert (first.boxes[:, 0] < 20).all() and (second.boxes[:, 0] == 120).all()


def test_a_gap_is_bridged_up_to_the_limit() -> None:
    def gap_of(misses: int) -> Script:
        return Script(lambda i: [] if 30 < i <= 30 + 5 * misses else moving(i))

    (track,) = run(100, gap_of(2))
    np.testing.assert_allclose(track.boxes[40], moving(40)[0], atol=1e-4)
    before, after = run(100, gap_of(3))
    assert (before.start_frame, before.n_frames) == (0, 31)
    assert (after.start_frame, after.n_frames) == (50, 50)


def test_a_cut_ends_the_track_at_its_last_detection() -> None:
    here, there = (10.0, 10.0, 60.0, 70.0), (130.0, 40.0, 190.0, 110.0)
    first, second = run(100, Script(lambda i: [here] if i < 43 else [there]))
    assert (first.start_frame, first.n_frames) == (0, 41)
    assert (second.start_frame, second.n_frames) == (45, 55)
    np.testing.assert_array_equal(first.boxes[-1], here)
    np.testing.assert_array_equal(second.boxes[0], there)


def test_a_face_that_leaves_is_not_extrapolated() -> None:
    (track,) = run(54, Script(lambda i: moving(i) if i < 51 else []))
    assert track.n_frames == 51


def test_short_tracks_are_dropped_and_counted() -> None:
    tally = TrackTally()
    assert run(21, Script(moving), tally, min_frames=22) == []
    assert (tally.frames, tally.detections, tally.too_short, tally.tracks) == (21, 5, 1, 0)
    assert len(run(21, Script(moving), min_frames=21)) == 1


def test_no_face_at_all_is_told_from_unusable_faces() -> None:
    nothing, small, unsure = TrackTally(), TrackTally(), TrackTally()
    assert run(50, Script(lambda i: []), nothing) == []
    assert run(50, Script(lambda i: [(5, 5, 60, 15)]), small) == []
    assert run(50, Script(moving, score=0.2), unsure) == []
    assert nothing == TrackTally(frames=50)
    assert small == TrackTally(frames=50, detections=10, too_small=10)
    assert unsure == TrackTally(frames=50, detections=10, too_unsure=10)
    assert run(0, Script(moving)) == []


def test_pieces_of_a_long_track_are_contiguous() -> None:
    (whole,) = run(130, Script(moving))
    pieces = run(130, Script(moving), max_frames=50)
    assert [(p.start_frame, p.n_frames) for p in pieces] == [(0, 50), (50, 50), (100, 30)]
    for part in ("boxes", "scores", "crops"):
        joined = np.concatenate([getattr(piece, part) for piece in pieces])
        np.testing.assert_array_equal(joined, getattr(whole, part))


def test_scores_are_of_the_nearest_detection() -> None:
    def detect(image: np.ndarray) -> np.ndarray:
        index = int(image[0, 0, 0])
        return np.array([[10, 10, 60, 70, 0.6 + index / 1000]], np.float32)

    made = TrackSettings(min_score=0.5)
    (track,) = follow(footage(41), detect, made, face_px=32, margin=0.0)
    expected = [0.6 + round(index / 5) * 5 / 1000 for index in range(41)]
    np.testing.assert_allclose(track.scores, expected, atol=1e-6)


@pytest.mark.parametrize("has_gaps", [False, True])
def test_few_frames_are_held(has_gaps: bool) -> None:
    seen: list[weakref.ref[np.ndarray]] = []
    most = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal most
        for image in footage(200):
            seen.append(weakref.ref(image))
            most = max(most, sum(frame() is not None for frame in seen))
            yield image

    script = Script(lambda i: [] if has_gaps and i % 15 else moving(i // 4))
    made = TrackSettings()
    (track,) = follow(counted(), script, made, face_px=32, margin=0.0)
    assert track.n_frames >= 195
    misses = made.max_gap_detections if has_gaps else 0
    assert made.every <= most <= (misses + 1) * made.every + made.smooth_frames + AHEAD + 2


@pytest.mark.parametrize("n", [26, 40, 41, 45, 100, 203])
def test_detection_in_batches_gives_the_same_tracks(n: int) -> None:
    def come_and_go(index: int) -> Boxes:
        return moving(index // 4) if index % 70 < 45 else []

    one_by_one, asked = Script(come_and_go), Script(come_and_go)
    sizes: list[int] = []

    def find(images: Sequence[np.ndarray]) -> list[np.ndarray]:
        sizes.append(len(images))
        return [asked(image) for image in images]

    made = TrackSettings()
    expected, got = (
        list(follow(footage(n), script, made, face_px=32, margin=0.125, batch=batch))
        for script, batch in ((one_by_one, None), (asked, Batch(4, find)))
    )
    assert asked.asked == one_by_one.asked
    assert sum(sizes) == -(-n // 5) and set(sizes[:-1]) <= {4} and sizes[-1] <= 4
    assert len(got) == len(expected) > 0
    for a, b in zip(got, expected, strict=True):
        assert a.start_frame == b.start_frame
        for part in ("boxes", "scores", "crops"):
            np.testing.assert_array_equal(getattr(a, part), getattr(b, part))


@pytest.mark.parametrize(
    "settings", [{"every": 0}, {"min_iou": 0.0}, {"min_frames": 9, "max_frames": 8}]
)
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        TrackSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.real
def test_real_footage_gives_one_steady_track() -> None:
    clips = os.environ.get("SYNCDISC_CLIPS")
    if not clips or not os.environ.get("SYNCDISC_MODELS"):
        pytest.skip("SYNCDISC_CLIPS or SYNCDISC_MODELS is not set")
    av = pytest.importorskip("av")
    path = sorted(Path(clips, "grid_s1").glob("*.mp4"))[0]
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    (track,) = follow(frames, load_detector("yunet"), TrackSettings(), face_px=96, margin=0.125)
    assert track.n_frames == len(frames) and track.crops.shape[1:] == (120, 120, 3)
    width = (track.boxes[:, 2] - track.boxes[:, 0]).mean()
    # Second difference: what is left of trembling, as a ratio of the face.
    assert np.abs(np.diff(track.boxes, 2, axis=0)).mean() / width < 0.005


# --- shots


def scene(seed: int, n: int, *, boxes: Boxes) -> Iterator[np.ndarray]:
    """Frames of one place and one light, in which bright squares (the faces) tremble."""
    rng = np.random.default_rng(seed)
    place = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (200, 120))
    for _ in range(n):
        image = np.clip(place + rng.normal(0, 3, place.shape), 0, 255).astype(np.uint8)
        for x1, y1, x2, y2 in boxes:
            dx = int(rng.integers(-2, 3))
            image[int(y1) : int(y2), int(x1) + dx : int(x2) + dx] = 40 * seed + 20
        yield image


SPOT = (60.0, 30.0, 120.0, 90.0)


def found_at(spot: tuple[float, ...]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: np.array([[*spot, 0.9]], np.float32)


def follow_all(frames: Iterable[np.ndarray], **settings: float) -> tuple[list[Track], TrackTally]:
    made, tally = TrackSettings(**settings), TrackTally()  # type: ignore[arg-type]
    tracks = list(follow(frames, found_at(SPOT), made, face_px=32, margin=0.125, tally=tally))
    return tracks, tally


@pytest.mark.parametrize("before", [27, 40, 41, 43, 44])
def test_a_cut_between_faces_at_the_same_place_is_two_tracks(before: int) -> None:
    frames = [*scene(1, before, boxes=[SPOT]), *scene(4, 50, boxes=[SPOT])]
    (first, second), tally = follow_all(frames)
    assert (first.start_frame, first.n_frames) == (0, before)
    assert (second.start_frame, second.n_frames) == (before, 50)
    assert tally.cuts == 1 and tally.frames == before + 50
    # No frame of the other shot: the faces are told apart by their grey.
    assert (first.crops[:, 20, 20, 0] == 60).all() and (second.crops[:, 20, 20, 0] == 180).all()


def test_without_the_search_the_same_cut_is_missed() -> None:
    frames = [*scene(1, 43, boxes=[SPOT]), *scene(4, 50, boxes=[SPOT])]
    (track,), tally = follow_all(frames, cut_ratio=0)
    assert track.n_frames == 93 and tally.cuts == 0


def test_a_shot_of_few_frames_between_two_is_in_no_track() -> None:
    parts = [scene(1, 40, boxes=[SPOT]), scene(2, 8, boxes=[SPOT]), scene(4, 40, boxes=[SPOT])]
    (first, second), tally = follow_all([image for part in parts for image in part])
    assert (first.n_frames, second.start_frame, second.n_frames) == (40, 48, 40)
    assert (tally.cuts, tally.too_short, tally.too_short_frames) == (2, 1, 8)


@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("light", ["white", "brighter"])
def test_a_flash_is_no_cut(length: int, light: str) -> None:
    frames = list(scene(1, 80, boxes=[SPOT]))
    for i in range(40, 40 + length):
        frames[i] = frames[i] // 4 + 190 if light == "brighter" else np.full_like(frames[i], 255)
    (track,), tally = follow_all(frames)
    assert track.n_frames == 80 and tally.cuts == 0


def test_a_gesture_and_a_change_of_light_are_no_cuts() -> None:
    frames = list(scene(1, 100, boxes=[SPOT]))
    for i in range(30, 36):  # an arm across a third of the picture, there within a frame
        frames[i][:, 20 * (i - 30) : 20 * (i - 30) + 66] = 200
    for i in range(60, 100):  # a lamp goes on and stays
        frames[i] = np.minimum(frames[i].astype(int) * 3 // 2 + 20, 255).astype(np.uint8)
    (track,), tally = follow_all(frames)
    assert track.n_frames == 100 and tally.cuts == 0


def test_shots_are_all_frames_once_in_their_order() -> None:
    parts = [scene(1, 9, boxes=[]), scene(2, 30, boxes=[]), scene(3, 12, boxes=[])]
    frames = [image for part in parts for image in part]
    shots = [list(shot) for shot in by_shot(iter(frames), 4.0)]
    assert [len(shot) for shot in shots] == [9, 30, 12]
    assert all(a is b for a, b in zip(itertools.chain(*shots), frames, strict=True))
    # As slow footage comes: each picture several times. A cut is still found.
    for times in (2, 3, 5):
        slow = [image for image in frames for _ in range(times)]
        shots = [list(shot) for shot in by_shot(iter(slow), 4.0)]
        assert [len(shot) for shot in shots] == [9 * times, 30 * times, 12 * times]
    # Frozen for long: nobody holds it.
    read = itertools.count()
    frozen = (frames[0].copy() for _ in zip(range(500), read, strict=False))
    assert np.array_equal(next(next(by_shot(frozen, 4.0))), frames[0])
    assert next(read) <= 60
    assert list(by_shot(iter([]), 4.0)) == []
    assert [len(list(shot)) for shot in by_shot(iter(frames[:1]), 4.0)] == [1]


@pytest.mark.real
def test_real_heads_are_not_cut_and_real_cuts_are_found() -> None:
    clips = os.environ.get("SYNCDISC_CLIPS")
    if not clips:
        pytest.skip("SYNCDISC_CLIPS is not set")
    av = pytest.importorskip("av")
    heads = []
    for folder in ("grid_s1", "presenters"):
        path = sorted(p for p in Path(clips, folder).rglob("*") if p.is_file())[3]
        with av.open(str(path)) as container:
            decoded = itertools.islice(container.decode(video=0), 75)
            heads.append([f.reformat(320, 240, "rgb24").to_ndarray() for f in decoded])
    assert [len(list(shot)) for shot in by_shot(iter(heads[0][:70]), 4.0)] == [70]
    both = [*heads[0][:43], *heads[1][20:60]]
    assert [len(list(shot)) for shot in by_shot(iter(both), 4.0)] == [43, 40]
    for head in heads:  # as a camera at 8 and at 5 frames a second gives them
        for times in (3, 5):
            slow = [image for image in head[::times] for _ in range(times)]
            assert len(list(by_shot(iter(slow), 4.0))) == 1


# --- quality


def test_sharpness_goes_with_detail_and_not_with_light(portrait: np.ndarray) -> None:
    face = cv2.resize(portrait[65:177, 178:270], (120, 120))
    soft = cv2.GaussianBlur(face, (0, 0), 2)
    enlarged = cv2.resize(cv2.resize(face, (30, 30), interpolation=cv2.INTER_AREA), (120, 120))
    dim = (face * 0.4 + 30).astype(np.uint8)
    assert sharpness(soft) < 0.6 * sharpness(face)
    assert sharpness(enlarged) < 0.6 * sharpness(face)
    assert sharpness(dim) == pytest.approx(sharpness(face), rel=0.05)
    assert sharpness(np.full_like(face, 7)) == 0


def test_quality_is_the_median_over_a_few_crops(
    portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # no YuNet anywhere, and none is fetched
    monkeypatch.delenv("SYNCDISC_MODELS", raising=False)
    face = cv2.resize(portrait[65:177, 178:270], (120, 120))
    crops = np.stack([face] * 300)
    crops[0] = crops[-1] = 0  # the ends of a track are fades more often than not
    quality = QualityMeter()(crops)
    assert quality.sharpness == pytest.approx(sharpness(face))
    assert (quality.turn_deg, quality.crop_score) == (None, None)
    assert QualityMeter()(crops[:1]).sharpness == 0


@pytest.mark.real
def test_the_turn_of_a_head_is_measured_where_yunet_is_there(portrait: np.ndarray) -> None:
    if not os.environ.get("SYNCDISC_MODELS"):
        pytest.skip("SYNCDISC_MODELS is not set")
    crop = crop_face(portrait, PORTRAIT_BOX[0], face_px=96, margin=0.125)
    quality = QualityMeter()(crop[None])
    assert quality.turn_deg is not None and quality.turn_deg < 30
    assert quality.crop_score is not None and 0.85 < quality.crop_score < 1
    nothing = QualityMeter()(np.zeros_like(crop)[None])
    assert (nothing.turn_deg, nothing.crop_score) == (None, 0.0)


def test_a_box_between_two_pixels_is_cut_there_to_its_border() -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 80, 3), np.uint8)
    crop = crop_face(image, (20.5, 30, 52.5, 62), face_px=32, margin=0.0)
    between = (image[30:62, 20:52].astype(int) + image[30:62, 21:53]) / 2
    assert np.abs(crop - between).max() <= 1


def test_only_the_side_that_shrinks_is_blurred() -> None:
    image = np.zeros((100, 400, 3), np.uint8)
    image[::2] = 255
    crop = crop_face(image, (20, 20, 276, 84), face_px=64, margin=0.0)  # 4 columns, 1 row a pixel
    np.testing.assert_array_equal(crop[:, 5, 0], image[20:84, 100, 0])


def test_a_second_box_on_a_face_does_not_move_its_track() -> None:
    one, two = (40.0, 20.0, 100.0, 80.0), (52.0, 20.0, 112.0, 80.0)
    first, *_ = run(60, Script(lambda i: [one, two] if i >= 5 else [one]))
    assert (first.boxes[:, 0] == 40).all()


def test_boxes_that_overlap_little_are_two_faces() -> None:
    def jump(i: int) -> list[tuple[float, float, float, float]]:
        return [(40.0, 20.0, 100.0, 80.0) if i < 30 else (78.0, 20.0, 138.0, 80.0)]  # IoU 0.22

    assert len(run(60, Script(jump), cut_ratio=0)) == 2


def test_crops_are_cut_by_the_smoothed_boxes() -> None:
    """A detector that trembles by 3 pixels does not make the stored face tremble."""
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 120, 0).repeat(3, 2)
    sides = itertools.cycle([47.0, 53.0])

    def detect(_: np.ndarray) -> np.ndarray:
        x = next(sides)
        return np.array([[x, 30, x + 60, 90, 0.9]], np.float32)

    settings = TrackSettings(cut_ratio=0)
    (track,) = follow((ramp for _ in range(101)), detect, settings, face_px=32, margin=0.0)
    shown = track.crops.mean((1, 2, 3))
    np.testing.assert_allclose(shown, track.boxes[:, [0, 2]].mean(1) - 0.5, atol=0.6)
    assert shown[10:-10].std() < 0.5
