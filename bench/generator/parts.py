"""Three sets of clips; no speaker is in two of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from syncdisc_plugin.atomic import write_text
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.store import ClipStore

TRAIN, JUDGE, TEST = "train", "judge", "test"
JUDGE_SHARE = 0.4  # of the footage that is trained on: a judge must be good before it can judge
MOST_CLIPS = 100  # of one speaker: more of the same face and room teaches nothing
LEAST_S, MOST_PART = 20, 0.1  # footage of a test speaker: enough to tell, and not missed
DRAW = 13  # the order in which test speakers are drawn, as in bench/recipes


def divide(store: ClipStore, test_speakers: int) -> dict[str, list[Clip]]:
    """Clips by part: TRAIN of generators and their experts, JUDGE of the judges, TEST of nobody.

    Raises:
        SystemExit: fewer speakers than the three parts need.
    """
    clips = _thinned(store.clips)
    frames = Counter[str]()
    for clip in clips:
        frames[clip.speaker] += clip.n_frames
    if len(frames) < test_speakers + 4:  # two each for the others: trained on, and held out
        raise SystemExit(
            f"{store.root}: expected at least {test_speakers + 4} speakers, found {len(frames)}. "
            "Give more footage, or a lower --test-speakers."
        )
    order = sorted(frames, key=lambda name: hashlib.sha256(f"{DRAW}/{name}".encode()).digest())
    most, least = MOST_PART * frames.total(), LEAST_S * store.spec.fps
    fit = [name for name in order if least <= frames[name] <= most]
    # Where too few are of the right size, the others follow in the same order.
    test = set([*fit, *(name for name in order if name not in fit)][:test_speakers])

    # The largest first, to the part that lacks most: both get large and small ones.
    share = {TRAIN: 1 - JUDGE_SHARE, JUDGE: JUDGE_SHARE}
    got, of = dict.fromkeys(share, 0), {}
    for name in sorted(set(order) - test, key=lambda name: (-frames[name], order.index(name))):
        of[name] = min(share, key=lambda part: got[part] / share[part])
        got[of[name]] += frames[name]
    parts: dict[str, list[Clip]] = {TRAIN: [], JUDGE: [], TEST: []}
    for clip in clips:
        parts[TEST if clip.speaker in test else of[clip.speaker]].append(clip)
    return parts


def part_store(root: Path, store: ClipStore, clips: Sequence[Clip]) -> ClipStore:
    """A store with these clips only, its shards a link: its split is its own."""
    wanted = {clip.id for clip in clips}
    rows = [row for row in store.rows if row.get("id") in wanted]
    write_text(root / "store.json", (store.root / "store.json").read_text(encoding="utf-8"))
    write_text(root / "manifest.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    link = root / "shards"
    link.unlink(missing_ok=True)
    os.symlink((store.root / "shards").resolve(), link, target_is_directory=True)
    return ClipStore(root)


def said(name: str, clips: Sequence[Clip], fps: int) -> str:
    """The part in a line."""
    speakers = sorted({clip.speaker for clip in clips})
    minutes = sum(clip.n_frames for clip in clips) / fps / 60
    return (
        f"{name}: {len(clips)} clips, {minutes:.1f} minutes, {len(speakers)} speakers: "
        + ", ".join(speakers)
    )


def _thinned(clips: Sequence[Clip]) -> list[Clip]:
    """At most MOST_CLIPS of a speaker, taken evenly."""
    by_speaker: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_speaker[clip.speaker].append(clip)
    kept = set()
    for mine in by_speaker.values():
        n = min(len(mine), MOST_CLIPS)
        kept |= {mine[i * len(mine) // n].id for i in range(n)}
    return [clip for clip in clips if clip.id in kept]
