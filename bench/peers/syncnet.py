"""Run syncnet_python's own run_pipeline.py: python syncnet.py CHECKOUT --videofile V ..."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from stand_ins import S3FD, OneShot, module

checkout = Path(sys.argv.pop(1))
module("detectors", S3FD=S3FD)
module("scenedetect")
module("scenedetect.video_manager", VideoManager=OneShot)
module("scenedetect.scene_manager", SceneManager=OneShot)
module("scenedetect.frame_timecode", FrameTimecode=OneShot)
module("scenedetect.stats_manager", StatsManager=OneShot)
module("scenedetect.detectors", ContentDetector=OneShot)
sys.path.insert(0, str(checkout))
done = runpy.run_path(str(checkout / "run_pipeline.py"), run_name="__main__")
for track in done["alltracks"]:
    sides = (track["bbox"][:, 2:] - track["bbox"][:, :2]).mean(0)
    print("track", len(track["frame"]), max(sides))
