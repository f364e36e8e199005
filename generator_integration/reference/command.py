"""`syncdisc lipsync`: parsing, calling, printing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from syncdisc_plugin.cli.parsing import MANY_VIDEOS, add_prepare, new_parser, prepare_settings


def lipsync(args: Sequence[str]) -> int:
    """A video or a photograph, and a sound -> the video with lips that say it."""
    parser = new_parser("lipsync", lipsync.__doc__)
    parser.add_argument("--video", type=Path, required=True, help="a video or a photograph")
    parser.add_argument(
        "--audio", type=Path, required=True, help="what shall be said: a file that has sound"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help=".mp4, .mov, .mkv or .webm; replaced if it exists"
    )
    parser.add_argument("--generator", default="base", help="shipped name, or the trainer's file")
    parser.add_argument(
        "--face",
        type=int,
        nargs="+",
        help="which face, as `syncdisc score` numbers them; several: they are one (default: the "
        "largest for longest while the sound lasts)",
    )
    parser.add_argument(
        "--only", action="store_true", help="speak in these tracks alone, not where it looks alike"
    )
    parser.add_argument(
        "--extend",
        choices=["pingpong", "hold"],
        default="pingpong",
        help="where the sound is longer: play back and forth, or hold the last frame",
    )
    parser.add_argument("--crf", type=int, default=18, help="picture: 0 (best) to 51")
    parser.add_argument("--device", default="auto", help="cuda, cpu, or auto")
    add_prepare(parser, skip={*MANY_VIDEOS, "device", "track.max_frames"})
    parsed = parser.parse_args(args)
    from generator_integration.reference.lipsync import lipsync as write
    from syncdisc_plugin.nn.precision import choose_device

    device = choose_device(parsed.device)
    result = write(
        parsed.video,
        parsed.audio,
        parsed.out,
        generator=parsed.generator,
        face=parsed.face,
        only=parsed.only,
        settings=prepare_settings(parsed, device),
        extend=parsed.extend,
        crf=parsed.crf,
        device=device,
    )
    for note in result.notes:
        print(f"  {note}", file=sys.stderr)
    print(
        f"{result.frames} frames ({result.generated} with new lips), {result.seconds:.2f} s, "
        f"{result.width}x{result.height} -> {result.path}"
    )
    return 0
