"""Files whose bytes are not what they were, or never were a video's."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import mutate
from plan import EITHER, OK, REFUSED, Originals, Plan

SEEDS = 4
# Share of the file that is hit: mp4 has its index at an end, the others at the beginning.
PLACES = {"head": (0.0, 0.03), "middle": (0.3, 0.7), "tail": (0.9, 1.0), "all": (0.0, 1.0)}
# First bytes of other formats, noise behind them.
HEADERS = {
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "jpg": b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    "gif": b"GIF89a",
    "zip": b"PK\x03\x04",
    "pdf": b"%PDF-1.7\n",
    "gzip": b"\x1f\x8b\x08\0",
    "elf": b"\x7fELF\x02\x01\x01",
    "wav": b"RIFF\xff\xff\xff\x7fWAVEfmt \x10\0\0\0\x01\0\x01\0",
    "avi": b"RIFF\xff\xff\xff\x7fAVI LIST",
    "mp3": b"ID3\x04\0\0\0\0\0\0\xff\xfb\x90",
    "flac": b"fLaC\0\0\0\x22",
    "ogg": b"OggS\0\x02",
    "ebml": b"\x1aE\xdf\xa3\x9fB\x86\x81\x01",
    "ftyp": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\0\x08moov",
    "flv": b"FLV\x01\x05\0\0\0\x09\0\0\0\0",
    "asf": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
    "mpeg": b"\0\0\x01\xba\x44\0\x04\0\x04\x01",
    "ts": b"\x47\x40\0\x10",
    "exr": b"\x76\x2f\x31\x01",
    "noise": b"",
}
TEXTS = {
    "page": "<!DOCTYPE html><html><title>404</title></html>\n" * 99,
    "json": '{"error": "no such video"}\n',
    # FFmpeg follows lists: none of these may lead it to another file.
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nz good 0.mp4\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '/etc/hostname'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "subtitles": "1\n00:00:00,000 --> 00:00:02,000\nhello\n",
    "pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
    "newlines": "\n" * 5000,
}


def damaged(originals: Originals, seed: int) -> Iterator[Plan]:
    """Plans of this file's kinds."""
    for source in originals.all:
        for tenth in range(1, 10):
            yield _of("truncated", source, f"{tenth} tenths", mutate.cut, share=tenth / 10)
        yield _of("truncated", source, "last byte", lambda data: data[:-1], expects=EITHER)
        for place, (first, last) in PLACES.items():
            for number in range(SEEDS):
                chance = random.Random(f"{seed} {source.name} {place} {number}")
                n = chance.choice((1, 8, 64, 512))
                yield _of("flipped", source, f"{place} {number} of {n} bytes", mutate.flip,
                          first=first, last=last, n=n, chance=chance)  # fmt: skip
        for first in (0.0, 0.01, 0.4, 0.8):
            yield _of("blanked", source, f"from {first}", mutate.blank, first=first, share=0.15)
        chance = random.Random(f"{seed} {source.name}")
        yield _of("rearranged", source, "blocks", mutate.swap, parts=9, chance=chance)
        yield _of("rearranged", source, "a gap", mutate.drop, first=0.5, share=0.1)
        for suffix in {".mp4", ".mkv", ".avi"} - {source.suffix}:
            yield _of("renamed", source, "renamed", bytes, expects=OK, suffix=suffix)
        for other in originals.all[:2]:
            yield _of("rearranged", source, f"and {other.stem} behind it", partial(_joined, other))
    for name, head in HEADERS.items():
        chance = random.Random(f"{seed} {name}")
        body = head + chance.randbytes(40_000)
        yield Plan("other format", f"{name}.mp4", REFUSED, partial(Path.write_bytes, data=body))
    for name, text in TEXTS.items():
        yield Plan("text", f"{name}.mp4", REFUSED, partial(Path.write_text, data=text))
    for name in ("a.mp4", "b.mkv", "c.avi"):
        yield Plan("empty", name, REFUSED, Path.touch)
    yield Plan("empty", "1 byte.mp4", REFUSED, partial(Path.write_bytes, data=b"\0"))
    box = struct.pack(">I4s", 8, b"moov") + struct.pack(">I4s", 2**32 - 1, b"mdat")
    yield Plan("empty", "two boxes.mp4", REFUSED, partial(Path.write_bytes, data=box))


def _of(kind, source, what, change, expects=EITHER, suffix="", **how) -> Plan:
    def make(path: Path) -> None:
        path.write_bytes(change(source.read_bytes(), **how))

    name = f"{source.stem} {source.suffix[1:]} {what}{suffix or source.suffix}"
    return Plan(kind, name, expects, make)


def _joined(other: Path, data: bytes) -> bytes:
    return data + other.read_bytes()
