"""Move the sound of a video against its picture; every packet is copied, nothing is re-encoded."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container.core import Flags
from av.error import ArgumentError, FFmpegError, InvalidDataError
from av.stream import Disposition

from syncdisc_plugin.errors import MediaError
from syncdisc_plugin.media.container import opened, trimmed_s

# Only these keep a timestamp for every packet, so that nothing but the sound moves.
CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
}
# Their edit list hides what lies before the start.
EDIT_LIST = ("mp4", "mov")
# A longer beginning that it hides is no rounding of a cut: somebody wanted it gone.
_HIDDEN_S = Fraction(1, 10)
# Sound whose clock ticks more slowly, as that of MP3 in AVI does once in a packet, gets another.
_COARSE_S, _FINE_S = Fraction(1, 1000), Fraction(1, 90_000)
# A late start is rounded to the movie's clock, which is 1 ms unless it is told otherwise.
_MOVIE = {"movie_timescale": "90000", "movflags": "+faststart"}
# Tags that MP4 has a place of its own for; others, such as where a phone filmed, need a list.
# fmt: off
_USUAL_TAGS = frozenset((
    "title", "artist", "album", "album_artist", "author", "comment", "composer", "copyright",
    "creation_time", "date", "description", "encoder", "genre", "grouping", "lyrics", "synopsis",
    "track",
))
# fmt: on
_BRAND_TAGS = ("major_brand", "minor_version", "compatible_brands")  # the container's own


def move_audio(
    source: str | os.PathLike[str], target: str | os.PathLike[str], seconds: float | Fraction
) -> Path:
    """Copy `source` to `target` with all sound `seconds` later; wholly or not at all.

    Timestamps are exact to the tick of the containers (Matroska's is 1 ms), and only as good as
    the source's (AVI has none). Sound that would lie before the file's start is cut: to the sample
    in MP4 and MOV, else to the packet (20 to 65 ms). Picture, subtitles, chapters, tags and
    rotation stay. Subtitles of a kind that `target` cannot hold, cover art, data and what
    FFmpeg knows no decoder for are left out.

    Args:
        source: A video with sound.
        target: Where to write; an existing file is replaced. Its suffix picks the container.
        seconds: > 0: the sound is heard later, as early sound needs; < 0: sooner.

    Raises:
        ValueError: `seconds` is not finite.
        MediaError: A target that cannot be written, or cannot hold these codecs, or would show
            what an edit list hides; a source that cannot be read, or has no sound, or none left.
    """
    source, target = Path(source), Path(target)
    if not math.isfinite(seconds):
        raise ValueError(f"seconds: expected a finite number, got {seconds}.")
    check_target(source, target)
    # Hidden, so that a scan of the folder does not meet a half-written video.
    temp = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}{target.suffix}")
    try:
        with opened(source) as file:
            file.flags |= Flags.gen_pts.value
            _copy(file, source, target, temp, Fraction(seconds))
        os.replace(temp, target)
    finally:
        temp.unlink(missing_ok=True)
    return target


def check_target(source: Path, target: Path) -> None:
    """Refuse a target that `move_audio` could not write. Raises MediaError."""
    if target.suffix.lower() not in CONTAINERS:
        raise MediaError(
            f"target: expected a file that ends in {', '.join(CONTAINERS)}, got {target}. "
            "Matroska (.mkv) holds nearly every codec."
        )
    if not target.parent.is_dir():
        raise MediaError(f"target: {target.parent} is not a folder. Make it first.")
    if target.is_dir():
        raise MediaError(f"target: {target} is a folder. Give the name of a file.")
    if target.exists() and source.exists() and target.samefile(source):
        raise MediaError(f"target: {target} is the source itself. Give another name.")


def _copy(file: Any, source: Path, target: Path, temp: Path, seconds: Fraction) -> None:
    """Write all packets of the open `file` to `temp`, those of sound `seconds` later."""
    name = CONTAINERS[target.suffix.lower()]
    tags = {k: v for k, v in file.metadata.items() if k not in _BRAND_TAGS}
    options = dict(_MOVIE) if name in EDIT_LIST else {}
    if options and {k.lower() for k in tags} - _USUAL_TAGS:
        options["movflags"] += "+use_metadata_tags"
    # A clock that starts late as a whole, as broadcasts' do, starts at 0.
    start_s = Fraction(max(0, file.start_time or 0), av.time_base)
    with (
        _writing(target),
        av.open(os.path.abspath(temp), "w", format=name, container_options=options) as out,
    ):
        streams = {s.index: _add(out, s, target) for s in file.streams if _is_wanted(out, s)}
        kinds = [file.streams[index].type for index in streams]
        if "video" not in kinds or "audio" not in kinds:
            raise MediaError(f"{source}: no picture, or no sound. Give a file with both.")
        out.metadata.update(tags)
        out.set_chapters([_earlier(chapter, start_s) for chapter in file.chapters()])
        out.start_encoding()
        # What FFmpeg shows too early of a trimmed file goes where it belongs.
        later = {"audio": seconds, "video": Fraction(trimmed_s(source))}
        moved = {i: later.get(file.streams[i].type, Fraction(0)) - start_s for i in streams}
        heard = 0
        edges: dict[int, Fraction] = {}
        ends: dict[int, Fraction] = {}  # of the sources' packets that were written
        for packet in _packets(file, source, streams):
            stream = packet.stream
            is_hidden = packet.is_discard and packet.pts * packet.time_base < -_HIDDEN_S
            if stream.type == "video" and is_hidden and name not in EDIT_LIST:
                raise MediaError(
                    f"{target}: would show what was cut off the beginning of {source}, whose edit "
                    "list only hides it. Give a file that ends in .mp4 or .mov."
                )
            is_sound = stream.type == "audio"
            if is_sound and not _is_in_time(packet, moved[stream.index], edges, name in EDIT_LIST):
                continue
            if is_sound and packet.time_base > _COARSE_S:
                _refine(packet)
            time_s = (packet.pts if packet.dts is None else packet.dts) * packet.time_base
            ticks = round(moved[stream.index] / packet.time_base)
            packet.pts += ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
            packet.stream = streams[stream.index]
            try:
                out.mux_one(packet)
            except InvalidDataError:  # damaged: no player could decode it either
                continue
            except ArgumentError as exc:
                if stream.index not in ends or time_s > ends[stream.index]:
                    raise
                raise MediaError(
                    f"{source}: its {stream.type} cannot be copied from {float(time_s):.2f} s on: "
                    "timestamps go back, as in joined recordings. Split or re-encode it."
                ) from exc
            heard += is_sound
            ends[stream.index] = time_s
        if not heard:
            raise MediaError(f"seconds: {float(seconds):g} leaves no sound of {source}.")


def _is_wanted(out: Any, stream: Any) -> bool:
    if stream.codec_context is None:  # of a kind that FFmpeg has no decoder for, such as teletext
        return False
    if stream.type == "subtitle":
        return stream.codec_context.name in out.supported_codecs
    return stream.type in ("video", "audio") and not stream.disposition & Disposition.attached_pic


def _add(out: Any, stream: Any, target: Path) -> Any:
    """A stream of the same codec, extradata, clock, rotation and tags."""
    try:
        copy = out.add_stream_from_template(stream, opaque=True)
    except ValueError as exc:
        raise MediaError(
            f"{target}: cannot hold {stream.codec_context.name} ({stream.type}). "
            "Give a file that ends in .mkv, or encode the source anew."
        ) from exc
    if stream.codec_context.codec_tag == "hvc1" and out.format.name in EDIT_LIST:
        copy.codec_context.codec_tag = "hvc1"  # Apple's players refuse the default, hev1.
    is_coarse = stream.type == "audio" and stream.time_base > _COARSE_S
    copy.time_base = _FINE_S if is_coarse else stream.time_base
    if stream.type == "video" and stream.average_rate:  # else Matroska says its clock's rate
        copy.codec_context.framerate = stream.average_rate
    copy.metadata.update(stream.metadata)
    copy.disposition = stream.disposition
    return copy


def _earlier(chapter: Any, seconds: Fraction) -> Any:
    ticks = round(seconds / chapter["time_base"])
    return chapter | {key: max(0, chapter[key] - ticks) for key in ("start", "end")}


def _refine(packet: Any) -> None:
    """Give a packet a clock that a move can be told in."""
    times = (packet.pts, packet.dts, packet.duration)
    scaled = [None if t is None else round(t * packet.time_base / _FINE_S) for t in times]
    packet.time_base = _FINE_S
    packet.pts, packet.dts, packet.duration = scaled


def _packets(file: Any, source: Path, streams: dict[int, Any]) -> Iterator[Any]:
    """All packets of these streams but the empty ones that end them."""
    for packet in file.demux([file.streams[index] for index in streams]):
        if packet.pts is None:
            packet.pts = packet.dts
        if packet.pts is not None:
            yield packet
        elif packet.size:
            raise MediaError(f"{source}: a packet without a timestamp. Re-encode the file.")


def _is_in_time(
    packet: Any, moved: Fraction, edges: dict[int, Fraction], has_edit_list: bool
) -> bool:
    """Whether a packet of sound belongs into the file, by where it lay and where it goes.

    `edges` remembers where each stream began: at or before 0, as priming does, it may begin again.
    """
    time_s = packet.pts * packet.time_base
    if has_edit_list:
        # What reaches over the start, and one more: decoders need the overlap.
        reach_s = 2 * (packet.duration or 0) * packet.time_base
        return min(time_s, time_s + moved) + reach_s > 0
    return time_s + moved >= edges.setdefault(packet.stream.index, min(time_s, Fraction(0)))


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except (FFmpegError, OSError) as exc:
        raise MediaError(
            f"{target}: cannot be written ({exc.strerror}). Check the disk, and that the container "
            "takes these codecs: .mkv takes nearly all."
        ) from exc
