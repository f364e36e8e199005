"""`lipsync`: frames, times and sound of what it writes, with a generator that paints the sound."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from painted import (
    BROW,
    LEFT,
    MOUTH,
    RATE,
    RIGHT,
    H,
    Marked,
    Painter,
    W,
    bursts,
    encode,
    indices,
    lag_s,
    picture,
    read_frames,
    read_sound,
    run,
    write_wav,
)

from syncdisc_plugin.errors import FaceError, MediaError
from syncdisc_plugin.media import write_video
from syncdisc_plugin.media.stream import PictureStream


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """1.6 s at 25 fps, without sound."""
    return write_video(tmp_path / "v.mp4", map(picture, range(40)), crf=4)


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "a.wav", bursts(1.6))


# --- frames, times, sound


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".webm"])
def test_a_video_gets_new_lips(video: Path, wav: Path, tmp_path: Path, suffix: str) -> None:
    class Lips(Painter):
        """The rest of the face stays, so that no colour is matched."""

        def forward(self, masked: torch.Tensor, reference: torch.Tensor, mel: torch.Tensor):
            drawn, out = super().forward(masked, reference, mel), masked.clone()
            out[..., 52:90, 24:72] = drawn[..., 52:90, 24:72]
            return out

    out = tmp_path / f"out{suffix}"
    result = run(video, wav, out, generator=Lips())
    assert (result.frames, result.generated, result.faces) == (40, 40, (0,))
    assert (result.width, result.height, result.notes) == (W, H, ())
    assert result.seconds == pytest.approx(1.6, abs=0.001) and result.path == out
    times, frames = read_frames(out)
    assert times == pytest.approx([i / 25 for i in range(40)], abs=0.001)
    assert indices(frames) == list(range(40))

    from syncdisc_plugin.mel import log_mel

    mel = log_mel(torch.from_numpy(bursts(1.6)))
    starts = [(f - 1) * 16 // 5 for f in range(1, 36)]
    wanted = [mel[:, max(0, s) : s + 16].mean().item() for s in starts]
    mouths = frames[(slice(1, 36), *MOUTH)].mean((1, 2, 3))
    assert np.corrcoef(mouths, wanted)[0, 1] > 0.99

    sound, rate, start_s = read_sound(out)
    assert abs(sound.shape[1] / rate - 1.6) < 0.07
    heard = sound.mean(0)
    if rate != RATE:
        heard = cv2.resize(heard[None], (round(heard.size * RATE / rate), 1))[0]
    # FFmpeg's own reader skips what codecs put first; .webm says so by a time before zero.
    assert abs(lag_s(heard, RATE, bursts(1.6)) + start_s) < 0.003
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a.wav", out.name, "v.mp4"])


def test_a_mouth_fades_with_its_face(wav: Path, tmp_path: Path) -> None:
    """What a generator draws after bright pictures is not pasted bright into dark ones."""

    class Remembering(Painter):
        def forward(self, masked: torch.Tensor, reference: torch.Tensor, mel: torch.Tensor):
            out = masked.clone()
            out[..., 48:, :] = reference.mean(1, keepdim=True)[..., 48:, :]
            return out

    level = np.linspace(0.25, 1, 40)
    frames = [(picture(0) * part).astype(np.uint8) for part in level]
    source = write_video(tmp_path / "v.mp4", frames, crf=4)
    result = run(source, wav, tmp_path / "out.mp4", generator=Remembering())
    assert result.generated == 40
    faded = read_frames(tmp_path / "out.mp4")[1].astype(int)
    assert np.abs(faded - read_frames(source)[1])[(slice(None), *MOUTH)].mean((1, 2, 3)).max() < 6


def test_only_the_lower_face_changes(video: Path, wav: Path, tmp_path: Path) -> None:
    run(video, wav, tmp_path / "out.mp4")
    before, after = read_frames(video)[1], read_frames(tmp_path / "out.mp4")[1]
    change = np.abs(before.astype(int) - after).mean(axis=(0, 3))
    assert change[BROW].max() < 3
    assert change[MOUTH].min() > 10
    outside = np.ones((H, W), bool)
    outside[32:112, 48:112] = False
    assert change[outside].max() < 3
    edge = change[70:112, [48, 49, 110, 111]]
    assert edge.max() < 8, "the box has an edge"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_frame_rates_stay(tmp_path: Path, suffix: str) -> None:
    times_s = [0.0, *np.cumsum([1 / 30] * 10 + [0.05] * 10 + [1 / 50] * 25).tolist()]
    source, short = tmp_path / f"v{suffix}", write_wav(tmp_path / "s.wav", bursts(1.2))
    write_video(source, map(picture, range(len(times_s))), frame_times_s=times_s, crf=4)
    result = run(source, short, tmp_path / f"out{suffix}")
    times, frames = read_frames(tmp_path / f"out{suffix}")
    assert times == pytest.approx([t for t in times_s if t < 1.2], abs=0.0011)
    assert indices(frames) == list(range(len(times))) and result.frames == len(times)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_the_mouth_moves_on_while_a_picture_is_shown_for_long(tmp_path: Path, suffix: str) -> None:
    """Also where the clock has no finer ticks than frames, as in an AVI of 10 a second."""
    gaps = [0.04] * 15 + [0.4] + [0.04] * 9 if suffix == ".mp4" else [0.1] * 12
    times_s, n = [0.0, *np.cumsum(gaps).tolist()], len(gaps) + 1
    source, wav = tmp_path / f"v{suffix}", write_wav(tmp_path / "s.wav", bursts(1.3))
    if suffix == ".mp4":
        write_video(source, map(picture, range(n)), frame_times_s=times_s, crf=4)
    else:
        encode(source, map(picture, range(n)), codec="ffv1", rate=10)
    result = run(source, wav, tmp_path / "out.mp4")
    times, frames = read_frames(tmp_path / "out.mp4")
    assert "shown again meanwhile, for the mouth to move" in " ".join(result.notes)
    assert max(np.diff([*times, 1.3])) <= 0.0501 and result.generated == result.frames
    shown = indices(frames)
    assert [t for t, i, j in zip(times, shown, [-1, *shown], strict=False) if i != j] == (
        pytest.approx([t for t in times_s if t < 1.3], abs=0.0011)
    )
    held = 15 if suffix == ".mp4" else 6
    mouths = frames[(np.array(shown) == held, *MOUTH)].astype(int)
    assert len(mouths) == (10 if suffix == ".mp4" else 3)
    assert np.abs(np.diff(mouths, axis=0)).mean((1, 2, 3)).max() > 2


def test_at_twice_the_rate_neighbours_are_as_far_apart_as_the_generator_learnt(
    tmp_path: Path,
) -> None:
    """At 50 frames a second every other frame is a sequence; none is lost at a batch's borders."""
    heard: list[torch.Tensor] = []

    class Hearing(Painter):
        def forward(self, masked: torch.Tensor, reference: torch.Tensor, mel: torch.Tensor):
            heard.append(mel[0, :, 0])
            return super().forward(masked, reference, mel)

    wav = write_wav(tmp_path / "a.wav", bursts(1.6))
    results = []
    for fps in (25, 50):
        shown = (picture(i % 40) for i in range(fps * 8 // 5))
        source = write_video(tmp_path / f"{fps}.mp4", shown, fps=fps, crf=4)
        heard.clear()
        run(source, wav, tmp_path / f"out{fps}.mp4", generator=Hearing())
        # The piece of mel that one frame hears and the next one not: 1/25 s in either.
        pairs = [(a, b) for mels in heard for a, b in pairwise(mels)]
        same = [
            torch.equal(a[:, 3:], b[:, :-3]) or torch.equal(a[:, 4:], b[:, :-4]) for a, b in pairs
        ]
        assert all(same) and len(pairs) > 30
        results.append(read_frames(tmp_path / f"out{fps}.mp4")[1])
    slow, fast = results
    assert len(fast) == 80 and indices(fast) == [i % 40 for i in range(80)]
    difference = slow[(slice(2, 38), *MOUTH)].mean((1, 2, 3)) - fast[::2][
        (slice(2, 38), *MOUTH)
    ].mean((1, 2, 3))
    assert np.abs(difference).max() < 4


def test_other_frame_rates_and_late_starts_stay(wav: Path, tmp_path: Path) -> None:
    fps = Fraction(30000, 1001)
    source = tmp_path / "v.mp4"
    write_video(source, map(picture, range(40)), fps=fps, video_start_s=0.5, crf=4)
    painter = Painter()
    run(source, wav, tmp_path / "out.mp4", generator=painter)
    times, frames = read_frames(tmp_path / "out.mp4")
    assert times[:40] == pytest.approx([float(i / fps) for i in range(40)], abs=0.001)
    assert indices(frames[:40]) == list(range(40))
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert float(file.streams.video[0].average_rate) == pytest.approx(float(fps), rel=0.01)


def test_colours_stay_what_they_are_called(wav: Path, tmp_path: Path) -> None:
    """A frame that is not touched has the same YUV, under the same names."""
    source = tmp_path / "v.mp4"
    rng = np.random.default_rng(0)
    with av.open(str(source), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1
        context.color_range, context.options = 1, {"crf": "4"}
        context.sample_aspect_ratio = Fraction(4, 3)
        soft = cv2.resize(rng.integers(40, 200, (4, 5, 3), np.uint8), (W, H))
        for index in range(40):
            rgb = av.VideoFrame.from_ndarray(soft, format="rgb24")
            rgb.pts, rgb.time_base = index, Fraction(1, 25)
            file.mux(stream.encode(rgb.reformat(format="yuv420p", dst_colorspace=1)))
        file.mux(stream.encode(None))
    run(source, wav, tmp_path / "out.mp4")

    def luma(path: Path) -> tuple[np.ndarray, tuple[object, ...]]:
        with av.open(str(path)) as file:
            frame = next(file.decode(video=0))
            aspect = file.streams.video[0].sample_aspect_ratio
            tags = frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries
            return frame.to_ndarray()[:30].astype(int), (*tags, aspect)

    (before, tags), (after, same) = luma(source), luma(tmp_path / "out.mp4")
    assert tags == same == (1, 1, 1, 1, Fraction(4, 3))
    assert np.abs(before - after).mean() < 1 and abs((before - after).mean()) < 0.3


def test_a_recording_of_a_browser_has_the_rate_of_its_pictures(wav: Path, tmp_path: Path) -> None:
    """It says none, and its times are whole milliseconds, which FFmpeg takes for 1000 a second."""
    rng, source = np.random.default_rng(0), tmp_path / "v.mkv"
    times_s = [0.0, *(np.arange(1, 40) / 25 + rng.uniform(-0.008, 0.008, 39)).tolist()]
    write_video(source, map(picture, range(40)), frame_times_s=times_s, crf=4)
    data = bytearray(source.read_bytes())
    at = data.index(b"\x23\xe3\x83")  # the element of a frame's duration: made void
    data[at : at + 3] = bytes([0xEC, 0x80 | (2 + (data[at + 3] & 0x7F)), 0])
    source.write_bytes(data)
    assert PictureStream(source).fps is None
    generator, longer = Painter(), write_wav(tmp_path / "b.wav", bursts(2.4))
    result = run(source, longer, tmp_path / "out.mkv", extend="hold", generator=generator)
    assert 60 <= result.frames < 70  # what is shown for more than 50 ms is shown twice
    assert sum(generator.calls) < 200 and max(generator.calls) > 20
    times = np.array(read_frames(tmp_path / "out.mkv")[0])
    assert np.abs(times[:, None] - times_s).min(0).max() < 0.0011


def test_a_clock_that_jumps_ends_the_video_there(wav: Path, tmp_path: Path) -> None:
    times_s = [i / 25 + 36000 * (i >= 30) for i in range(40)]
    source = tmp_path / "v.mkv"
    write_video(source, map(picture, range(40)), frame_times_s=times_s, crf=4)
    result = run(source, wav, tmp_path / "out.mp4")
    assert result.frames == 40 and result.seconds == 1.6  # the last ten backwards
    assert any("timestamps jump by 36000 s" in note for note in result.notes)


@pytest.mark.parametrize(
    ("layout", "suffix", "channels"),
    [("5.1(side)", ".mp4", 6), ("5.1(side)", ".webm", 6), ("4.0", ".mkv", 4), ("4.0", ".webm", 2)],
)
def test_surround_sound_stays_or_is_said_not_to(
    video: Path, tmp_path: Path, layout: str, suffix: str, channels: int
) -> None:
    """Films' codecs name the speakers at the back as those at the side."""
    n = 6 if "5.1" in layout else 4
    source, rate = tmp_path / "a.mka", 48000
    with av.open(str(source), "w", format="matroska") as file:
        stream = file.add_stream("flac", rate=rate, layout=layout)
        sound = np.zeros((round(1.6 * rate), n), np.float32)
        sound[:, 0] = sound[:, -1] = bursts(1.6, rate)
        packed = (sound * 32767).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    result = run(video, source, tmp_path / f"out{suffix}")
    heard, _, _ = read_sound(tmp_path / f"out{suffix}")
    assert len(heard) == channels
    said = f"the sound's channels ({layout}) are mixed to stereo"
    assert result.notes == ((said,) if channels == 2 else ())
    if channels == n:
        assert np.abs(heard[-1]).max() > 0.2 and np.abs(heard[1]).max() < 0.05


def test_sound_that_is_no_number_is_silence(video: Path, tmp_path: Path) -> None:
    source, samples = tmp_path / "a.wav", bursts(1.6)
    samples[8000:8010] = [np.nan, np.inf] * 5
    with av.open(str(source), "w") as file:
        stream = file.add_stream("pcm_f32le", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    result = run(video, source, tmp_path / "out.mp4")
    assert f"{source}: sound: samples that are no finite numbers are silence" in result.notes
    sound, rate, _ = read_sound(tmp_path / "out.mp4")
    assert np.isfinite(sound).all() and rate == RATE


def test_the_voice_keeps_rate_and_channels(video: Path, tmp_path: Path) -> None:
    left, right = bursts(1.6, 44100), np.zeros(round(1.6 * 44100), np.float32)
    run(video, write_wav(tmp_path / "a.wav", left, right, rate=44100), tmp_path / "out.mp4")
    sound, rate, start_s = read_sound(tmp_path / "out.mp4")
    assert rate == 44100 and sound.shape[0] == 2
    assert np.abs(sound[0]).max() > 0.2 and np.abs(sound[1]).max() < 0.02
    assert abs(lag_s(sound[0], rate, left) + start_s) < 0.003


def test_aac_is_copied(video: Path, tmp_path: Path) -> None:
    """From a video with a picture of its own: not encoded twice, and not moved."""
    voice, sound = tmp_path / "voice.mp4", bursts(1.6, 22050)
    write_video(voice, map(picture, range(40)), audio=sound, sample_rate_hz=22050)
    run(video, voice, tmp_path / "out.mp4")

    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as file:
            return [bytes(p) for p in file.demux(audio=0) if p.size]

    assert packets(voice) == packets(tmp_path / "out.mp4")
    heard, rate, start_s = read_sound(tmp_path / "out.mp4")
    before, _, before_s = read_sound(voice)
    assert rate == 22050 and start_s == pytest.approx(before_s, abs=0.002)
    assert heard.shape == before.shape and np.abs(heard - before).max() < 1e-4


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_what_a_trim_hides_of_the_sound_stays_hidden(
    video: Path, tmp_path: Path, suffix: str
) -> None:
    """Trimmed without encoding anew: an edit list hides half a second of packets."""
    whole, trimmed = tmp_path / "whole.mp4", tmp_path / "trimmed.m4a"
    write_video(whole, map(picture, range(60)), audio=bursts(2.4))
    with av.open(str(whole)) as file, av.open(str(trimmed), "w", format="mp4") as out:
        source = file.streams.audio[0]
        copy = out.add_stream_from_template(source)
        for packet in file.demux(source):
            if packet.size:
                packet.pts -= round(0.5 / packet.time_base)
                packet.dts, packet.stream = packet.pts, copy
                out.mux(packet)
    result = run(video, trimmed, tmp_path / f"out{suffix}")
    assert result.seconds == pytest.approx(1.9, abs=0.07)
    sound, rate, start_s = read_sound(tmp_path / f"out{suffix}")
    assert sound.shape[1] / rate == pytest.approx(result.seconds, abs=0.14)
    with av.open(str(tmp_path / f"out{suffix}")) as file:
        assert next(file.decode(video=0)).time - start_s < 0.14  # two packets, of 64 ms


def test_damaged_aac_costs_no_more_than_the_damage(video: Path, tmp_path: Path) -> None:
    audio = tmp_path / "a.m4a"
    with av.open(str(audio), "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=RATE, layout="mono")
        for i, block in enumerate(np.split(bursts(1.6), 16)):
            frame = av.AudioFrame.from_ndarray(block[None], "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 1600 * i, Fraction(1, RATE)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with av.open(str(audio)) as file:
        packets = [(p.pos, p.size) for p in file.demux(audio=0) if p.size]
    raw, (at, size) = bytearray(audio.read_bytes()), packets[len(packets) // 2]
    raw[at : at + size] = np.random.default_rng(0).bytes(size)
    audio.write_bytes(raw)
    result = run(video, audio, tmp_path / "out.mp4")
    assert result.seconds == pytest.approx(1.6, abs=0.1)
    assert "sound: 1 damaged packet skipped" in result.notes[0]
    sound, rate, _ = read_sound(tmp_path / "out.mp4")
    assert sound.shape[1] / rate == pytest.approx(result.frames / 25, abs=0.1)


EIGHT = """
import sys
from pathlib import Path
from painted import bursts, picture, read_sound, run, write_wav
from syncdisc_plugin.media import decode, write_video
folder = Path(sys.argv[1])
video = write_video(folder / "v.mp4", map(picture, range(40)), crf=4)
audio = write_wav(folder / "a.wav", *[bursts(1.6)] * 7, 0 * bursts(1.6))
assert run(video, audio, folder / "out.mp4").generated == 40
sound, rate, _ = read_sound(folder / "out.mp4")
assert abs(sound.shape[1] / rate - 1.6) < 0.1 and sound.std() > 0.05, sound.shape
heard = decode(folder / "surround.mkv").audio
assert abs(heard.std() / bursts(1.6).std() - 7 / 8) < 0.02, heard.std()
"""


def test_eight_channels_are_heard(tmp_path: Path) -> None:
    """In a process of its own: such sound once ended it, without a word."""
    with av.open(str(tmp_path / "surround.mkv"), "w") as file:
        video = file.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        stream = file.add_stream("pcm_s16le", rate=RATE, layout="7.1")
        for i in range(40):
            picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            picture.pts, picture.time_base = i, Fraction(1, 25)
            file.mux(video.encode(picture))
        channels = np.stack([*[bursts(1.6)] * 7, 0 * bursts(1.6)], 1)
        packed = (channels * 32767).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout="7.1")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        file.mux(video.encode(None))
    done = subprocess.run(
        [sys.executable, "-c", EIGHT, str(tmp_path)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_voice_that_starts_late_in_its_video_starts_late(video: Path, tmp_path: Path) -> None:
    voice = tmp_path / "voice.mkv"
    write_video(voice, map(picture, range(40)), audio=bursts(1.2), audio_start_s=0.4)
    result = run(video, voice, tmp_path / "out.mp4")
    assert result.seconds == pytest.approx(1.6, abs=0.07)
    mouths = read_frames(tmp_path / "out.mp4")[1][(slice(None), *MOUTH)].mean((1, 2, 3))
    assert np.ptp(mouths[:6]) < 4 and np.ptp(mouths[8:]) > 15
    sound, rate, start_s = read_sound(tmp_path / "out.mp4")
    assert abs(lag_s(sound[0], rate, bursts(1.2)) + start_s - 0.4) < 0.02 or start_s > 0.3


# --- lengths


def test_a_longer_sound_plays_the_video_back_and_forth(tmp_path: Path) -> None:
    source = write_video(tmp_path / "v.mp4", map(picture, range(40)), crf=4)
    audio = write_wav(tmp_path / "a.wav", bursts(4.0))
    result = run(source, audio, tmp_path / "out.mp4")
    times, frames = read_frames(tmp_path / "out.mp4")
    assert times == pytest.approx([i / 25 for i in range(100)], abs=0.001)
    there = list(range(40))
    assert indices(frames) == (there + there[-2::-1] + there[1:])[:100]
    assert result.generated == 100
    assert "2.40 s longer than the video: it is played back and forth" in result.notes[0]


def test_backwards_in_stretches_and_with_its_own_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from generator_integration.reference import playback

    monkeypatch.setattr(playback, "REVERSE_BYTES", 1)  # eight frames at a time
    steps = [0.02, 0.03, 0.05, 0.04] * 9
    times_s = [0.0, *np.cumsum(steps).tolist()]
    write_video(
        tmp_path / "v.mkv", map(picture, range(37)), frame_times_s=times_s, video_start_s=1.0, crf=4
    )
    audio = write_wav(tmp_path / "a.wav", bursts(2.5))
    run(tmp_path / "v.mkv", audio, tmp_path / "out.mkv")
    times, frames = read_frames(tmp_path / "out.mkv")
    turned = [2 * times_s[-1] - t for t in times_s[-2::-1]]
    wanted = [t for t in times_s + turned if t < 2.5]
    assert times == pytest.approx(wanted, abs=0.0011)
    assert indices(frames) == [*range(37), *range(35, -1, -1)][: len(wanted)]


def test_a_longer_sound_may_hold_the_last_frame(video: Path, tmp_path: Path) -> None:
    audio = write_wav(tmp_path / "a.wav", bursts(2.4))
    result = run(video, audio, tmp_path / "out.mp4", extend="hold")
    times, frames = read_frames(tmp_path / "out.mp4")
    assert times == pytest.approx([i / 25 for i in range(60)], abs=0.001)
    assert indices(frames) == [*range(40), *[39] * 20]
    assert "its last frame is held" in result.notes[0]
    assert np.ptp(frames[(slice(40, None), *MOUTH)].mean((1, 2, 3))) > 10, "held lips"


@pytest.mark.parametrize("extend", ["hold", "pingpong"])
def test_the_last_frame_of_another_rate_speaks(tmp_path: Path, extend: str) -> None:
    """61 frames at 30 fps: the last one is shown on a tick of 1/25 s that is not over with it."""
    source = write_video(tmp_path / "v.mp4", (picture(i % 40) for i in range(61)), fps=30, crf=8)
    audio = write_wav(tmp_path / "a.wav", bursts(4.0))
    result = run(source, audio, tmp_path / "out.mp4", extend=extend)
    assert result.generated == result.frames == 120
    frames = read_frames(tmp_path / "out.mp4")[1]
    assert np.ptp(frames[(slice(61, None), *MOUTH)].mean((1, 2, 3))) > 10


def test_a_shorter_sound_cuts_the_video(video: Path, tmp_path: Path) -> None:
    audio = write_wav(tmp_path / "a.wav", bursts(1.0))
    result = run(video, audio, tmp_path / "out.mp4")
    assert len(read_frames(tmp_path / "out.mp4")[0]) == result.frames == 25
    assert "0.60 s shorter than the video" in result.notes[0]


# --- sources


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_photograph(wav: Path, tmp_path: Path, suffix: str) -> None:
    photo = tmp_path / f"photo{suffix}"
    cv2.imwrite(str(photo), picture(10)[..., ::-1])
    result = run(photo, wav, tmp_path / "out.mp4")
    times, frames = read_frames(tmp_path / "out.mp4")
    assert times == pytest.approx([i / 25 for i in range(40)], abs=0.001)
    assert result.frames == result.generated == 40
    assert indices(frames) == [10] * 40
    assert np.ptp(frames[(slice(None), *MOUTH)].mean((1, 2, 3))) > 10
    assert np.abs(frames[5].astype(int) - picture(10)).mean(-1)[:30].mean() < 4


def test_what_is_transparent_is_white(wav: Path, tmp_path: Path) -> None:
    """A portrait that was cut out is not left on black."""
    photo = tmp_path / "p.png"
    cut_out = np.dstack([picture(10)[..., ::-1], np.full((H, W), 255, np.uint8)])
    cut_out[:, 120:, 3] = 0
    cut_out[:24, :24, 3] = 128
    cv2.imwrite(str(photo), cut_out)
    result = run(photo, wav, tmp_path / "out.mp4")
    assert result.notes == ("what is transparent in the photograph is white",)
    frames = read_frames(tmp_path / "out.mp4")[1]
    assert frames[:, 4:100, 124:].min() > 240
    assert abs(frames[:, 4:20, 4:20].mean() - (56 + 255) / 2) < 4


def test_that_ten_bits_become_eight_is_said(wav: Path, tmp_path: Path) -> None:
    source = tmp_path / "v.mkv"
    encode(source, map(picture, range(40)), codec="ffv1", form="yuv420p10le")
    result = run(source, wav, tmp_path / "out.mp4")
    assert result.notes == ("the video has 10 bits a colour, the output 8",)


def test_that_interlaced_footage_keeps_its_combs_is_said(wav: Path, tmp_path: Path) -> None:
    source = tmp_path / "v.mp4"
    options = {"x264-params": "interlaced=1"}
    encode(source, map(picture, range(40)), codec="libx264", options=options)
    (note,) = run(source, wav, tmp_path / "out.mp4").notes
    assert note.startswith("the video is interlaced, the output is not")


def test_what_is_transparent_in_a_video_is_white(wav: Path, tmp_path: Path) -> None:
    source = tmp_path / "v.mov"
    solid = np.full((H, W, 1), 255, np.uint8)
    solid[:, 120:140] = 0
    images = (np.concatenate([solid, picture(index)], axis=2) for index in range(40))
    encode(source, images, codec="qtrle", form="argb", given="argb")
    result = run(source, wav, tmp_path / "out.mp4")
    assert result.notes == ("what is transparent in the video is white",)
    _, frames = read_frames(tmp_path / "out.mp4")
    assert frames[:, 4:100, 124:136].min() > 240 and indices(frames) == list(range(40))


def test_a_large_photograph_is_shrunk(wav: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "p.jpg"), np.full((1200, 3840, 3), 128, np.uint8))
    short = write_wav(tmp_path / "s.wav", bursts(0.2))
    result = run(tmp_path / "p.jpg", short, tmp_path / "out.mp4")
    assert (result.width, result.height) == (1920, 600)
    assert "shrunk from 3840x1200 to 1920x600" in result.notes[-1]


@pytest.mark.skipif(
    not hasattr(av.VideoStream, "set_display_rotation"), reason="this PyAV cannot write rotation"
)
@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_phones_video_is_upright(wav: Path, tmp_path: Path, turn: int) -> None:
    stored = [np.rot90(picture(i), -turn // 90) for i in range(40)]
    with av.open(str(tmp_path / "v.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.height, stream.width = stored[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.set_display_rotation(turn)
        for image in stored:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    result = run(tmp_path / "v.mp4", wav, tmp_path / "out.mp4")
    assert (result.width, result.height) == (W, H)
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert next(file.decode(video=0)).rotation == 0
    frames = read_frames(tmp_path / "out.mp4")[1]
    assert indices(frames) == list(range(40))
    assert np.ptp(frames[(slice(None), *MOUTH)].mean((1, 2, 3))) > 10


def test_odd_sides_keep_the_whole_frame(wav: Path, tmp_path: Path) -> None:
    image = picture(3, hw=(H + 1, W + 1))
    cv2.imwrite(str(tmp_path / "p.png"), image[..., ::-1])
    result = run(tmp_path / "p.png", wav, tmp_path / "out.mp4")
    assert (result.width, result.height) == (W + 2, H + 2)
    assert "161x129 becomes 162x130" in result.notes[0]
    frames = read_frames(tmp_path / "out.mp4")[1]
    assert np.abs(frames[0, : H + 1, : W + 1].astype(int) - image)[:30].mean() < 4


# --- faces


def test_frames_without_the_face_pass(wav: Path, tmp_path: Path) -> None:
    pictures = [picture(i, has_face=10 <= i < 30) for i in range(40)]
    source = write_video(tmp_path / "v.mp4", pictures, crf=4)
    from syncdisc_plugin.data.prepare import PrepareSettings
    from syncdisc_plugin.faces import TrackSettings

    settings = PrepareSettings(track=TrackSettings(every=1, min_frames=10))
    result = run(source, wav, tmp_path / "out.mp4", settings=settings)
    assert result.frames == 40 and result.generated == 20
    assert "20 frames do not show face 0 and stay as they are" in result.notes[-1]
    before, after = read_frames(source)[1].astype(int), read_frames(tmp_path / "out.mp4")[1]
    change = np.abs(before - after).mean(axis=(1, 2, 3))
    assert change[[*range(10), *range(30, 40)]].max() < 1.5
    assert np.abs(before - after)[(slice(10, 30), *MOUTH)].mean((1, 2, 3)).min() > 5


@pytest.mark.parametrize("face", [None, 0, 1])
def test_one_of_two_faces(video: Path, wav: Path, tmp_path: Path, face: int | None) -> None:
    result = run(video, wav, tmp_path / "out.mp4", face=face, detect=Marked(LEFT, RIGHT))
    before, after = read_frames(video)[1].astype(int), read_frames(tmp_path / "out.mp4")[1]
    change = np.abs(before - after).mean((0, 3))
    is_left = face == 0
    assert result.faces == ((0,) if is_left else (1,))
    assert (change[75:90, 34:46].mean() > 8) == is_left
    assert (change[78:95, 112:128].mean() > 8) != is_left
    assert "2 faces: face 0 at 0.00 s for 1.60 s, 54 px; face 1" in result.notes[0]


# --- refused


def refused(error: type[Exception], match: str, tmp_path: Path, *args: object, **options: object):
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(error, match=match):
        run(*args, **options)  # type: ignore[arg-type]
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_what_is_refused(video: Path, wav: Path, tmp_path: Path) -> None:
    out, gone = tmp_path / "out.mp4", tmp_path / "gone.mp4"
    empty, noise = tmp_path / "empty.wav", tmp_path / "noise.mp4"
    empty.touch()
    (tmp_path / "folder.mp4").mkdir()
    noise.write_bytes(bytes(range(256)) * 40)
    media = [
        ("gone.mp4: no such file", (gone, wav, out)),
        ("gone.mp4: no such file", (video, gone, out)),
        ("empty.wav: the file is empty", (video, empty, out)),
        ("noise.mp4: cannot be read", (noise, wav, out)),
        ("noise.mp4: cannot be read", (video, noise, out)),
        ("v.mp4: no audio stream", (video, video, out)),
        ("a.wav: no video stream", (wav, wav, out)),
        ("cannot write .avi. Use .mp4", (video, wav, tmp_path / "out.avi")),
        ("folder.mp4: is a folder", (video, wav, tmp_path / "folder.mp4")),
        ("nothing can be written there", (video, wav, wav / "below" / "out.mp4")),
        ("nothing can be written there", (video, wav, tmp_path / f"{'y' * 246}.mp4")),
        ("is the video itself", (video, wav, video)),
        ("is the audio itself", (video, wav, tmp_path / "a.wav")),
    ]
    for match, args in media:
        refused(MediaError, match, tmp_path, *args)
    refused(ValueError, "extend: expected one of pingpong, hold, got 'loop'", tmp_path,
            video, wav, out, extend="loop")  # fmt: skip
    refused(ValueError, "crf: expected 0", tmp_path, video, wav, out, crf=60)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    refused(MediaError, "bad.png: cannot be read as a photograph", tmp_path, bad, wav, out)


def test_no_face(video: Path, wav: Path, tmp_path: Path) -> None:
    def nobody(image: np.ndarray) -> np.ndarray:
        return np.zeros((0, 5), np.float32)

    out = tmp_path / "out.mp4"
    refused(FaceError, "v.mp4: no face in 40 frames", tmp_path, video, wav, out, detect=nobody)
    photo = tmp_path / "p.png"
    cv2.imwrite(str(photo), picture(0))
    refused(FaceError, "no face in the photograph", tmp_path, photo, wav, out, detect=nobody)
    match = r"face: expected one of \[0\], got 7. There are: face 0 at 0.00 s"
    refused(FaceError, match, tmp_path, video, wav, out, face=7)


def test_a_face_that_comes_after_the_sound(tmp_path: Path) -> None:
    pictures = (picture(i, has_face=i >= 25) for i in range(60))
    source = write_video(tmp_path / "v.mp4", pictures)
    audio = write_wav(tmp_path / "a.wav", bursts(0.5))
    refused(FaceError, "is not seen while the sound lasts", tmp_path,
            source, audio, tmp_path / "out.mp4")  # fmt: skip


def test_silence_is_said(video: Path, tmp_path: Path) -> None:
    audio = write_wav(tmp_path / "a.wav", np.zeros(round(1.6 * RATE), np.float32))
    result = run(video, audio, tmp_path / "out.mp4")
    assert result.generated == 40 and "the sound is silent" in result.notes[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_behind(
    video: Path, wav: Path, tmp_path: Path, error: type[BaseException]
) -> None:
    class Stopping(Painter):
        def forward(self, *args: torch.Tensor):
            if len(self.calls) == 1:
                raise error
            return super().forward(*args)

    out = tmp_path / "out.mp4"
    out.write_bytes(b"of yesterday")
    with pytest.raises(error):
        run(video, wav, out, generator=Stopping())
    assert out.read_bytes() == b"of yesterday"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "out.mp4", "v.mp4"]


def test_faces_are_cut_as_the_generator_learnt_whatever_it_runs_on(
    video: Path, wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By YuNet's boxes, where "auto" is another detector on a GPU; one that is named stays."""
    from syncdisc_plugin.data.prepare import PrepareSettings

    asked: list[str] = []

    def load(name: str, **_: object) -> Marked:
        asked.append(name)
        return Marked()

    monkeypatch.setattr("syncdisc_plugin.faces.load_detector", load)
    for settings in (None, PrepareSettings(detector="lbp")):
        run(video, wav, tmp_path / "out.mp4", detect=None, settings=settings)
    assert asked == ["yunet", "lbp"]
