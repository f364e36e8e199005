"""The sound of a video, laid out by timestamp; what is longer than a few minutes waits on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from syncdisc_plugin.errors import RunError
from syncdisc_plugin.media.container import JITTER_S, MAX_BACK_S, MAX_GAP_S

# Damaged headers claim anything.
RATES_HZ = (1000, 768_000)
# Streams that pause send nothing meanwhile; more silence than this per second of sound is damage.
MAX_SILENCE_SHARE = 10
IN_MEMORY_BYTES = 2**24  # four minutes at 16 kHz
# Resampled sound comes in pieces of so many samples: one by one, packets cost three times as much.
PIECE = 4096
_SAMPLE = np.dtype(np.float32)


class Sound:
    """Audio frames -> mono samples by timestamp: runs without gaps, each resampled on its own.

    `add` the frames of the stream, `begin` where the clip does, then `read`.
    """

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        """Samples per second of what is read."""
        self.rate_in_hz = 0
        """Samples per second of what was added; 0: nothing was."""
        self.end_s = 0.0
        """Where the last frame ends, on the file's clock."""
        self._heard_s = self._silent_s = self._back_s = 0.0
        # (first timestamp, samples before it, samples in it); memory stays flat in the length.
        self._runs: list[tuple[float, int, int]] = []
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115
        self._resampler: av.AudioResampler | None = None
        self._form: tuple[Any, ...] = ()
        self._n_in = 0
        # (first sample of the clip, the same in the file, how many), without overlaps.
        self._parts: list[tuple[int, int, int]] = []
        self._length = 0

    def __len__(self) -> int:
        """Samples from where it begins, gaps included."""
        return self._length

    @property
    def start_s(self) -> float | None:
        """First timestamp on the file's clock, behind the encoder's priming; None: no sound."""
        return self._runs[0][0] if self._runs else None

    def add(self, frame: av.AudioFrame) -> None:
        """Append a frame.

        Raises:
            ValueError: its timestamp cannot belong to this file.
            RunError: no room on the disk for temporary files.
        """
        if frame.time is None and not self._runs:
            return  # Where it belongs is not known yet.
        if not RATES_HZ[0] <= frame.sample_rate <= RATES_HZ[1]:
            raise ValueError(f"{frame.sample_rate} samples per second cannot be")
        time_s = self.end_s if frame.time is None else frame.time
        form = frame.sample_rate, frame.layout.name, frame.format.name
        if form != self._form or abs(time_s - self.end_s) > JITTER_S:
            gap_s = time_s - self.end_s if self._runs else 0.0
            self._silent_s += max(0.0, gap_s)
            if gap_s > MAX_GAP_S or self._silent_s > MAX_GAP_S + MAX_SILENCE_SHARE * self._heard_s:
                raise ValueError(f"timestamps jump by {gap_s:.0f} s")
            self._back_s = -gap_s if -gap_s > MAX_BACK_S else 0.0
            self._flush()
            self._form, self._n_in = form, 0
            # Channels stay apart here: FFmpeg's mix is 3 dB louder for float than for integer
            # input, so the same sound would depend on its codec. Packed: PyAV reads beyond the
            # planes of eight channels and more.
            self._resampler = av.AudioResampler("flt", rate=self.rate_hz, frame_size=PIECE)
            _, at, n = self._runs[-1] if self._runs else (0.0, 0, 0)
            self._runs.append((time_s, at + n, 0))
        self.rate_in_hz = frame.sample_rate
        self._n_in += frame.samples
        if (
            self._back_s and self._n_in > MAX_BACK_S * frame.sample_rate
        ):  # no odd time, but for good
            self.end_s = self._runs[-1][0] + self._back_s
            raise ValueError(f"timestamps go back by {self._back_s:.1f} s")
        self._heard_s += frame.samples / frame.sample_rate
        self.end_s = self._runs[-1][0] + self._n_in / frame.sample_rate
        self._resample(frame)

    def begin(self, start_s: float) -> None:
        """Sample 0 is heard at `start_s` of the file's clock; gaps are silence, of what overlaps
        the earlier is kept."""
        self._flush()
        self._parts, self._length = [], 0
        for time_s, at, n in self._runs:
            first = round((time_s - start_s) * self.rate_hz)
            begin = max(first, self._length)
            if begin < first + n:
                self._parts.append((begin, at + begin - first, first + n - begin))
                self._length = first + n

    def read(self, first: int = 0, last: int | None = None) -> np.ndarray:
        """Samples [first, last) as (N,) float32, about [-1, 1]; fewer where it ends before."""
        last = self._length if last is None else min(last, self._length)
        out = np.zeros(max(0, last - first), _SAMPLE)
        for begin, at, n in self._parts:
            low, high = max(first, begin), min(last, begin + n)
            if low < high:
                self._file.seek((at + low - begin) * _SAMPLE.itemsize)
                data = self._file.read((high - low) * _SAMPLE.itemsize)
                out[low - first : high - first] = np.frombuffer(data, _SAMPLE)
        return out

    def blocks(self) -> Iterator[np.ndarray]:
        """All of it, a minute at a time."""
        step = 60 * self.rate_hz
        return (self.read(first, first + step) for first in range(0, self._length, step))

    def _resample(self, frame: av.AudioFrame | None) -> None:
        assert self._resampler is not None
        time_s, at, n = self._runs[-1]
        for piece in self._resampler.resample(frame):
            channels = piece.to_ndarray().reshape(-1, piece.layout.nb_channels)
            samples = channels.mean(axis=1, dtype=_SAMPLE)
            n += len(samples)
            try:
                self._file.write(samples.tobytes())
            except OSError as error:  # no fault of the video's, which an OSError here would mean
                raise RunError(
                    f"{tempfile.gettempdir()}: no room for the sound of a long video ({error}). "
                    "It takes 230 MB for an hour: free some, or let TMPDIR name a larger disk."
                ) from error
        self._runs[-1] = time_s, at, n

    def _flush(self) -> None:
        if self._resampler is not None:
            self._resample(None)
            self._resampler = None
