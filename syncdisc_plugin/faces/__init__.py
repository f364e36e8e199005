"""Faces in footage: find them (`detect`), follow them (`track`) through a shot (`shots`), cut them
out (`crop`), and say how well they are seen (`quality`, `turn`)."""

from syncdisc_plugin.faces.crop import crop_aligned, crop_face
from syncdisc_plugin.faces.detect import DETECTORS, Batch, Detector, load_detector
from syncdisc_plugin.faces.quality import Quality, QualityMeter
from syncdisc_plugin.faces.track import Track, TrackSettings, TrackTally, follow

__all__ = [
    "DETECTORS",
    "Batch",
    "Detector",
    "Quality",
    "QualityMeter",
    "Track",
    "TrackSettings",
    "TrackTally",
    "crop_aligned",
    "crop_face",
    "follow",
    "load_detector",
]
