"""Reading and writing of video files by timestamp (PyAV)."""

from syncdisc_plugin.media.decode import VIDEO_SUFFIXES, Recording, Source, decode, list_videos
from syncdisc_plugin.media.encode import write_video

__all__ = ["VIDEO_SUFFIXES", "Recording", "Source", "decode", "list_videos", "write_video"]
