"""Give the face of a video, or of a photograph, new words."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from syncdisc_plugin.errors import MediaError

# Nothing heavy here: `syncdisc --help` looks at this folder.
if TYPE_CHECKING:
    from generator_integration.reference.face import Scan
    from generator_integration.reference.generator import Generator
    from generator_integration.reference.playback import PhotoPlayback, VideoPlayback
    from generator_integration.reference.voice import Voice
    from syncdisc_plugin.data.prepare import PrepareSettings
    from syncdisc_plugin.faces import Detector

BATCH_BYTES = 150 << 20
"""Frames that are held to be generated in one go."""
MAX_BATCH = 24
EXTENSIONS = {"pingpong": "it is played back and forth", "hold": "its last frame is held"}
"""What `extend` may be, and how it is said."""
DECODER_THREADS = 4
"""At most; each holds a frame."""


@dataclass(frozen=True)
class LipsyncResult:
    """What `lipsync` wrote."""

    path: Path
    """The video."""
    frames: int
    """Frames in it."""
    generated: int
    """Of these, those with a new mouth; the others do not show this face and are as they were."""
    seconds: float
    """Length, that of the sound."""
    width: int
    """Pixels across."""
    height: int
    """Pixels down."""
    faces: tuple[int, ...]
    """Numbers of the tracks in which it speaks, the one that was chosen first."""
    notes: tuple[str, ...]
    """What was chosen, and what is unusual: a line each."""


def lipsync(
    video: Path | str,
    audio: Path | str,
    out: Path | str,
    *,
    generator: Generator | str | Path = "base",
    face: int | Sequence[int] | None = None,
    only: bool = False,
    settings: PrepareSettings | None = None,
    extend: str = "pingpong",
    crf: int = 18,
    device: str = "auto",
    detect: Detector | None = None,
) -> LipsyncResult:
    """Write `video` with the mouth that `audio` asks for, and with that sound.

    Resolution and the frames' own timestamps stay; the output is as long as the sound. A picture
    that is shown for more than 1/20 s is shown again in between, so that the mouth moves on.
    Frames stream through: memory does not depend on the length.

    Args:
        video: a video, or a photograph (.jpg, .png, .webp), which is held at 25 fps.
        audio: a file that has sound, also a video.
        out: .mp4, .mov, .mkv or .webm; an existing file is replaced, wholly or not at all.
        generator: a shipped name, a file of the trainer, or a loaded one, on `device`.
        face: number of the face, as `syncdisc score` lists them; by default the one that fills
            most of the picture for longest while the sound lasts. It speaks wherever somebody
            looks as it does, also behind scene cuts and cutaways, drawn after pictures of that
            shot; several numbers are one face, whatever they look like. Frames without it stay as
            they are.
        only: speak in the tracks of these numbers alone, wherever else it seems to be seen.
        settings: detector, its files, and how faces are followed; `device` is not read.
        extend: where the sound is longer: "pingpong" plays the video back and forth, "hold" keeps
            its last frame.
        crf: quality of the picture, 0 (best) to 51.
        device: where detector and generator run: auto, cpu or cuda.
        detect: used in place of the detector that `settings` name.

    Raises:
        MediaError: a file that cannot be read, lacks picture or sound, or cannot be written.
        FaceError: no face, no such face, or not while the sound lasts.
        WeightsError: the generator cannot be loaded.
        ValueError: `extend`, `crf` or `device` is none that there is.
    """
    from tqdm import tqdm

    from generator_integration.reference.cast import choose_face, list_faces
    from generator_integration.reference.generator import load_generator
    from generator_integration.reference.speaker import Speaker
    from generator_integration.reference.voice import read_voice
    from generator_integration.reference.writer import VideoWriter
    from syncdisc_plugin.atomic import replacing
    from syncdisc_plugin.data.prepare import PrepareSettings
    from syncdisc_plugin.faces import load_detector
    from syncdisc_plugin.nn.precision import choose_device

    video, audio, out = Path(video), Path(audio), Path(out)
    if extend not in EXTENSIONS:
        raise ValueError(f"extend: expected one of {', '.join(EXTENSIONS)}, got {extend!r}.")
    if not 0 <= crf <= 51:
        raise ValueError(f"crf: expected 0 (best) to 51, got {crf}. Use 18.")
    _check_paths(video, audio, out)
    settings, device = settings or PrepareSettings(), choose_device(device)
    if isinstance(generator, str | Path):
        generator = load_generator(generator, device)
    voice = read_voice(audio, generator.spec)
    if detect is None:
        # By YuNet's boxes the shipped generator was trained, and `score` numbers the faces.
        detector = settings.by_yunet().detector
        detect = load_detector(detector, models=settings.models, device=device)
    playback, scan, notes = _open_source(video, voice, detect, settings, extend)
    numbers = (face,) if isinstance(face, int) else face
    chosen = choose_face(scan, numbers, min(voice.seconds, playback.video_seconds), only=only)
    speaking = (chosen.number, *chosen.also)
    if len(scan.faces) > 1:
        listed = list_faces(scan.faces)
        who = f"Face {chosen.number} speaks"
        if chosen.also:
            who += f", which is also face {', '.join(map(str, chosen.also))}"
        notes.append(f"{len(scan.faces)} faces: {listed}. {who} (--face)")
    height, width = playback.hw
    even_height, even_width = height + height % 2, width + width % 2
    if (height, width) != (even_height, even_width):
        notes.append(
            f"{width}x{height} becomes {even_width}x{even_height}: encoders need even sides, so "
            "the last row or column is there twice"
        )

    speaker = Speaker(generator, chosen, voice, playback.clock, device)
    held = BATCH_BYTES // (height * width * 3)
    batch = max(2, min(MAX_BATCH, held - speaker.context))
    n_frames = len(playback)
    with (
        replacing(out) as temp,
        VideoWriter(temp, out, playback.hw, playback.clock, voice.sound, crf=crf) as writer,
        tqdm(total=n_frames, desc="lipsync", unit="frame", disable=None) as bar,
    ):
        for image, pts in speaker.speak(playback.shots(), batch):
            writer.write(image, pts)
            bar.update()
    if speaker.generated < n_frames:
        others = ", also where they show another" if len(scan.faces) > len(speaking) else ""
        notes.append(
            f"{n_frames - speaker.generated} frames do not show face {chosen.number} and stay as "
            f"they are{others}"
        )
    notes += [note for note in (playback.note, writer.note) if note]
    return LipsyncResult(
        path=out,
        frames=n_frames,
        generated=speaker.generated,
        seconds=round(float(voice.seconds), 3),
        width=even_width,
        height=even_height,
        faces=speaking,
        notes=tuple(notes),
    )


def _check_paths(video: Path, audio: Path, out: Path) -> None:
    """Refuse in a moment what would otherwise fail after minutes."""
    from syncdisc_plugin.media.remux import CONTAINERS

    for name, path in (("video", video), ("audio", audio)):
        if not path.is_file():
            raise MediaError(f"{name} {path}: no such file. Check the spelling.")
        if not path.stat().st_size:
            raise MediaError(f"{name} {path}: the file is empty. Copy or download it again.")
        if out.exists() and out.samefile(path):
            raise MediaError(f"out {out}: is the {name} itself. Choose another name.")
    if out.suffix.lower() not in CONTAINERS:
        raise MediaError(
            f"out {out}: cannot write {out.suffix or 'no suffix'}. Use {', '.join(CONTAINERS)}."
        )
    if out.is_dir():
        raise MediaError(f"out {out}: is a folder. Give the name of a file.")
    place = next(folder for folder in out.absolute().parents if folder.exists())
    try:
        # With a name as long as that of what is written, which `out` takes in the end.
        with NamedTemporaryFile(dir=place, prefix=f".{out.name}.", suffix=".tmp"):
            pass
    except OSError as exc:
        raise MediaError(
            f"out {out}: nothing can be written there ({exc.strerror}). Choose another place."
        ) from exc


def _open_source(
    video: Path, voice: Voice, detect: Detector, settings: PrepareSettings, extend: str
) -> tuple[VideoPlayback | PhotoPlayback, Scan, list[str]]:
    """What is shown, the faces in it, and what there is to say of both and of the sound."""
    from generator_integration.reference.face import scan_photo, scan_video
    from generator_integration.reference.playback import (
        SLOW_S,
        PhotoPlayback,
        VideoPlayback,
        is_photo,
    )
    from syncdisc_plugin.media.stream import PictureStream

    notes = []
    if voice.sound.note:
        notes.append(f"{voice.sound.path}: {voice.sound.note}")
    if voice.is_silent:
        notes.append(
            f"the sound is silent ({voice.loudness_db:.0f} dB): the mouth stays as it is in silence"
        )
    fps, face_px = voice.spec.fps, voice.spec.face_px
    if is_photo(video):
        photo = PhotoPlayback(video, voice.seconds)
        found = scan_photo(photo.image, detect, settings.track, fps=fps, face_px=face_px)
        return photo, found, notes
    stream = PictureStream(video, threads=min(DECODER_THREADS, os.cpu_count() or 1))
    scan = scan_video(stream, detect, settings.track, fps=fps, face_px=face_px)
    playback = VideoPlayback(stream, scan.pts, voice.seconds, extend)
    if stream.bits > 8:
        notes.append(f"the video has {stream.bits} bits a colour, the output 8")
    if stream.is_interlaced:
        notes.append(
            "the video is interlaced, the output is not, and shows combs where something moves. "
            "Deinterlace it before (ffmpeg -i IN -vf bwdif OUT)"
        )
    if stream.is_transparent:
        notes.append("what is transparent in the video is white")
    if playback.slow:
        notes.append(
            f"{playback.slow} pictures are shown for more than {float(SLOW_S):g} s: they are shown "
            "again meanwhile, for the mouth to move"
        )
    longer_s = float(voice.seconds - playback.video_seconds)
    if longer_s > 1 / fps:
        notes.append(f"the sound is {longer_s:.2f} s longer than the video: {EXTENSIONS[extend]}")
    elif longer_s < -1 / fps:
        notes.append(f"the sound is {-longer_s:.2f} s shorter than the video, which is cut there")
    return playback, scan, notes
