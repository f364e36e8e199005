"""One video as face tracks with their sound: what becomes clips, or is judged at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from syncdisc_plugin.data.cost import Cost
from syncdisc_plugin.errors import FaceError, MediaError
from syncdisc_plugin.faces import Detector, Track, TrackSettings, TrackTally, follow
from syncdisc_plugin.spec import ClipSpec
from syncdisc_plugin.timing import sample_of_frame

if TYPE_CHECKING:
    from syncdisc_plugin.media.sound import Sound

SILENT_DB = -60.0


class Footage:
    """One video, decoded and followed: its face tracks with their audio.

    Raises:
        MediaError: it cannot be decoded, or its audio is silent.
    """

    def __init__(
        self,
        path: Path,
        detect: Detector,
        spec: ClipSpec,
        track: TrackSettings,
        cost: Cost | None = None,
    ) -> None:
        from syncdisc_plugin.media import decode

        self.path, self.detect, self.spec, self.track = path, detect, spec, track
        self.cost = Cost() if cost is None else cost
        with self.cost.step("decode"):
            self.recording = decode(path, fps=spec.fps, sample_rate_hz=spec.mel.sample_rate_hz)
            sound = self.recording.sound
            power = sum(float(np.square(b).sum(dtype=np.float64)) for b in sound.blocks())
        self.tally = TrackTally()
        loudness_db = decibels(power / len(sound))
        if loudness_db < SILENT_DB:
            raise MediaError(
                f"{path}: the audio is silent ({loudness_db:.0f} dB). Nothing can be judged; "
                "of several audio streams the one that is flagged as default is read, else the "
                "first: check that it is the right one."
            )

    def clips(self) -> Iterator[tuple[Track, dict[str, np.ndarray]]]:
        """Tracks with tensors as stored: frames (F, S, S, 3), mel (L, M), audio (F * 640,) int16.

        Raises:
            FaceError: at the end, when there was no track; the message says why.
        """
        spec, tally, found = self.spec, self.tally, False
        batch = getattr(self.detect, "batch", None)  # which most detectors have not
        if batch:
            batch = replace(batch, find=self.cost.timed("detect", batch.find))
        tracks = follow(
            self.cost.each("decode", self.recording.frames()),
            self.cost.timed("detect", self.detect),
            self.track,
            face_px=spec.face_px,
            margin=spec.margin,
            crop=spec.crop,
            batch=batch,
            tally=tally,
        )
        for track in self.cost.each("crop", tracks):
            found = True
            audio = _audio_of(self.recording.sound, track.start_frame, track.n_frames, spec)
            with self.cost.step("mel"):
                tensors = _tensors(track.crops, audio, spec)
            yield track, tensors
        if not found:
            reason = f"{self.path}: {_why_no_clip(tally, self.track)}"
            note = self.recording.note
            raise FaceError(f"{reason}; {note}" if note else reason)

    @property
    def seen(self) -> dict[str, Any]:
        """What was met, for the manifest; final after `clips`. Tracks are pieces of tracks."""
        t, fps = self.tally, self.spec.fps
        return {
            "seconds": round(t.frames / fps, 2),
            "cuts": t.cuts,
            "detections": t.detections,
            "too_small": t.too_small,
            "too_unsure": t.too_unsure,
            "tracks": t.tracks + t.too_short,
            "too_short": t.too_short,
            "too_short_seconds": round(t.too_short_frames / fps, 2),
        }


def decibels(power: float) -> float:
    """Of a mean of squares, below full scale."""
    return 10 * float(np.log10(max(1e-12, power)))


def _why_no_clip(tally: TrackTally, track: TrackSettings) -> str:
    if not tally.frames:
        return "no frame where picture and sound overlap"
    if not tally.detections:
        return f"no face in {tally.frames} frames. Try another --detector"
    if tally.too_short:
        cuts = f" between {tally.cuts} scene cuts" if tally.cuts else ""
        fix = ", or set --track.cut_ratio 0 if these are none" if tally.cuts else ""
        return f"no face stays for {track.min_frames} frames{cuts}. Lower --track.min_frames{fix}"
    return (
        f"faces were seen, {tally.too_small} under {track.min_face_px} px and "
        f"{tally.too_unsure} under score {track.min_score}. Lower --track.min_face_px or min_score"
    )


def _audio_of(sound: Sound, start: int, n_frames: int, spec: ClipSpec) -> np.ndarray:
    """Exactly the samples of those frames; a missing tail (under a frame) is silence."""
    # As many for each clip of so many frames, wherever it begins: that is what `verify` expects.
    first = sample_of_frame(start, spec)
    last = first + sample_of_frame(n_frames, spec)
    part = sound.read(first, last)
    return np.pad(part, (0, last - first - len(part)))


def _tensors(crops: np.ndarray, audio: np.ndarray, spec: ClipSpec) -> dict[str, np.ndarray]:
    import torch

    from syncdisc_plugin.mel import log_mel

    mel = log_mel(torch.from_numpy(audio), spec.mel).T.contiguous().numpy()
    pcm = np.clip(np.round(audio * 32768), -32768, 32767).astype(np.int16)
    return {"frames": crops, "mel": mel, "audio": pcm}
