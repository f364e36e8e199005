"""What a training chunk may look and sound like: crop, colour, camera, microphone, voice.

Every function takes its randomness as an argument and changes a whole chunk alike, since a
camera and a microphone do not change within a second. Nothing here moves anything in time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np

from syncdisc_plugin.spec import ClipSpec


@dataclass(frozen=True)
class Augment:
    """Strengths of the random changes; 0 switches one off."""

    crop_shift: float = 0.06
    """Largest shift of the box, as a ratio of the face."""
    crop_scale: float = 0.12
    """Largest relative change of the box's size; width and height partly on their own."""
    rotation_deg: float = 6.0
    """Largest head roll that is added."""
    color: float = 0.35
    """Largest relative change of contrast, gamma, brightness and of each colour channel."""
    gray: float = 0.1
    """Share of chunks turned to grey."""
    blur: float = 0.25
    """Share of chunks that are blurred or shrunk and enlarged again."""
    artefacts: float = 0.3
    """Share of chunks, in stage 3, with what a generator does to a true mouth: a softer, shifted
    patch with a blending edge, or compression."""
    pixel_noise: float = 0.03
    """Largest standard deviation of sensor noise, of 1."""
    gain_db: float = 10.0
    """Largest change of the audio's level."""
    equalizer_db: float = 8.0
    """Largest bump or dip of a random smooth frequency response (microphone, room)."""
    formant: float = 0.1
    """Largest relative stretch of the mel axis (vocal tract length)."""
    audio_noise: float = 0.5
    """Share of chunks with noise or other speech mixed under the voice, 3 to 30 dB below it."""
    mask_bins: int = 12
    """Widest band of mel bins that is blanked, twice per chunk at most."""


def softened(a: Augment, step: int, steps: int = 300) -> Augment:
    """Strengths that rise from a quarter to the whole over the first steps.

    A net that cannot tell anything yet leaves chance sooner on footage that is easy to read.
    """
    part = min(1.0, 0.25 + 0.75 * step / steps)
    values = {f.name: getattr(a, f.name) * part for f in fields(a)}
    return Augment(**{**values, "mask_bins": round(values["mask_bins"])})


def cut_input(frames: np.ndarray, spec: ClipSpec, affine: np.ndarray | None = None) -> np.ndarray:
    """The part of stored crops that the face tower sees.

    Args:
        frames: (F, S, S, 3) uint8 as stored, margin included.
        spec: gives the sizes.
        affine: (2, 3) map from positions in the face_px square to stored pixels; None is exact.

    Returns:
        (F, h, w, 3) uint8.
    """
    h, w = spec.input_hw
    border = (spec.stored_px - spec.face_px) // 2
    top = spec.face_px - h
    if affine is None:
        return frames[:, border + top : border + top + h, border : border + w]
    matrix = affine.astype(np.float64).copy()
    matrix[:, 2] += matrix[:, 1] * top  # row 0 of the output is row `top` of the face
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    out = np.empty((len(frames), h, w, 3), np.uint8)
    for i in range(len(frames)):
        cv2.warpAffine(
            frames[i], matrix, (w, h), dst=out[i], flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
    return out


def random_crop(rng: np.random.Generator, spec: ClipSpec, a: Augment) -> np.ndarray:
    """A random (2, 3) map for `cut_input`: shift, size, aspect, roll and mirror."""
    angle = np.deg2rad(rng.uniform(-1, 1) * a.rotation_deg)
    zoom = 1 + rng.uniform(-1, 1) * a.crop_scale
    aspect = 1 + rng.uniform(-1, 1) * a.crop_scale / 2
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([mirror * zoom * aspect, zoom / aspect])
    centre_face = (spec.face_px - 1) / 2
    centre_stored = (spec.stored_px - 1) / 2
    shift = rng.uniform(-1, 1, 2) * a.crop_shift * spec.face_px
    offset = centre_stored + shift - linear @ np.full(2, centre_face)
    return np.concatenate([linear, offset[:, None]], axis=1)


def change_look(frames: np.ndarray, rng: np.random.Generator, a: Augment) -> np.ndarray:
    """Colour, exposure, sharpness and noise. (F, h, w, 3) uint8 -> the same."""
    ramp = np.arange(256, dtype=np.float64) / 255
    gamma = np.exp(rng.uniform(-1, 1) * a.color)
    contrast = 1 + rng.uniform(-1, 1) * a.color
    brightness = rng.uniform(-1, 1) * a.color / 2
    gains = 1 + rng.uniform(-1, 1, 3) * a.color / 2
    curve = (ramp**gamma - 0.5) * contrast + 0.5 + brightness
    table = np.rint(np.clip(curve[:, None] * gains, 0, 1) * 255).astype(np.uint8)[None]
    f, h, w, _ = frames.shape
    out: np.ndarray = cv2.LUT(frames.reshape(1, -1, 3), table).reshape(f * h, w, 3)
    if rng.random() < a.gray:
        out = cv2.cvtColor(cv2.cvtColor(out, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    out = out.reshape(f, h, w, 3)
    if rng.random() < a.blur:
        out = _soften(out, rng)
    sigma = rng.uniform(0, a.pixel_noise) * 255 if rng.random() < 0.5 else 0.0
    if sigma > 0.5:
        # One field, moved about: as good for a net, 30 times cheaper than one per frame.
        noise = rng.standard_normal((h + 16, w + 16, 3), np.float32) * sigma
        noise = noise.clip(-127, 127).astype(np.int8)
        for i, (y, x) in enumerate(rng.integers(0, 16, (f, 2))):
            out[i] = cv2.add(out[i], noise[y : y + h, x : x + w], dtype=cv2.CV_8U)
    return out


def add_artefacts(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What generators and their codecs leave on a mouth that is in sync: no reason to doubt it.

    (F, h, w, 3) uint8 -> the same.
    """
    out = frames
    if rng.random() < 0.6:
        out = _paste(out, rng)
    if rng.random() < 0.6:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 60))]
        codes = (cv2.imencode(".jpg", frame, quality)[1] for frame in out)
        decoded = [np.asarray(cv2.imdecode(code, cv2.IMREAD_UNCHANGED)) for code in codes]
        out = np.stack(decoded)
    return out


def _paste(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A softened patch of other colour around the mouth, with a soft or hard edge."""
    h, w = frames.shape[1:3]
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    centre = h * rng.uniform(0.3, 0.6), w * rng.uniform(0.4, 0.6)
    reach = np.maximum(
        np.abs(y - centre[0]) / (h * rng.uniform(0.3, 0.6)),
        np.abs(x - centre[1]) / (w * rng.uniform(0.2, 0.4)),
    )
    mask = np.clip((1 - reach) * rng.uniform(4, 40), 0, 1)[None, ..., None]
    colour = 1 + rng.uniform(-0.08, 0.08, 3).astype(np.float32)
    patch = _soften(frames, rng).astype(np.float32) * colour + np.float32(rng.uniform(-8, 8))
    mixed = frames + mask * (patch - frames)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _soften(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    h, w = frames.shape[1:3]
    out = np.empty_like(frames)
    if rng.random() < 0.5:
        sigma = rng.uniform(0.4, 1.6)
        for i, frame in enumerate(frames):
            out[i] = cv2.GaussianBlur(frame, (0, 0), sigma)
    else:
        small = tuple(int(n * rng.uniform(0.4, 0.9)) for n in (w, h))
        for i, frame in enumerate(frames):
            out[i] = cv2.resize(cv2.resize(frame, small, interpolation=cv2.INTER_AREA), (w, h))
    return out


DB_PER_UNIT = 100.0 / 8.0  # the mel's 8 units span 100 dB


def change_sound(
    mel: np.ndarray, other: np.ndarray, rng: np.random.Generator, a: Augment
) -> np.ndarray:
    """Voice, microphone, room and noise, in the mel domain.

    Args:
        mel: (L, M) in [-4, 4].
        other: (L, M) mel of other speech, for the background.
        rng: the chunk's own.
        a: strengths.

    Returns:
        (L, M) in [-4, 4].
    """
    n_mels = mel.shape[1]
    bins = np.arange(n_mels)
    out = mel
    if a.formant:
        stretch = 1 + rng.uniform(-1, 1) * a.formant
        source = np.clip(bins * stretch, 0, n_mels - 1)
        low = source.astype(int)
        high = np.minimum(low + 1, n_mels - 1)
        part = (source - low).astype(np.float32)
        out = out[:, low] * (1 - part) + out[:, high] * part
    if rng.random() < a.audio_noise:
        out = _add_background(out, other, rng)
    if a.equalizer_db:
        waves = rng.uniform(0.5, 3.0, 3)[:, None] * np.pi * bins / n_mels
        response = np.cos(waves + rng.uniform(0, 2 * np.pi, (3, 1))).sum(0) / 3
        out = out + (rng.uniform(0, a.equalizer_db) / DB_PER_UNIT * response).astype(np.float32)
    out = out + np.float32(rng.uniform(-1, 1) * a.gain_db / DB_PER_UNIT)
    if a.mask_bins:
        out = out.copy()
        for _ in range(rng.integers(0, 3)):
            width = rng.integers(1, a.mask_bins + 1)
            first = rng.integers(0, n_mels - width + 1)
            out[:, first : first + width] = out.min()
    return np.clip(out, -4, 4).astype(np.float32)


def _add_background(mel: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add powers: either other speech or steady coloured noise, below the voice's loud parts."""
    loud = np.quantile(mel, 0.95)
    below = rng.uniform(3, 30) / DB_PER_UNIT
    if rng.random() < 0.5:
        back = other - np.quantile(other, 0.95) + loud - below
    else:
        tilt = rng.uniform(-1.5, 0.5) * np.linspace(0, 1, mel.shape[1])
        back = loud - below - 1.0 + tilt + rng.normal(0, 0.35, mel.shape)
    to_power = DB_PER_UNIT / 10 * np.log(10)
    return (np.logaddexp(mel * to_power, back * to_power) / to_power).astype(np.float32)
