"""Who is trained on, who chooses among the steps, and who is only measured on."""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from pathlib import Path

from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.prepare import PrepareSettings, prepare
from syncdisc_plugin.data.store import ClipStore

DRAW = 13  # its six test speakers are people on whom no setting of the trainer was tried


def add_footage(parser: argparse.ArgumentParser) -> None:
    """Where the footage lies, and how it is divided."""
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", nargs="+", default=["presenters", "grid_s1"])
    parser.add_argument("--thin", nargs="*", default=["grid_s1"], help="of these, every third clip")
    parser.add_argument("--wild", default="mixed", help="never trained on")
    parser.add_argument("--test-speakers", type=int, default=6)
    parser.add_argument("--dev-speakers", type=int, default=3)
    parser.add_argument("--draw", type=int, default=DRAW, help="of test and dev speakers")


def prepared(args: argparse.Namespace) -> tuple[ClipStore, dict[str, list[Clip]]]:
    """The store of all footage, and its clips by set: train, dev, test, wild. Prints them."""
    root = args.out / "store"
    folders = [args.clips / name for name in (*args.train, args.wild)]
    speakers = args.clips / "clips.csv"
    prepare(folders, root, settings=PrepareSettings(speakers=speakers))
    store = ClipStore(root)
    sets = _divide(store, args)
    for name, clips in sets.items():
        frames = sum(c.n_frames for c in clips)
        speakers_of = len({c.speaker for c in clips})
        print(f"{name}: {len(clips)} clips, {speakers_of} speakers, {frames / 1500:.1f} minutes")
    return store, sets


def _divide(store: ClipStore, args: argparse.Namespace) -> dict[str, list[Clip]]:
    """Test and dev are speakers of the first folder, in the order of the draw."""

    def folder(clip: Clip) -> str:
        return Path(clip.source).resolve().relative_to(args.clips.resolve()).parts[0]

    main = [c for c in store.clips if folder(c) == args.train[0]]
    frames = Counter[str]()
    for c in main:
        frames[c.speaker] += c.n_frames
    # A speaker with a tenth of the footage stays in training.
    small = [s for s in frames if frames[s] < 0.1 * sum(frames.values())]
    order = sorted(small, key=lambda s: hashlib.sha256(f"{args.draw}/{s}".encode()).digest())
    test = set(order[: args.test_speakers])
    dev = set(order[args.test_speakers : args.test_speakers + args.dev_speakers])
    out: dict[str, list[Clip]] = {"train": [], "dev": [], "test": [], "wild": []}
    seen = Counter[str]()
    for c in store.clips:
        name = folder(c)
        seen[name] += 1
        if name == args.wild:
            out["wild"].append(c)
        elif name == args.train[0] and c.speaker in test:
            out["test"].append(c)
        elif name == args.train[0] and c.speaker in dev:
            out["dev"].append(c)
        elif name not in args.thin or seen[name] % 3 == 0:
            out["train"].append(c)
    return out
