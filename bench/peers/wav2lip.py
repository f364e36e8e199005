"""Run Wav2Lip's own preprocess.py: python wav2lip.py CHECKOUT --data_root D ..."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

from stand_ins import FaceAlignment, module

checkout = Path(sys.argv.pop(1))
module("face_detection", FaceAlignment=FaceAlignment, LandmarksType=SimpleNamespace(_2D=1))
sys.path.insert(0, str(checkout))
runpy.run_path(str(checkout / "preprocess.py"), run_name="__main__")
