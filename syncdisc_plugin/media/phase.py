"""How far the frames that `Recording.frames` gives lie from the moments that they stand for.

A 25 fps file whose sound begins between two of its frames is shown up to 20 ms late or early,
all of it: what was filmed at t + 20 ms stands at t. Whoever measures finer than frames must know.
"""

from __future__ import annotations

import numpy as np

from syncdisc_plugin.errors import MediaError
from syncdisc_plugin.media.container import BROKEN, opened, pick_stream
from syncdisc_plugin.media.decode import Recording


def frame_leads_s(recording: Recording) -> np.ndarray:
    """Timestamp of each frame that is shown, minus the moment it is shown at.

    Reads the packets' timestamps up to the first damage and decodes nothing.

    Returns:
        (F,) seconds, F as many frames as the sound lasts; > 0: the picture runs ahead.

    Raises:
        MediaError: The file is gone, no longer readable, or keeps no timestamps.
    """
    with opened(recording.path) as container:
        times_s = []
        try:
            for packet in container.demux(pick_stream(container.streams.video)):
                if packet.pts is not None and not packet.is_discard:
                    times_s.append(float(packet.pts * packet.time_base))
        except BROKEN:
            pass  # `frames` ends here too, and notes it
    if not times_s:
        raise MediaError(f"{recording.path}: no timestamps. Re-mux the file.")
    times = np.sort(times_s) + recording.trimmed_s - recording.start_s
    moments = np.arange(recording.n_frames) / recording.fps
    # The nearest, and of two as near the earlier, as `frames` picks.
    nearest = np.searchsorted((times[1:] + times[:-1]) / 2, moments)
    return times[nearest] - moments
