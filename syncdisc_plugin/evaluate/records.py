"""What a run has left in its folder, read for the report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syncdisc_plugin import weights
from syncdisc_plugin.data.manifest import read_rows

NAMES = {0: "Untrained", 1: "Stage 1", 2: "Stage 2", 3: "Stage 3"}
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class RunRecords:
    """What a run, finished or not, has left so far."""

    run: Path
    log: Rows
    heldout: dict[int, dict[str, Any]]
    """RUN/heldout/stageN.json by stage."""
    figures: dict[int, dict[str, Any]]
    """Held-out figures by stage, 0 the first weights'."""
    about: dict[str, Any]
    """What the newest weights say of themselves."""
    settings: dict[str, Any]

    @property
    def names(self) -> dict[int, str]:
        """What the stages are called; 0 is what the run began with."""
        return {**NAMES, 0: "At the start"} if self.settings.get("init_from") else NAMES

    @property
    def stage(self) -> int:
        """The last finished stage; 0 before that."""
        return max(self.figures, default=0)

    @property
    def last(self) -> int:
        """The stage after which it is to end."""
        return int(self.settings.get("last_stage", 3))

    def rows(self, kind: str, stage: int = 0) -> Rows:
        """Rows of the log of that kind, of one stage if it is given."""
        return [r for r in self.log if r["kind"] == kind and stage in (0, r["stage"])]

    def lengths(self) -> dict[int, int]:
        """Steps made in each stage that has begun."""
        return {
            stage: max(r["step"] for r in self.log if r["stage"] == stage)
            for stage in sorted({r["stage"] for r in self.log})
        }


def read_records(run: Path) -> RunRecords:
    """Read the folder of a run."""
    heldout = {stage: read_json(run / "heldout" / f"stage{stage}.json") for stage in NAMES}
    heldout = {stage: held for stage, held in heldout.items() if held}
    log = list(read_rows(run / "log.jsonl"))
    known = {r["stage"]: r["figures"] for r in log if r["kind"] == "stage_end"}
    known |= {stage: held["figures"] for stage, held in heldout.items()}
    found = [run / f"stage{n}.safetensors" for n in (3, 2, 1)]
    about = next((weights.read_about(path) for path in found if path.exists()), {})
    return RunRecords(run, log, heldout, known, about, read_json(run / "settings.json"))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file, empty where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
