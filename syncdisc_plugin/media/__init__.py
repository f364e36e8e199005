"""Reading and writing of video files by timestamp (PyAV)."""

from syncdisc_plugin.media.decode import VIDEO_SUFFIXES, Recording, Source, decode, list_videos
from syncdisc_plugin.media.encode import write_video
from syncdisc_plugin.media.remux import move_audio

__all__ = [
    "VIDEO_SUFFIXES",
    "Recording",
    "Source",
    "decode",
    "list_videos",
    "move_audio",
    "write_video",
]
