"""The sound must move by exactly what was asked, and nothing else at all."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from test_media import mux, tone

from syncdisc_plugin.errors import MediaError
from syncdisc_plugin.media import decode, move_audio, write_video

RATE = 16000
MOVES_S = [0.0, 0.2, -0.2, 0.0334, -0.0334]
# Matroska rounds to 1 ms: the move, and the packet that is the first one behind a cut.
MATROSKA_S = 0.00151


def write(path: Path, n_frames: int = 50, **more: Any) -> Path:
    rng = np.random.default_rng(0)
    smooth = np.convolve(rng.standard_normal(n_frames * 640), np.hanning(9) / 4, "same")
    frames = (np.full((64, 64, 3), (7 * i) % 256, np.uint8) for i in range(n_frames))
    return write_video(path, frames, audio=(0.2 * smooth).astype(np.float32), **more)


def moved_s(before: Path, after: Path) -> float:
    """How much later the sound is against the first picture, by its waveform."""
    first, second = decode(before), decode(after)
    x, y = first.audio, second.audio
    size = 1 << (len(x) + len(y)).bit_length()
    match = np.fft.irfft(np.fft.rfft(y, size) * np.conj(np.fft.rfft(x, size)), size)
    lag = int(match.argmax())
    # It is the same sound, and not the best of many bad matches.
    assert match[lag] > 0.8 * min(float(x @ x), float(y @ y))
    lag -= size if lag > size // 2 else 0
    starts_s = [r.start_s - r.source.video_start_s for r in (first, second)]
    return lag / RATE + starts_s[1] - starts_s[0]


def packets(path: Path, kind: str) -> list[tuple[float, bytes]]:
    """Time and content of each packet, in order of time."""
    with av.open(str(path)) as file:
        stream = getattr(file.streams, kind)[0]
        found = [(float(p.pts * p.time_base), bytes(p)) for p in file.demux(stream) if p.size]
    return sorted(found)


@pytest.mark.parametrize("seconds", MOVES_S)
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_containers(tmp_path: Path, suffix: str, seconds: float) -> None:
    source = write(tmp_path / f"a{suffix}")
    out = move_audio(source, tmp_path / f"b{suffix}", seconds)
    assert moved_s(source, out) == pytest.approx(seconds, abs=MATROSKA_S)
    if suffix in (".mp4", ".mov"):
        assert moved_s(source, out) == pytest.approx(seconds, abs=1e-4)
    assert sorted(p.name for p in tmp_path.iterdir()) == [source.name, out.name]


@pytest.mark.parametrize("late", [{"video_start_s": 0.12}, {"audio_start_s": 0.3}], ids=str)
@pytest.mark.parametrize(
    "suffixes", [(".mp4", ".mp4"), (".mkv", ".mkv"), (".mp4", ".mkv"), (".mkv", ".mp4")], ids=str
)
def test_streams_that_start_late(
    tmp_path: Path, suffixes: tuple[str, str], late: dict[str, float]
) -> None:
    source = write(tmp_path / f"a{suffixes[0]}", **late)
    for seconds in (0.2, -0.2):
        out = move_audio(source, tmp_path / f"b{suffixes[1]}", seconds)
        assert moved_s(source, out) == pytest.approx(seconds, abs=MATROSKA_S)


@pytest.mark.parametrize("suffix", [".ts", ".avi", ".webm", ".mov"])
def test_other_sources(tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / f"a{suffix}")
    for seconds in (0.2, -0.2):
        out = move_audio(source, tmp_path / "b.mkv", seconds)
        assert moved_s(source, out) == pytest.approx(seconds, abs=MATROSKA_S)
        assert decode(out).source.video_start_s < 0.07, "a clock that starts late starts at 0"


@pytest.mark.parametrize("seconds", [0.2, -0.2])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_frame_rate(tmp_path: Path, suffix: str, seconds: float) -> None:
    times_s = [0.0, *np.cumsum([1 / 30] * 15 + [1 / 10] * 5 + [1 / 50] * 29)]
    source = write(tmp_path / f"a{suffix}", frame_times_s=times_s)
    out = move_audio(source, tmp_path / f"b{suffix}", seconds)
    assert moved_s(source, out) == pytest.approx(seconds, abs=MATROSKA_S)
    assert packets(out, "video") == packets(source, "video")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_nothing_is_encoded_anew(tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / f"a{suffix}")
    sound = packets(source, "audio")
    for seconds in (0.2, -0.2):
        out = move_audio(source, tmp_path / f"b{suffix}", seconds)
        assert packets(out, "video") == packets(source, "video")
        kept = packets(out, "audio")
        assert [data for _, data in kept] == [data for _, data in sound[-len(kept) :]]
        # A cut takes what lay before it, and no more than a packet beyond.
        longest_s = max(b - a for (a, _), (b, _) in pairwise(sound))
        assert len(sound) - len(kept) <= max(0.0, -seconds) / longest_s + 1


def test_the_cut_is_exact_where_an_edit_list_can_say_it(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4")
    out = decode(move_audio(source, tmp_path / "b.mp4", -0.1))
    assert out.source.audio_start_s == 0
    original = decode(source).audio[1600:]
    n = min(len(original), len(out.audio)) - 2000
    np.testing.assert_allclose(out.audio[:n], original[:n], atol=2e-3)


def test_all_sound_tracks_tags_and_rotation(tmp_path: Path) -> None:
    mux(tmp_path / "a.mkv", [(tone(2, 5),) * 2, (tone(2, 1.2),) * 2], "aac", default=1)
    with av.open(str(move_audio(tmp_path / "a.mkv", tmp_path / "b.mkv", 0.2))) as file:
        defaults = [bool(s.disposition & av.stream.Disposition.default) for s in file.streams.audio]
    assert defaults == [False, True]
    assert moved_s(tmp_path / "a.mkv", tmp_path / "b.mkv") == pytest.approx(0.2, abs=1e-3)

    source = tmp_path / "c.mp4"
    mux(source, [(tone(1, 0.5),) * 2], "aac", turn=90)
    tagged = tmp_path / "d.mp4"
    with av.open(str(source)) as file, av.open(str(tagged), "w") as out:
        streams = [out.add_stream_from_template(s, opaque=True) for s in file.streams]
        out.metadata["title"] = "a talk"
        streams[1].metadata["language"] = "deu"
        span = {"id": 1, "start": 0, "end": 900, "time_base": Fraction(1, 1000)}
        out.set_chapters([{**span, "metadata": {"title": "hello"}}])
        for packet in file.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    move_audio(tagged, tmp_path / "e.mp4", -0.2)
    turned = decode(tmp_path / "e.mp4").source
    assert (turned.rotation_deg, turned.width, turned.height) == (90, 64, 96)
    with av.open(str(tmp_path / "e.mp4")) as file:
        assert file.metadata["title"] == "a talk"
        assert file.streams.audio[0].metadata["language"] == "deu"
        (chapter,) = file.chapters()
        assert chapter["metadata"]["title"] == "hello"
        assert chapter["end"] * chapter["time_base"] == pytest.approx(0.9, abs=0.01)


@pytest.mark.skipif("libx265" not in av.codecs_available, reason="this PyAV cannot write HEVC")
def test_hevc_stays_playable_on_apples_players(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        video = out.add_stream("libx265", rate=25, options={"x265-params": "log-level=none"})
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        video.codec_context.codec_tag = "hvc1"
        audio = out.add_stream("aac", rate=RATE, layout="mono")
        for i in range(10):
            out.mux(video.encode(av.VideoFrame(64, 64, "yuv420p")))
            sound = av.AudioFrame.from_ndarray(tone(0.04, 0)[None], format="fltp", layout="mono")
            sound.sample_rate, sound.pts = RATE, 640 * i
            out.mux(audio.encode(sound))
        out.mux([*video.encode(None), *audio.encode(None)])
    for suffix in (".mp4", ".mov"):
        with av.open(str(move_audio(tmp_path / "a.mp4", tmp_path / f"b{suffix}", 0.2))) as file:
            assert file.streams.video[0].codec_context.codec_tag == "hvc1"


def test_subtitles_stay_with_the_picture(tmp_path: Path) -> None:
    words = tmp_path / "words.srt"
    words.write_text("1\n00:00:00,500 --> 00:00:01,500\nhello\n")
    source, titled = write(tmp_path / "a.mkv"), tmp_path / "titled.mkv"
    with (
        av.open(str(source)) as file,
        av.open(str(words)) as text,
        av.open(str(titled), "w") as out,
    ):
        streams = [
            out.add_stream_from_template(s, opaque=True) for s in (*file.streams, *text.streams)
        ]
        for shift, read in ((2, text), (0, file)):
            for packet in read.demux():
                if packet.size:
                    packet.stream = streams[packet.stream.index + shift]
                    out.mux(packet)
    for seconds in (0.2, -0.2):
        move_audio(titled, tmp_path / "b.mkv", seconds)
        assert packets(tmp_path / "b.mkv", "subtitles") == [(0.5, b"hello")]
        move_audio(titled, tmp_path / "b.mp4", seconds)  # which cannot hold this kind
        assert not av.open(str(tmp_path / "b.mp4")).streams.subtitles


def test_a_stream_that_nothing_here_decodes_is_left_out(tmp_path: Path) -> None:
    test_subtitles_stay_with_the_picture(tmp_path)
    odd = (tmp_path / "titled.mkv").read_bytes().replace(b"S_TEXT/UTF8", b"S_ARIBSUB\0\0")
    (tmp_path / "odd.mkv").write_bytes(odd)
    with av.open(str(tmp_path / "odd.mkv")) as file:
        assert [s.codec_context for s in file.streams if s.type == "subtitle"] == [None]
    move_audio(tmp_path / "odd.mkv", tmp_path / "b.mkv", 0.2)
    assert moved_s(tmp_path / "odd.mkv", tmp_path / "b.mkv") == pytest.approx(0.2, abs=MATROSKA_S)


@pytest.mark.parametrize("seconds", [0.2, -0.2, 0.03])
def test_a_clock_of_one_tick_a_packet(tmp_path: Path, seconds: float) -> None:
    noise = np.random.default_rng(0).standard_normal((2, 3 * RATE)).astype(np.float32) / 8
    mux(tmp_path / "a.avi", [noise], "libmp3lame")
    with av.open(str(tmp_path / "a.avi")) as file:
        assert file.streams.audio[0].time_base > Fraction(1, 100)
    for suffix in (".mp4", ".mkv"):
        out = move_audio(tmp_path / "a.avi", tmp_path / f"b{suffix}", seconds)
        assert moved_s(tmp_path / "a.avi", out) == pytest.approx(seconds, abs=MATROSKA_S)


def test_damaged_sound_is_left_out(tmp_path: Path) -> None:
    """Packets that have lost their header, which Matroska wants to know."""
    source = write(tmp_path / "a.ts", 75)
    whole = bytearray(source.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 2000] = np.random.default_rng(1).bytes(2000)
    (tmp_path / "hole.ts").write_bytes(whole)
    out = move_audio(tmp_path / "hole.ts", tmp_path / "b.mkv", 0.2)
    assert moved_s(source, out) == pytest.approx(0.2, abs=MATROSKA_S)
    missing = len(packets(source, "audio")) - len(packets(out, "audio"))
    assert 0 < missing < 10


def test_a_clock_that_goes_back_is_the_sources(tmp_path: Path) -> None:
    source = write(tmp_path / "a.ts")
    (tmp_path / "joined.ts").write_bytes(2 * source.read_bytes())
    words = r"joined\.ts: its (video|audio) cannot be copied from .* s on: timestamps go back"
    with pytest.raises(MediaError, match=words):
        move_audio(tmp_path / "joined.ts", tmp_path / "b.mkv", 0.2)


def test_refusals(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", 25)
    (tmp_path / "folder.mkv").mkdir()
    (tmp_path / "text.mp4").write_text("no video\n" * 200)
    write_video(tmp_path / "mute.mp4", [np.zeros((64, 64, 3), np.uint8)] * 5)
    there = sorted(tmp_path.iterdir())
    refused: list[tuple[str, str, float, str]] = [
        ("a.mp4", "a.mp4", 0.1, "the source itself"),
        ("a.mp4", "b.avi", 0.1, r"expected a file that ends in .*\.mkv.*got .*b\.avi"),
        ("a.mp4", "b", 0.1, "expected a file that ends in"),
        ("a.mp4", "gone/b.mp4", 0.1, "gone is not a folder"),
        ("a.mp4", "folder.mkv", 0.1, "is a folder"),
        ("a.mp4", "b.webm", 0.1, r"b\.webm: cannot hold h264 \(video\)"),
        ("a.mp4", "b.mp4", -30, "-30 leaves no sound"),
        ("mute.mp4", "b.mp4", 0.1, "no picture, or no sound"),
        ("text.mp4", "b.mp4", 0.1, r"text\.mp4: cannot be read as a video"),
        ("gone.mp4", "b.mp4", 0.1, r"gone\.mp4: .*No such file"),
    ]
    for name, target, seconds, words in refused:
        with pytest.raises(MediaError, match=words) as caught:
            move_audio(tmp_path / name, tmp_path / target, seconds)
        assert "\n" not in str(caught.value)
    for seconds in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="seconds: expected a finite number"):
            move_audio(source, tmp_path / "b.mp4", seconds)
    assert sorted(tmp_path.iterdir()) == there, "a refused move leaves nothing"


def test_an_existing_target_is_replaced(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", 25)
    (tmp_path / "b.mp4").write_text("old")
    assert decode(move_audio(str(source), str(tmp_path / "b.mp4"), 0.04)).source.width == 64


def test_a_phones_tags_and_the_frame_rate_stay(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", fps=Fraction(30000, 1001))
    place = "com.apple.quicktime.location.ISO6709"
    options = {"movflags": "use_metadata_tags"}
    with (
        av.open(str(tmp_path / "a.mp4")) as file,
        av.open(str(tmp_path / "phone.mov"), "w", container_options=options) as out,
    ):
        streams = [out.add_stream_from_template(s, opaque=True) for s in file.streams]
        out.metadata.update({place: "+52.5+013.4/", "title": "a talk"})
        for packet in file.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    for name in ("b.mov", "b.mp4", "b.mkv"):
        with av.open(str(move_audio(tmp_path / "phone.mov", tmp_path / name, 0.1))) as file:
            tags = {key.lower(): value for key, value in file.metadata.items()}
            assert tags[place.lower()] == "+52.5+013.4/" and tags["title"] == "a talk"
            assert "major_brand" not in tags or name.endswith((".mov", ".mp4"))
            assert float(file.streams.video[0].average_rate) == pytest.approx(29.97, abs=0.01)
