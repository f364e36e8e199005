"""A white flash and a tone burst at known times must come back at those times."""

from __future__ import annotations

import errno
import inspect
import os
import re
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from syncdisc_plugin.errors import MediaError
from syncdisc_plugin.media import Recording, container, decode, list_videos, write_video
from syncdisc_plugin.media.stream import PictureStream

RATE = 16000
HALF_FRAME_S = 0.0201


def tone(seconds: float, at_s: float, rate: int = RATE) -> np.ndarray:
    """Silence with a burst of 1 kHz, 0.1 s long, from `at_s` on."""
    time_s = np.arange(round(seconds * rate)) / rate
    burst = (time_s >= at_s) & (time_s < at_s + 0.1)
    return (0.8 * burst * np.sin(2 * np.pi * 1000 * (time_s - at_s))).astype(np.float32)


def pictures(times_s: np.ndarray | list[float], at_s: float, size: tuple[int, int] = (64, 64)):
    """Black frames; white while `at_s` <= t < `at_s` + 0.2."""
    for time_s in times_s:
        is_on = at_s - 1e-6 <= time_s < at_s + 0.2 - 1e-6
        yield np.full((*size, 3), 255 * is_on, np.uint8)


def write(path: Path, *, fps: float | Fraction = 25, seconds: float = 3, sound_s=None, **more):
    """Flash and burst at about 1.2 s of each stream's own clock; returns the flash's own time."""
    times_s = more.get("frame_times_s") or [float(i / fps) for i in range(round(seconds * fps))]
    at_s = min(t for t in times_s if t >= 1.2 - 1e-6)
    sound = tone(sound_s or seconds, at_s)
    write_video(path, pictures(times_s, at_s), fps=fps, audio=sound, **more)
    return at_s


def write_noise(path: Path) -> Path:
    """4 s of a picture that takes many bytes, so that most of the file is picture."""
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(100))
    return write_video(path, noise, audio=tone(4, 1.0))


def flash_s(clip: Recording) -> float:
    """When the picture turns white, on the clip clock."""
    bright = [frame.mean() > 128 for frame in clip.frames()]
    assert any(bright) and not bright[0]
    return bright.index(True) / clip.fps


def burst_s(clip: Recording) -> float:
    """When the burst begins, on the clip clock: half its peak, to about a millisecond."""
    loud = np.abs(clip.audio) > 0.4
    assert loud.any()
    return int(loud.argmax()) / clip.sample_rate_hz


def check(clip: Recording, flash_at_s: float, burst_at_s: float) -> None:
    seen, heard = flash_s(clip), burst_s(clip)
    assert clip.note is None
    assert seen == pytest.approx(flash_at_s, abs=HALF_FRAME_S)
    assert heard == pytest.approx(burst_at_s, abs=0.005)
    assert seen - heard == pytest.approx(flash_at_s - burst_at_s, abs=HALF_FRAME_S)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi", ".mov", ".ts"])
def test_containers(tmp_path: Path, suffix: str) -> None:
    at_s = write(tmp_path / f"a{suffix}")
    clip = decode(tmp_path / f"a{suffix}")
    check(clip, at_s, at_s)
    frames = list(clip.frames())
    assert len(frames) == 75
    assert frames[0].shape == (64, 64, 3) and frames[0].dtype == np.uint8
    assert clip.audio.dtype == np.float32 and clip.audio.ndim == 1
    assert list(tmp_path.iterdir()) == [tmp_path / f"a{suffix}"], "temporary files are left"


@pytest.mark.parametrize(
    "fps", [Fraction(30000, 1001), Fraction(24000, 1001), 50, 60, 22.131, 12], ids=str
)
def test_frame_rates(tmp_path: Path, fps: float | Fraction) -> None:
    at_s = write(tmp_path / "a.mp4", fps=fps, seconds=4)
    clip = decode(tmp_path / "a.mp4")
    # Nearest source frame: slow sources place the flash to half of THEIR frame.
    assert flash_s(clip) == pytest.approx(at_s, abs=max(HALF_FRAME_S, 0.5 / float(fps) + 0.001))
    assert burst_s(clip) == pytest.approx(at_s, abs=0.005)
    assert clip.source.fps == pytest.approx(float(fps), rel=0.01)
    assert 98 <= sum(1 for _ in clip.frames()) <= 100


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_frame_rate(tmp_path: Path, suffix: str) -> None:
    # 30 fps, then 10 fps, then 50 fps: an index would be far off after the slow part.
    steps = [1 / 30] * 15 + [1 / 10] * 5 + [1 / 50] * 105
    at_s = write(tmp_path / f"a{suffix}", frame_times_s=[0.0, *np.cumsum(steps)], seconds=3.1)
    clip = decode(tmp_path / f"a{suffix}")
    check(clip, at_s, at_s)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".ts"])
def test_video_starts_late(tmp_path: Path, suffix: str) -> None:
    at_s = write(tmp_path / f"a{suffix}", video_start_s=0.12)
    clip = decode(tmp_path / f"a{suffix}")
    assert clip.source.video_start_s - clip.source.audio_start_s == pytest.approx(0.12, abs=0.07)
    check(clip, at_s, at_s - 0.12)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".ts"])
def test_audio_starts_late(tmp_path: Path, suffix: str) -> None:
    at_s = write(tmp_path / f"a{suffix}", audio_start_s=0.2)
    clip = decode(tmp_path / f"a{suffix}")
    # Where mp4 and ts show the AAC priming as sound, t = 0 is up to 64 ms earlier.
    zero_s = clip.start_s - clip.source.video_start_s
    assert zero_s == pytest.approx(0.17, abs=0.04)
    check(clip, at_s - zero_s, at_s + 0.2 - zero_s)


def test_no_step_is_lost_over_time(tmp_path: Path) -> None:
    """29.97 fps and 44.1 kHz for 12 s: drift of one sample a second would show."""
    fps, at_s = Fraction(30000, 1001), 10.01
    times_s = np.arange(round(12 * fps)) / float(fps)
    sound = tone(12, at_s, 44100)
    write_video(tmp_path / "a.mp4", pictures(times_s, at_s), fps=fps, audio=sound,
                sample_rate_hz=44100)  # fmt: skip
    clip = decode(tmp_path / "a.mp4")
    check(clip, at_s, at_s)
    assert len(clip.audio) == pytest.approx(12 * RATE, abs=0.06 * RATE)


def test_other_rates(tmp_path: Path) -> None:
    at_s = write(tmp_path / "a.mkv")
    clip = decode(tmp_path / "a.mkv", fps=50, sample_rate_hz=8000)
    assert sum(1 for _ in clip.frames()) == 150
    check(clip, at_s, at_s)


def test_waveform_survives(tmp_path: Path) -> None:
    """Lossless sound must come back sample by sample, neither shifted nor scaled."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype(np.float32)
    write_video(tmp_path / "a.avi", pictures(np.arange(25) / 25, 0.5), audio=noise)
    np.testing.assert_allclose(decode(tmp_path / "a.avi").audio, noise, atol=1e-4)


@pytest.mark.parametrize("codec", ["pcm_s16le", "aac"])
def test_channels_are_averaged(tmp_path: Path, codec: str) -> None:
    """Stereo with the burst on one side: half as loud, whatever the codec's sample format."""
    path = tmp_path / "a.mkv"
    mux(path, [(tone(2, 1.2), tone(2, 5))], codec)
    assert np.abs(decode(path).audio).max() == pytest.approx(0.4, abs=0.03)


def test_default_audio_stream_is_read(tmp_path: Path) -> None:
    mux(tmp_path / "a.mkv", [(tone(2, 5),) * 2, (tone(2, 1.2),) * 2], "pcm_s16le", default=1)
    clip = decode(tmp_path / "a.mkv")
    assert burst_s(clip) == pytest.approx(1.2, abs=0.005)


def test_gap_and_overlap_in_audio(tmp_path: Path) -> None:
    """Half a second without sound is silence; sound that is sent twice is heard once."""
    left = tone(3, 2.0)
    cut = {0.5: 1.0, 1.5: 1.475}  # Sound up to the key, then on from the value.
    mux(tmp_path / "a.mkv", [(left, left)], "pcm_s16le", jumps=cut)
    clip = decode(tmp_path / "a.mkv")
    assert burst_s(clip) == pytest.approx(2.0, abs=0.005)
    assert len(clip.audio) == pytest.approx(3 * RATE, abs=80)


def test_a_clock_that_begins_anew_is_noted(tmp_path: Path) -> None:
    """Recordings that were joined byte by byte: what is behind the joint cannot be placed."""
    write(tmp_path / "a.ts", seconds=2)
    write(tmp_path / "b.ts", seconds=3)
    joined = [(tmp_path / name).read_bytes() for name in ("b.ts", "a.ts")]
    (tmp_path / "ba.ts").write_bytes(b"".join(joined))
    clip = decode(tmp_path / "ba.ts")
    assert 65 <= len(list(clip.frames())) <= 75
    assert clip.note and "timestamps go back by" in clip.note


@pytest.mark.parametrize("late_s", [-3.0, 3.0])
def test_one_odd_time_does_not_end_a_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late_s: float
) -> None:
    write(tmp_path / "a.mkv", seconds=12)
    real = container.Decoding.__call__

    class Odd:
        """The 100th picture, with a time that cannot be."""

        def __init__(self, picture: object) -> None:
            self.picture = picture

        def __getattr__(self, name: str) -> object:
            value = getattr(self.picture, name)
            return value + late_s if name == "time" else value

    count = 0

    def decoded(self: container.Decoding, packet: av.Packet) -> list[object]:
        nonlocal count
        found = real(self, packet)
        for i, picture in enumerate(found):
            count += 1
            if count == 100:
                found[i] = Odd(picture)
        return found

    monkeypatch.setattr(container.Decoding, "__call__", decoded)
    with container.opened(tmp_path / "a.mkv") as file:
        times_s = [t for t, _ in container.pictures(file, file.streams.video[0], 1)]
    assert len(times_s) >= (299 if late_s < 0 else 220) and times_s[-1] == pytest.approx(11.96)
    assert times_s == sorted(times_s)


def mux(path: Path, sounds, codec: str, default: int = 0, jumps=None, turn: int = 0) -> None:
    """Write what `write_video` does not: stereo, several audio streams, broken clocks, rotation."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        if turn:
            video.set_display_rotation(turn)
        streams = [out.add_stream(codec, rate=RATE, layout="stereo") for _ in sounds]
        for index, stream in enumerate(streams):
            stream.disposition = av.stream.Disposition.default if index == default else 0
        for i in range(round(len(sounds[0][0]) / RATE * 25)):
            image = np.zeros((64, 96, 3), np.uint8)
            image[:32, :32] = 255  # Marks the top left corner.
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(video.encode(frame))
        for sound, stream in zip(sounds, streams, strict=True):
            kept = [(0.0, len(sound[0]) / RATE)]
            for end_s, begin_s in (jumps or {}).items():
                kept[-1:] = [(kept[-1][0], end_s), (begin_s, kept[-1][1])]
            for begin_s, end_s in kept:
                for at in range(round(begin_s * RATE), round(end_s * RATE), 800):
                    both = np.stack([channel[at : at + 800] for channel in sound])
                    frame = av.AudioFrame.from_ndarray(both, format="fltp", layout="stereo")
                    frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
                    out.mux(stream.encode(frame))
        for stream in (video, *streams):
            out.mux(stream.encode(None))


@pytest.mark.skipif(
    not hasattr(av.VideoStream, "set_display_rotation"), reason="this PyAV cannot write rotation"
)
@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotation_is_applied(tmp_path: Path, turn: int) -> None:
    mux(tmp_path / "a.mp4", [(tone(1, 0.5),) * 2], "aac", turn=turn)
    clip = decode(tmp_path / "a.mp4")
    frame = next(clip.frames())
    corners = {90: frame[-16, 16], 180: frame[-16, -16], 270: frame[16, -16]}
    assert frame.shape == ((64, 96, 3) if turn == 180 else (96, 64, 3))
    assert frame.shape[:2] == (clip.source.height, clip.source.width)
    assert clip.source.rotation_deg == turn and corners[turn].min() > 200
    assert frame[16, 16].max() < 50


# First two rows of the display matrix, and where the picture's top left corner is shown then:
# by rows and columns counted from their ends.
MIRRORED = {
    "left and right": ((-1, 0), (0, 1), (16, -16)),
    "up and down": ((1, 0), (0, -1), (-16, 16)),
    "over the diagonal": ((0, 1), (1, 0), (16, 16)),
    "over the other one": ((0, -1), (-1, 0), (-16, -16)),
}


@pytest.mark.parametrize("how", MIRRORED)
def test_mirrored_pictures_are_shown_as_players_show_them(tmp_path: Path, how: str) -> None:
    (a, b), (c, d), (row, column) = MIRRORED[how]
    mux(tmp_path / "a.mp4", [(tone(1, 0.5),) * 2], "aac")
    file = (tmp_path / "a.mp4").read_bytes()
    plain = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    at = file.index(plain, file.index(b"tkhd"))  # the first track is the picture
    turned = struct.pack(">9i", *(65536 * x for x in (a, b, 0, c, d, 0, 0, 0)), 1 << 30)
    (tmp_path / "a.mp4").write_bytes(file[:at] + turned + file[at + len(plain) :])
    clip = decode(tmp_path / "a.mp4")
    frame = next(clip.frames())
    assert clip.source.mirrored and frame.shape[:2] == (clip.source.height, clip.source.width)
    assert frame.shape == ((64, 96, 3) if a else (96, 64, 3))
    assert frame[row, column].min() > 200
    assert sum(frame[y, x].min() > 200 for y in (16, -16) for x in (16, -16)) == 1
    stream = PictureStream(tmp_path / "a.mp4")
    _, picture = next(stream.frames())
    assert np.array_equal(stream.pixels(picture) > 200, frame > 200)


@pytest.mark.parametrize(("video_s", "sound_s"), [(2.0, 3.0), (3.0, 2.0)])
def test_ends_at_the_shorter_stream(tmp_path: Path, video_s: float, sound_s: float) -> None:
    at_s = write(tmp_path / "a.mkv", seconds=video_s, sound_s=sound_s)
    clip = decode(tmp_path / "a.mkv")
    check(clip, at_s, at_s)
    # AAC ends on a block of 64 ms.
    assert 50 <= sum(1 for _ in clip.frames()) <= 52
    assert sound_s <= len(clip.audio) / RATE < sound_s + 0.1


def test_frames_are_lazy_and_their_own(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", fps=10)
    clip = decode(tmp_path / "a.mp4")
    frames = clip.frames()
    assert inspect.isgenerator(frames)
    first, second = next(frames), next(frames)
    first[:] = 77  # A frame that is shown twice must not be the same memory.
    assert second.max() < 50
    frames.close()
    assert sum(1 for _ in clip.frames()) == 75, "a second pass starts anew"


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_truncated_gives_what_is_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_noise(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    clip = decode(path)
    n_frames = sum(1 for _ in clip.frames())
    assert 25 < n_frames < 75
    assert burst_s(clip) == pytest.approx(1.0, abs=0.005)
    assert clip.note is not None and "\n" not in clip.note


def test_a_cut_within_a_packet_hides_no_missing_half(tmp_path: Path) -> None:
    """As a download that was cut off leaves it, its index at the front."""
    with av.open(str(write_noise(tmp_path / "a.mp4"))) as file:
        options = {"movflags": "faststart"}
        with av.open(str(tmp_path / "b.mp4"), "w", container_options=options) as out:
            streams = [out.add_stream_from_template(s) for s in file.streams]
            for packet in file.demux():
                if packet.size:
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
    with av.open(str(tmp_path / "b.mp4")) as file:
        heard = [(packet.pos, packet.size) for packet in file.demux(audio=0) if packet.size]
    whole, (at, size) = (tmp_path / "b.mp4").read_bytes(), heard[len(heard) // 2]
    assert whole.index(b"moov") < whole.index(b"mdat") < at
    (tmp_path / "cut.mp4").write_bytes(whole[: at + size // 2])
    clip = decode(tmp_path / "cut.mp4")
    assert clip.note is not None and "truncated: the file ends at" in clip.note


def test_damage_in_the_middle_costs_no_more_than_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_noise(path)
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + len(whole) // 8] = bytes(len(whole) // 8)
    path.write_bytes(whole)
    clip = decode(path)
    assert len(list(clip.frames())) == 100
    assert clip.note is not None and re.search(r"picture: \d+ damaged packets? skipped", clip.note)


def test_refusals(tmp_path: Path) -> None:
    whole = write_noise(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "no_moov.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text("not a video, only words\n" * 200)
    (tmp_path / "empty.mp4").write_bytes(b"")
    write_video(tmp_path / "silent.mp4", pictures(np.arange(25) / 25, 0.5))
    with av.open(str(tmp_path / "sound.m4a"), "w") as out:
        stream = out.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(1, 0.5)[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    expected = {
        "no_moov.mp4": "cannot be read",
        "text.mp4": "cannot be read",
        "empty.mp4": "empty",
        "silent.mp4": "no audio stream",
        "sound.m4a": "no video stream",
        "absent.mp4": "No such file",
    }
    for name, words in expected.items():
        with pytest.raises(MediaError, match=words) as caught:
            decode(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_reaches_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video, only words\n" * 200)
    whole = write_noise(tmp_path / "a.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    code = (
        "import sys\nfrom syncdisc_plugin.media import decode\n"
        "list(decode(sys.argv[1]).frames())\n"
        "try: decode(sys.argv[2])\nexcept Exception: pass\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "cut.mkv"), str(tmp_path / "text.mp4")]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout == done.stderr == ""


def test_odd_names_and_tags(tmp_path: Path) -> None:
    folder = tmp_path / "a folder" / "видео 口型"
    folder.mkdir(parents=True)
    at_s = write(folder / "clip #1 é%d.mkv")
    [path] = list_videos([tmp_path])
    check(decode(path), at_s, at_s)
    # A tag that is not UTF-8, as old web video has.
    path.write_bytes(path.read_bytes().replace(b"Lavf", b"\xff\xfe\xe9\xe8"))
    check(decode(path), at_s, at_s)


def test_list_videos(tmp_path: Path) -> None:
    for name in ("b/2.MP4", "b/1.mkv", "a.webm", "b/notes.txt", ".hidden/3.mp4", "b/._2.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    os.symlink(tmp_path, tmp_path / "b" / "loop", target_is_directory=True)
    (tmp_path / "none").mkdir()
    videos = [tmp_path / name for name in ("a.webm", "b/1.mkv", "b/2.MP4")]
    assert list_videos([tmp_path]) == videos
    text = tmp_path / "b" / "notes.txt"
    beyond = tmp_path / "b" / "loop" / "a.webm"
    given = [text, videos[2], tmp_path / "b"]
    assert list_videos(given) == [text, videos[2], videos[1], beyond], "no path twice"
    assert list_videos([tmp_path / "none"]) == []
    with pytest.raises(MediaError, match="absent"):
        list_videos([tmp_path / "absent"])


def test_write_refuses(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    good = np.zeros((64, 64, 3), np.uint8)
    bad_frames = [[], [good[:63]], [good, good[:32]], [good.astype(np.float32)], [good[..., 0]]]
    for frames in bad_frames:
        with pytest.raises(ValueError, match="frames: expected"):
            write_video(path, frames)
    with pytest.raises(ValueError, match="audio: expected"):
        write_video(path, [good], audio=np.zeros((2, 800), np.float32))
    with pytest.raises(ValueError, match="rising"):
        write_video(path, [good] * 3, frame_times_s=[0.0, 0.2, 0.1])
    with pytest.raises(ValueError, match="times"):
        write_video(path, [good] * 3, frame_times_s=[0.0, 0.2])
    with pytest.raises(MediaError, match="AVI"):
        write_video(tmp_path / "a.avi", [good], video_start_s=0.1)
    with pytest.raises(MediaError, match="cannot write"):
        write_video(tmp_path / "a.txt", [good])
    with pytest.raises(MediaError, match="cannot be written"):
        write_video(tmp_path / "absent" / "a.mp4", [good])
    assert list(tmp_path.iterdir()) == [], "a failed write leaves nothing"


def test_a_damaged_packet_of_the_sound_costs_no_more_than_itself(tmp_path: Path) -> None:
    write(tmp_path / "a.ts", seconds=4)
    whole = (tmp_path / "a.ts").read_bytes()
    cells = [whole[i : i + 188] for i in range(0, len(whole), 188)]
    # One packet of the transport stream in sixty is lost, the headers apart.
    (tmp_path / "b.ts").write_bytes(b"".join(c for i, c in enumerate(cells) if i < 6 or i % 60))
    before, after = decode(tmp_path / "a.ts"), decode(tmp_path / "b.ts")
    assert len(list(after.frames())) >= len(list(before.frames())) - 5
    assert len(after.audio) == pytest.approx(len(before.audio), abs=RATE // 5)


def test_b_frames_in_avi_come_in_their_order(tmp_path: Path) -> None:
    """AVI keeps no times, and FFmpeg numbers packets as they come: in the order of decoding."""
    grey = [np.full((64, 64, 3), 2 * i + 20, np.uint8) for i in range(75)]
    with av.open(str(tmp_path / "a.avi"), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"bf": "3", "b-adapt": "0"})
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        audio = out.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for picture in grey:
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(video.encode())
        samples = (tone(3, 1)[None] * 32767).astype(np.int16)
        sound = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        sound.sample_rate = RATE
        out.mux(audio.encode(sound))
        out.mux(audio.encode())
    with av.open(str(tmp_path / "a.avi")) as file:  # else the test shows nothing
        order = [f.pts for f in file.decode(file.streams.video[0])]
    assert order != sorted(order)
    seen = [(frame.mean() - 20) / 2 for frame in decode(tmp_path / "a.avi").frames()]
    assert len(seen) >= 70
    assert np.abs(np.array(seen) - np.arange(len(seen))).max() <= 1


def test_a_face_does_not_stand_still_where_the_picture_pauses(tmp_path: Path) -> None:
    """A camera that is turned off while its owner talks on."""
    times_s = [i / 25 for i in range(250) if not 50 <= i < 200]
    bright = (np.full((64, 64, 3), 200, np.uint8) for _ in times_s)
    write_video(tmp_path / "a.mkv", bright, fps=25, audio=tone(10, 1), frame_times_s=times_s)
    clip = decode(tmp_path / "a.mkv")
    dark = [i for i, frame in enumerate(clip.frames()) if frame.mean() < 20]
    assert len(list(clip.frames())) == 250 and clip.note is None
    # 1.5 s of the last picture before, and as much of the first one behind.
    assert dark == pytest.approx(list(range(87, 163)), abs=1)


def test_a_disk_that_fails_is_no_damage_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.mkv")
    clip = decode(tmp_path / "a.mkv")

    def fails(*_: object) -> object:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(container.Decoding, "__call__", fails)
    with pytest.raises(OSError, match="Input/output error"):
        list(clip.frames())
    assert clip.note is None


def test_a_colon_in_a_name_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("Interview: part 1.mkv"))
    assert len(list(decode("Interview: part 1.mkv").frames())) == 75


def test_what_a_system_keeps_on_a_disk_is_no_footage(tmp_path: Path) -> None:
    write(tmp_path / "a.mkv")
    (tmp_path / "lost+found").mkdir(mode=0)
    assert list_videos([tmp_path]) == [tmp_path / "a.mkv"]
