"""What `lipsync` is made of: faces of a video, mel in blocks, batches, paste; and its memory."""

from __future__ import annotations

import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from painted import (
    BOX,
    LEFT,
    RIGHT,
    H,
    Marked,
    Painter,
    W,
    bursts,
    indices,
    picture,
    run,
    write_wav,
)

from syncdisc_plugin.media import write_video
from syncdisc_plugin.spec import ClipSpec


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """1.6 s at 25 fps, without sound."""
    return write_video(tmp_path / "v.mp4", map(picture, range(40)), crf=4)


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "a.wav", bursts(1.6))


# --- faces


def test_numbers_are_those_of_score(tmp_path: Path) -> None:
    """The one that ends first is the first, whichever is seen first."""
    from generator_integration.reference.face import scan_video
    from syncdisc_plugin.data.footage import Footage
    from syncdisc_plugin.faces import TrackSettings
    from syncdisc_plugin.media.stream import PictureStream

    class Leaving:
        """The right face leaves in the middle; a third one comes."""

        def __call__(self, image: np.ndarray) -> np.ndarray:
            index = indices(image[None])[0]
            boxes = [LEFT] + ([RIGHT] if index < 20 else [BOX] if index >= 30 else [])
            return np.array([[*box, 0.9] for box in boxes], np.float32)

    source = tmp_path / "v.mp4"
    write_video(source, map(picture, range(60)), audio=bursts(2.4), crf=4)
    settings, detect = TrackSettings(min_frames=10), Leaving()
    tracks = [t for t, _ in Footage(source, detect, ClipSpec(), settings).clips()]
    scan = scan_video(PictureStream(source), detect, settings, fps=25, face_px=96)
    assert len(scan.pts) == 60 and len(tracks) == 3
    assert [f.number for f in scan.faces] == [0, 1, 2]
    assert [f.runs[0].start for f in scan.faces] == [t.start_frame for t in tracks]
    for face, track in zip(scan.faces, tracks, strict=True):
        assert np.abs(face.runs[0].boxes - track.boxes).max() < 1e-3


def test_numbers_are_those_of_score_at_a_cut(tmp_path: Path) -> None:
    """A face that is lost shortly before one ends with its shot, as the other does."""
    from generator_integration.reference.face import scan_video
    from syncdisc_plugin.data.footage import Footage
    from syncdisc_plugin.faces import TrackSettings
    from syncdisc_plugin.media.stream import PictureStream

    class Lost:
        """The right face is lost in the last ticks of the first shot."""

        def __call__(self, image: np.ndarray) -> np.ndarray:
            boxes = [LEFT] if image[-8:, -8:].mean() < 100 else [LEFT, RIGHT]
            return np.array([[*box, 0.9] for box in boxes], np.float32)

    rng = np.random.default_rng(0)
    shots = [rng.integers(0, 256, (8, 10, 3)).repeat(16, 0).repeat(16, 1) for _ in range(2)]
    frames = [np.array(shots[i // 40], np.uint8) for i in range(80)]
    for i, frame in enumerate(frames):
        frame[-16:, -16:] = 200 * (i < 35 or i >= 40)
    source = write_video(tmp_path / "v.mp4", frames, audio=bursts(3.2), crf=4)
    settings, detect = TrackSettings(min_frames=10), Lost()
    tracks = [t for t, _ in Footage(source, detect, ClipSpec(), settings).clips()]
    scan = scan_video(PictureStream(source), detect, settings, fps=25, face_px=96)
    assert len(tracks) == 4
    for face, track in zip(scan.faces, tracks, strict=True):
        assert face.runs[0].start == track.start_frame
        assert np.abs(face.runs[0].boxes - track.boxes).max() < 1e-3


def test_long_tracks_are_one_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from generator_integration.reference import face as faces
    from syncdisc_plugin.faces import TrackSettings
    from syncdisc_plugin.media.stream import PictureStream

    monkeypatch.setattr(faces, "PIECE_TICKS", 16)
    monkeypatch.setattr(faces, "CANDIDATE_TICKS", 8)
    source = write_video(tmp_path / "v.mp4", map(picture, range(50)))
    two = Marked(LEFT, RIGHT)
    scan = faces.scan_video(PictureStream(source), two, TrackSettings(), fps=25, face_px=96)
    assert [len(f.runs[0].boxes) for f in scan.faces] == [50, 50]
    (run,) = scan.faces[0].runs
    assert run.references(4).shape == (4, 96, 96, 3)
    found = scan.faces[1].at(Fraction(1, 3))
    assert found is not None and np.abs(found[1] - RIGHT).max() < 1e-3
    assert scan.faces[1].at(Fraction(5, 2)) is None


def test_large_videos_are_searched_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from generator_integration.reference import face as faces
    from syncdisc_plugin.faces import TrackSettings
    from syncdisc_plugin.media.stream import PictureStream

    sizes = set()

    class Small(Marked):
        def __call__(self, image: np.ndarray) -> np.ndarray:
            sizes.add(image.shape)
            return np.array([[24, 16, 56, 56, 0.9]], np.float32)

    source = write_video(tmp_path / "v.mp4", map(picture, range(30)))
    monkeypatch.setattr(faces, "SCAN_PX", 80)
    scan = faces.scan_video(PictureStream(source), Small(), TrackSettings(), fps=25, face_px=96)
    assert sizes == {(H // 2, W // 2, 3)}
    found = scan.faces[0].at(Fraction(1))
    assert found is not None and np.abs(found[1] - [48, 32, 112, 112]).max() < 1e-3


RED, ROSE, BLUE = (200, 60, 60), (196, 66, 62), (60, 60, 200)


def seen(start: int, n: int, box: tuple[float, ...], color: tuple[int, ...] = RED, shot: int = 0):
    """Somebody of a colour in one place."""
    from generator_integration.reference.face import Run

    grain = np.random.default_rng(0).normal(0, 25, (96, 96, 3))
    look = (np.array(color) + grain).clip(0, 255).astype(np.uint8)
    return Run(start, np.tile(np.float32(box), (n, 1)), shot, [(1.0, look)])


def scanned(*runs: object, short: tuple[object, ...] = ()):
    from generator_integration.reference.face import Face, Scan

    faces = [Face(number, [run], 25) for number, run in enumerate(runs)]  # type: ignore[list-item]
    return Scan(faces, np.arange(20000), list(short))  # type: ignore[arg-type]


def starts(scan: object, numbers: tuple[int, ...] | None) -> list[int]:
    """When the runs begin that are chosen."""
    from generator_integration.reference.cast import choose_face

    return [run.start for run in choose_face(scan, numbers, 800).runs]  # type: ignore[arg-type]


def test_a_face_that_is_lost_for_a_moment_goes_on() -> None:
    """Whatever it looks like then; and where it is seen for too short to have a number."""
    first, other = seen(0, 50, LEFT, RED), seen(0, 40, RIGHT, BLUE)
    again, late = seen(80, 100, LEFT, (0, 90, 0)), seen(400, 20, LEFT, (0, 90, 0))
    scan = scanned(first, other, again, late, short=(seen(185, 5, LEFT, (0, 0, 90)),))
    assert starts(scan, (0,)) == [0, 80, 185]
    assert starts(scan, (1,)) == [0]
    assert starts(scan, (2,)) == starts(scan, None) == [0, 80, 185, 400]
    assert starts(scan, (3,)) == [0, 80, 185, 400]


def test_who_looks_alike_goes_on_behind_a_cutaway() -> None:
    """Anywhere, closer or farther away; somebody else in the same place does not."""
    scan = scanned(
        seen(0, 100, BOX, RED, 0),
        seen(100, 150, BOX, BLUE, 1),
        seen(250, 60, LEFT, ROSE, 2),
        seen(900, 500, RIGHT, RED, 4),
        seen(900, 500, LEFT, ROSE, 4),
        short=(seen(310, 9, BOX, RED, 3), seen(1400, 9, BOX, BLUE, 5)),
    )
    assert starts(scan, (0,)) == starts(scan, None) == [0, 250, 310, 900]
    assert starts(scan, (1,)) == [100, 1400]
    assert starts(scan, (1, 0)) == [0, 100, 250, 310, 900, 1400]


def test_of_two_that_look_alike_the_nearer_one_goes_on() -> None:
    from generator_integration.reference.cast import choose_face

    scan = scanned(seen(0, 100, BOX, RED, 0), seen(200, 50, LEFT, ROSE, 1), seen(220, 9, BOX, RED))
    chosen = choose_face(scan, (0,), 800)
    assert (chosen.number, chosen.also) == (0, (2,))
    assert [run.start for run in chosen.runs] == [0, 220]


def test_a_face_is_as_long_as_all_that_it_goes_on_in() -> None:
    """The default is who is seen most, not who is seen longest without a cut."""
    scan = scanned(seen(0, 60, BOX), seen(60, 100, BOX, BLUE, 1), seen(160, 60, BOX, ROSE, 2))
    assert starts(scan, None) == [0, 160]


def test_only_the_named_tracks() -> None:
    from generator_integration.reference.cast import choose_face

    scan = scanned(seen(0, 60, BOX), seen(60, 100, BOX, BLUE, 1), seen(160, 70, BOX, ROSE, 2))
    for numbers, begins in (((0,), [0]), ((2, 0), [0, 160]), (None, [60])):
        chosen = choose_face(scan, numbers, 800, only=True)
        assert [run.start for run in chosen.runs] == begins


def test_a_film_of_many_shots_is_cast_within_seconds() -> None:
    """Twenty people in turn, each shot somewhere else."""
    rng = np.random.default_rng(0)
    colors = rng.integers(20, 236, (20, 3))
    boxes = [LEFT, RIGHT, BOX]
    shots = [seen(60 * i, 50, boxes[i % 3], tuple(colors[i % 20]), i) for i in range(400)]
    began = time.process_time()
    assert len(starts(scanned(*shots), None)) >= 20
    assert time.process_time() - began < 20


def test_two_mouths_at_once_are_refused() -> None:
    from syncdisc_plugin.errors import FaceError

    scan = scanned(seen(0, 50, LEFT), seen(20, 50, RIGHT, BLUE), seen(90, 50, RIGHT, BLUE))
    match = r"face 0 at 0.00 s for 2.00 s, 54 px and face 1 .* at the same time"
    with pytest.raises(FaceError, match=match):
        starts(scan, (0, 2, 1))
    with pytest.raises(FaceError, match=r"expected one of \[0, 1, 2\], got 7"):
        starts(scan, (0, 7))


def test_the_default_face_is_one_that_is_seen_while_the_sound_lasts() -> None:
    from generator_integration.reference.cast import choose_face
    from syncdisc_plugin.errors import FaceError

    scan = scanned(seen(0, 150, LEFT), seen(200, 15000, LEFT, BLUE, 1))
    assert choose_face(scan, None, Fraction(5)).number == 0
    assert choose_face(scan, None, Fraction(60)).number == 1
    with pytest.raises(FaceError, match=r"face 1 .* is not seen while the sound lasts \(5.00 s\)"):
        choose_face(scan, (1,), Fraction(5))


@pytest.mark.parametrize("fps", [24, 30, 50, 60, Fraction(30000, 1001)])
def test_a_face_is_there_until_the_last_frame(tmp_path: Path, fps: int | Fraction) -> None:
    from generator_integration.reference.face import scan_video
    from syncdisc_plugin.faces import TrackSettings
    from syncdisc_plugin.media.stream import PictureStream

    for n in range(40, 46):
        source = write_video(tmp_path / f"{n}.mp4", map(picture, range(n)), fps=fps)
        stream = PictureStream(source)
        scan = scan_video(stream, Marked(), TrackSettings(), fps=25, face_px=32)
        times_s = [(int(p) - int(scan.pts[0])) * stream.time_base for p in scan.pts]
        assert len(times_s) == n and all(scan.faces[0].at(t) for t in times_s)


@pytest.mark.parametrize("fps", [12, 24, 25, 30, 50, 60, Fraction(30000, 1001)])
@pytest.mark.parametrize("face_first", [True, False])
def test_no_face_is_drawn_beyond_a_cut(
    tmp_path: Path, fps: int | Fraction, face_first: bool
) -> None:
    """At other rates than 25 a frame at the cut is shown by no tick, or by two."""
    from generator_integration.reference.face import scan_video
    from syncdisc_plugin.faces import TrackSettings
    from syncdisc_plugin.media.stream import PictureStream

    coarse = np.random.default_rng(0).integers(30, 220, (8, 10, 3))
    other = np.kron(coarse, np.ones((H // 8, W // 10, 1))).astype(np.uint8)
    other[-16:, -16:] = 0  # nobody is there
    for n in range(2 * round(fps), 2 * round(fps) + 4):
        frames, rest = [picture(i % 40) for i in range(n)], [other] * round(fps)
        shown = [*frames, *rest] if face_first else [*rest, *frames]
        source = write_video(tmp_path / f"{n}.mp4", shown, fps=fps, crf=4)
        stream = PictureStream(source)
        scan = scan_video(stream, Marked(), TrackSettings(every=1), fps=25, face_px=32)
        times_s = [(int(p) - int(scan.pts[0])) * stream.time_base for p in scan.pts]
        drawn = [scan.faces[0].at(t) is not None for t in times_s]
        has_face = [True] * n + [False] * round(fps)
        assert drawn == (has_face if face_first else has_face[::-1])


@pytest.mark.parametrize(("fps", "at"), [(25, 30), (30, 37), (30, 38), (25, 50)])
def test_behind_a_cut_a_face_is_drawn_after_pictures_of_that_shot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fps: int, at: int
) -> None:
    """Two people who sit in the same place in turn, as in an interview; one track each.

    Also where the first one is seen for a whole number of pieces.
    """
    from generator_integration.reference import face as faces
    from syncdisc_plugin.data.footage import Footage
    from syncdisc_plugin.faces import TrackSettings

    monkeypatch.setattr(faces, "PIECE_TICKS", 50)

    def shot(color: tuple[int, int, int], seed: int, n: int) -> list[np.ndarray]:
        coarse = np.random.default_rng(seed).integers(0, 255, (8, 10, 3))
        base = 0.3 * np.kron(coarse, np.ones((16, 16, 1))) + 0.7 * np.array(color)
        return [np.roll(base, i // 3, 1).astype(np.uint8) for i in range(n)]

    class Looking(Painter):
        def forward(self, masked: torch.Tensor, reference: torch.Tensor, mel: torch.Tensor):
            for pictures in (masked[:, :, :, :48], reference):
                red, _, blue = pictures.mean((0, 3, 4)).unbind(1)
                looked.append({bool(r > b) for r, b in zip(red, blue, strict=True)})
            return super().forward(masked, reference, mel)

    looked: list[set[bool]] = []
    n = at + 40
    source, audio = tmp_path / "v.mp4", write_wav(tmp_path / "a.wav", bursts(n / fps))
    frames = [*shot((200, 40, 40), 0, at), *shot((40, 40, 200), 1, 40)]
    write_video(source, frames, fps=fps, audio=bursts(n / fps), crf=4)
    for face in (0, 1):  # only who was chosen speaks
        alone = run(source, audio, tmp_path / "out.mp4", face=face)
        assert alone.faces == (face,) and alone.generated < alone.frames - 25
        assert "do not show face" in alone.notes[-1]
    result = run(source, audio, tmp_path / "out.mp4", generator=Looking(), face=(1, 0))
    assert result.generated == result.frames >= n and result.faces == (1, 0)
    assert all(len(seen) == 1 for seen in looked) and looked[::2] == looked[1::2]
    assert {True} in looked and {False} in looked
    tracks = list(Footage(source, Marked(), ClipSpec(), TrackSettings()).clips())
    assert len(tracks) == 2 and "Face 1 speaks, which is also face 0 (--face)" in result.notes[0]


# --- parts


def test_the_mel_of_blocks_is_the_mel_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from generator_integration.reference import voice
    from syncdisc_plugin.mel import log_mel

    monkeypatch.setattr(voice, "BLOCK_S", 1)
    sound = bursts(4.3)
    cuts = np.cumsum(np.random.default_rng(0).integers(1, 3000, 60))
    blocks = np.split(sound, cuts[cuts < len(sound)])
    parts = list(voice.mel_parts(blocks, ClipSpec().mel))
    assert len(parts) > 3
    whole = log_mel(torch.from_numpy(sound)).numpy()
    joined = np.concatenate(parts, axis=1)
    assert joined.shape == whole.shape and np.abs(joined - whole).max() < 1e-4


def test_windows_of_the_mel(wav: Path) -> None:
    from generator_integration.reference.voice import read_voice

    voice = read_voice(wav, ClipSpec())
    times = [Fraction(0), Fraction(10, 25), Fraction(21, 50), Fraction(16, 10), Fraction(9)]
    windows = voice.windows(times)
    assert windows.shape == (5, 1, 80, 16)
    assert (windows[0, 0, :, :4] == -4).all()  # frame -1 begins at -3.2, its window at -4
    assert np.array_equal(windows[0, 0, :, 4:], voice.mel[:, :12])
    assert np.array_equal(windows[1, 0], voice.mel[:, 28:44])
    assert np.array_equal(windows[2, 0], voice.mel[:, 30:46])  # 9.5 frames: floor(30.4)
    assert (windows[4] == -4).all()


def test_batches_have_no_borders(video: Path, wav: Path) -> None:
    """A generator that looks at its neighbours draws the same in batches of any size."""
    from generator_integration.reference.face import scan_video
    from generator_integration.reference.playback import VideoPlayback
    from generator_integration.reference.speaker import Speaker
    from generator_integration.reference.voice import read_voice
    from syncdisc_plugin.faces import TrackSettings
    from syncdisc_plugin.media.stream import PictureStream

    class Looking(Painter):
        def forward(self, masked: torch.Tensor, reference: torch.Tensor, mel: torch.Tensor):
            around = torch.nn.functional.pad(mel.mean((2, 3, 4)), (3, 3), mode="replicate")
            smooth = torch.nn.functional.avg_pool1d(around, 7, 1)
            return super().forward(masked, reference, smooth[:, :, None, None, None].expand_as(mel))

    voice, stream = read_voice(wav, ClipSpec()), PictureStream(video)
    scan = scan_video(stream, Marked(), TrackSettings(), fps=25, face_px=96)
    outputs = []
    for batch in (2, 7, 100):
        playback = VideoPlayback(stream, scan.pts, voice.seconds)
        speaker = Speaker(Looking(), scan.faces[0], voice, playback.clock, "cpu")  # type: ignore[arg-type]
        given = list(speaker.speak(playback.shots(), batch))
        assert [pts for _, pts in given] == [int(p - scan.pts[0]) for p in scan.pts]
        outputs.append(np.stack([image for image, _ in given]).astype(int))
    for output in outputs[:2]:
        assert np.abs(output - outputs[2]).max() <= 1


def test_paste_keeps_what_is_not_drawn_anew() -> None:
    from generator_integration.reference.paste import paste_face
    from syncdisc_plugin.faces import crop_face

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (300, 400, 3), np.uint8)
    for box in [(100.3, 40.2, 300.7, 280.9), (-30.0, 100.0, 90.0, 340.0), (10.0, 10.0, 40.0, 50.0)]:
        at = np.array(box, np.float32)
        seen = crop_face(image, at, face_px=96, margin=0).astype(np.float32) / 255
        same = paste_face(image, at, seen, seen)
        assert np.abs(same.astype(int) - image).max() <= 1
        drawn = seen.copy()
        drawn[56:80, 30:66] = 1 - drawn[56:80, 30:66]
        x1, y1, x2, y2 = box
        other = paste_face(image, at, drawn, seen)
        changed = np.argwhere((other != image).any(-1))
        assert len(changed)
        top = y1 + 0.42 * (y2 - y1) - 1
        assert changed[:, 0].min() >= top and changed[:, 0].max() <= y2
        assert changed[:, 1].min() >= x1 - 1 and changed[:, 1].max() <= x2 + 1
    outside = np.array([500.0, 10.0, 600.0, 90.0])
    assert np.array_equal(paste_face(image, outside, drawn, seen), image)


def test_a_picture_stream_begins_anywhere(tmp_path: Path) -> None:
    from syncdisc_plugin.media.stream import PictureStream

    for suffix in (".mp4", ".mkv", ".ts", ".avi"):
        path = write_video(tmp_path / f"v{suffix}", map(picture, range(50)), crf=4)
        stream = PictureStream(path)
        whole = [pts for pts, _ in stream.frames()]
        assert len(whole) == 50 and whole == sorted(whole)
        for first in (0, 1, 17, 49):
            found = [(pts, stream.pixels(f)) for pts, f in stream.frames(whole[first])]
            assert [pts for pts, _ in found] == whole[first:], (suffix, first)
            assert indices(np.stack([image for _, image in found[:2]]))[0] == first


# --- memory

MEASURE = """
import resource, sys
import numpy as np, torch
from generator_integration.reference import lipsync
from syncdisc_plugin.spec import ClipSpec
class Fake(torch.nn.Module):
    spec = ClipSpec()
    def forward(self, masked, reference, mel):
        return masked
def detect(image):
    return np.array([[500, 200, 800, 560, 0.9]], np.float32)
lipsync(*sys.argv[1:4], generator=Fake(), detect=detect, device="cpu", crf=40)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_memory_is_flat(tmp_path: Path) -> None:
    pytest.importorskip("generator_integration.reference.generator")
    peaks = []
    for seconds in (20, 60):
        still = [np.full((720, 1280, 3), level, np.uint8) for level in (90, 110)]
        source, audio = tmp_path / f"{seconds}.mp4", tmp_path / f"{seconds}.wav"
        write_video(source, (still[i // 10 % 2] for i in range(6 * seconds)), fps=6, crf=40)
        write_wav(audio, bursts(seconds))
        argv = [sys.executable, "-c", MEASURE, str(source), str(audio), str(tmp_path / "out.mp4")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=580)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 40, peaks


@pytest.mark.real
def test_real_people_are_told_apart_by_their_looks(clips_dir: Path, models_dir: Path) -> None:
    """The first half of a video from its second one, and from others' in front of white walls."""
    import csv
    from itertools import combinations

    from generator_integration.reference.cast import ALIKE, UNLIKE, likeness
    from generator_integration.reference.face import Run, scan_video
    from syncdisc_plugin.faces import TrackSettings, load_detector
    from syncdisc_plugin.media.stream import PictureStream

    with (clips_dir / "clips.csv").open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if 9 <= float(r["seconds"]) <= 30]
    by_person = {r["speaker"]: r["path"] for r in rows if r["path"].startswith("presenters/")}
    assert len(by_person) >= 8
    detect, halves = load_detector("yunet", models=models_dir), []
    for path in list(by_person.values())[:14]:
        stream = PictureStream(clips_dir / path)
        scan = scan_video(stream, detect, TrackSettings(every=10), fps=25, face_px=96)
        run = max((face.runs[0] for face in scan.faces), key=lambda r: len(r.boxes))
        pictures, middle = run.candidates[1:-1], len(run.candidates) // 2 - 1  # without fades
        parts = (pictures[:middle], pictures[middle:])
        halves.append([Run(0, run.boxes, 0, part) for part in parts])
    same = np.array([likeness(*pair) for pair in halves])
    others = np.array([likeness(a[0], b[1]) for a, b in combinations(halves, 2)])
    print(f"same {same.round(2)}; others {np.quantile(others, (0.5, 0.75, 1)).round(2)}")
    assert (same >= ALIKE).mean() >= 0.9
    assert (others >= ALIKE).mean() <= 0.02 and (others < UNLIKE).mean() >= 0.4
