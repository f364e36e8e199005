"""Faces in footage: find them (`detect`), follow them (`track`), cut them out (`crop`)."""

from syncdisc_plugin.faces.crop import crop_face
from syncdisc_plugin.faces.detect import DETECTORS, Detector, load_detector
from syncdisc_plugin.faces.track import Track, TrackSettings, TrackTally, follow

__all__ = [
    "DETECTORS",
    "Detector",
    "Track",
    "TrackSettings",
    "TrackTally",
    "crop_face",
    "follow",
    "load_detector",
]
