"""Bytes of a good file -> bytes of a broken one. Pure functions; chance comes in as a generator."""

from __future__ import annotations

import random

TS_PACKET = 188


def cut(data: bytes, share: float) -> bytes:
    """The first part of it, `share` in [0, 1]."""
    return data[: int(share * len(data))]


def flip(data: bytes, first: float, last: float, n: int, chance: random.Random) -> bytes:
    """`n` bytes between the shares `first` and `last` get another value."""
    out = bytearray(data)
    for _ in range(n):
        at = chance.randrange(int(first * len(out)), int(last * len(out)))
        out[at] ^= chance.randrange(1, 256)
    return bytes(out)


def blank(data: bytes, first: float, share: float) -> bytes:
    """Zeros from the share `first` on, as a copy that was broken off leaves them."""
    out = bytearray(data)
    begin, end = int(first * len(out)), int((first + share) * len(out))
    out[begin:end] = bytes(end - begin)
    return bytes(out)


def swap(data: bytes, parts: int, chance: random.Random) -> bytes:
    """The same bytes in blocks of another order; the first block stays."""
    size = -(-len(data) // parts)
    head, *rest = (data[at : at + size] for at in range(0, len(data), size))
    chance.shuffle(rest)
    return head + b"".join(rest)


def drop(data: bytes, first: float, share: float) -> bytes:
    """Without a piece in the middle: all that follows lies elsewhere than the index says."""
    return data[: int(first * len(data))] + data[int((first + share) * len(data)) :]


def rename(data: bytes, old: bytes, new: bytes) -> bytes:
    """Another word in place of one that a reader knows."""
    return data.replace(old, new)


def picture_size(data: bytes, width: int, height: int) -> bytes:
    """Every JPEG in it claims to be of that size."""
    out, at = bytearray(data), 0
    while (at := out.find(b"\xff\xc0", at)) >= 0:
        if out[at + 2 : at + 4] == b"\x00\x11":  # a frame header of three components
            out[at + 5 : at + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
        at += 2
    return bytes(out)


def avi_sound_rate(data: bytes, rate_hz: int) -> bytes:
    """An AVI whose sound claims that many samples per second, in both of its headers."""
    out = bytearray(data)
    header = out.find(b"strh", out.find(b"auds") - 12)  # scale, rate: 28 bytes behind the name
    form = out.find(b"strf", header)
    out[header + 28 : header + 36] = (1).to_bytes(4, "little") + rate_hz.to_bytes(4, "little")
    out[form + 12 : form + 16] = rate_hz.to_bytes(4, "little")
    return bytes(out)


def without_pts(data: bytes, every: int = 1) -> bytes:
    """An MPEG transport stream of which every n-th unit carries no timestamp."""
    out, seen = bytearray(data), 0
    for at in range(0, len(out) - TS_PACKET, TS_PACKET):
        has_start, has_filler = out[at + 1] & 0x40, out[at + 3] & 0x20
        begin = at + 4 + (1 + out[at + 4] if has_filler else 0)
        if has_start and out[begin : begin + 3] == b"\x00\x00\x01":
            seen += 1
            if seen % every == 0:
                out[begin + 7] &= 0x3F  # the flags that say which timestamps follow
    return bytes(out)
