"""Contact sheets: mouths of a store's clips, the worst and the best by a measure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import PurePath

import numpy as np

from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.evaluate.page import picture

EACH = 8
WIDTH, HEIGHT = 96, 60


def contact_sheet(
    store: ClipStore, clips: Sequence[Clip], values: Sequence[float], unit: str, low_is_bad: bool
) -> str:
    """The worst clips by a measure, then the best ones; none is in both.

    Args:
        store: where the clips are.
        clips: C of them.
        values: (C,) what was measured.
        unit: what stands behind a value.
        low_is_bad: whether small values are the worst.
    """
    order = np.argsort(np.array(values) if low_is_bad else -np.array(values), kind="stable")
    each = min(EACH, (len(clips) + 1) // 2)
    ends = {"Worst": order[:each], "Best": order[max(each, len(order) - each) :][::-1]}
    return "".join(
        f'<p class="later">{name}</p><div class="mouths">'
        + "".join(_mouth(store, clips[i], f"{values[i]:.3g}{unit}") for i in places)
        + "</div>"
        for name, places in ends.items()
        if len(places)
    )


def _mouth(store: ClipStore, clip: Clip, value: str) -> str:
    middle = clip.n_frames // 2
    frame = store.frames(clip, middle, middle + 1)[0]
    lower = frame[len(frame) - round(len(frame) * HEIGHT / WIDTH) :]
    name = f"{PurePath(clip.source).name} at {clip.start_s:.1f} s"
    image = picture(lower, WIDTH, HEIGHT, f"Mouth, {value}, {name}")
    return f'<div title="{escape(name)}">{image}<span>{escape(value)}</span></div>'
