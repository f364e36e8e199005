"""How near `syncdisc lipsync` comes to the footage when a face says what it really said.

    python bench/lipsync_paste.py VIDEO [VIDEO ...] [--generator base] [--models DIR]

For each video: PSNR of the lower half of the face against the footage, and how much the cheeks
flicker in both (mean second difference in time of their pixels, of 255). Both hang on how a drawn
mouth is put back (`generator_integration/reference/paste.py`, `speaker.py`) as well as on the
generator. Sync is judged by `bench/lipsync.py`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from generator_integration.reference import lipsync, load_generator
from generator_integration.reference import speaker as drawing
from syncdisc_plugin.data.prepare import PrepareSettings
from syncdisc_plugin.faces import crop_face

SIDE = 96
CHEEKS = (slice(52, 80), np.r_[8:24, 72:88])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--generator", default="base", help="shipped name, or the trainer's file")
    parser.add_argument("--models", type=Path, help="folder with face detector files")
    args = parser.parse_args()
    generator = load_generator(args.generator)
    was, now = [], []
    paste = drawing.paste_face

    def watched(image: np.ndarray, box: np.ndarray, *drawn: np.ndarray) -> np.ndarray:
        """As it is, and seen: no codec lies between."""
        out = paste(image, box, *drawn)
        for faces, frame in ((was, image), (now, out)):
            faces.append(crop_face(frame, box, face_px=SIDE, margin=0))
        return out

    drawing.paste_face = watched
    for video in args.videos:
        was.clear()
        now.clear()
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.mp4"
            settings = PrepareSettings(models=args.models)
            lipsync(video, video, out, generator=generator, settings=settings)
        before, after = (np.stack(faces).astype(float) for faces in (was, now))
        error = ((before - after)[:, SIDE // 2 :] ** 2).mean((1, 2, 3))
        print(
            f"{video.name}: {len(was)} frames, PSNR of the lower half "
            f"{np.mean(10 * np.log10(255**2 / np.maximum(error, 1e-3))):.1f} dB, cheeks' flicker "
            f"{flicker(after):.1f}, in the footage {flicker(before):.1f}",
            flush=True,
        )


def flicker(faces: np.ndarray) -> float:
    """Mean second difference in time of the cheeks. faces: (F, SIDE, SIDE, 3)."""
    cheeks = faces[:, CHEEKS[0]][:, :, CHEEKS[1]]
    return float(np.abs(cheeks[2:] - 2 * cheeks[1:-1] + cheeks[:-2]).mean())


if __name__ == "__main__":
    main()
