"""Whether footage is out of sync by itself: the lag of every clip as two discriminators see it.

    python bench/lags.py --data STORE --other WEIGHTS [--weights base] [--folder DIR]

Two nets that agree on a lag have found it in the footage: give one of another architecture, seed
and region that has not met these people either (`bench/generator` trains such a judge). Prints
both lags per clip in frames (> 0: audio early) with their clearness, how often they agree, and
the accuracies of --weights on the clips as they are, and with each lag undone, in whole frames,
as the *other* net sees it, which cannot flatter --weights as undoing its own would.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from syncdisc_plugin import weights
from syncdisc_plugin.data.embed import Embedded, embed_clips
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.evaluate import metrics
from syncdisc_plugin.evaluate.views import view_for
from syncdisc_plugin.nn import offset_curve
from syncdisc_plugin.nn.curve import clearness, is_clear, similarity_by_offset

CONTEXTS = (5, 15, 25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a prepared store")
    parser.add_argument("--weights", default="base", help="shipped name, or a checkpoint")
    parser.add_argument("--other", required=True, help="the second discriminator")
    parser.add_argument("--folder", type=Path, help="clips of videos below it only")
    parser.add_argument("--speakers", help="clips of these speakers only: a,b,c")
    args = parser.parse_args()
    store = ClipStore(args.data)
    clips = [c for c in store.clips if _asked(c, args)]
    if not clips:
        raise SystemExit(f"--data {args.data}: no clip of --folder or --speakers. Look there.")
    mine, other = (_see(name, store, clips) for name in (args.weights, args.other))
    rows = [(*_lag(a), *_lag(b)) for a, b in zip(mine, other, strict=True)]
    print(f"{'clip':32} frames   lag, clear      other, clear")
    for clip, (lag, clear, _, second, second_clear, _) in zip(clips, rows, strict=True):
        name = Path(clip.source).stem[:32]
        print(
            f"{name:32} {clip.n_frames:6}  {lag:+5.1f}, {clear:5.1f}  {second:+9.1f}, "
            f"{second_clear:5.1f}"
        )
    _agreement(np.array(rows))
    print(f"\n{'':28} pair   " + "".join(f"PM {k:<5}" for k in CONTEXTS))
    undone = [e.shifted(round(row[3])) for e, row in zip(mine, rows, strict=True)]
    for name, seen in (("as they are", mine), ("undone as the other sees it", undone)):
        pm = metrics.pm_accuracy(seen, CONTEXTS)
        print(
            f"{name:28} {metrics.pair_accuracy(seen):.3f}  "
            + "".join(f"{v:.3f}   " for v in pm.values())
        )


def _asked(clip: Clip, args: argparse.Namespace) -> bool:
    if args.speakers and clip.speaker not in args.speakers.split(","):
        return False
    return not args.folder or args.folder.resolve() in Path(clip.source).resolve().parents


def _see(name: str, store: ClipStore, clips: list[Clip]) -> list[Embedded]:
    net = weights.load_judge(name)
    return list(embed_clips(net, view_for(store, net.spec), clips))


def _lag(seen: Embedded) -> tuple[float, float, bool]:
    """A clip's lag in frames, how clear it is, and whether it can be trusted."""
    curve = offset_curve(seen.v, seen.a)
    table = similarity_by_offset(seen.v, seen.a).numpy()
    return curve.lag_frames, clearness(curve, table), is_clear(curve, table)


def _agreement(rows: np.ndarray) -> None:
    lag, _, sure, second, _, second_sure = rows.T
    both = (sure * second_sure).astype(bool)
    apart = np.abs(lag - second)[both]
    out = (np.abs(lag) > 1.5) & both
    print(f"\nclear to both nets: {both.sum()} of {len(rows)} clips")
    if both.any():
        print(
            f"of these within half a frame of each other {(apart <= 0.5).sum()}, within one "
            f"{(apart <= 1).sum()}; median {np.median(apart):.2f} frames apart"
        )
        print(
            f"out of sync by more than 1.5 frames: {out.sum()}, so says the other net of "
            f"{(out & (np.abs(second) > 1.5)).sum()}"
        )


if __name__ == "__main__":
    main()
