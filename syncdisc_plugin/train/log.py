"""The run's log: one JSON row per event, and TensorBoard beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from syncdisc_plugin.atomic import write_text
from syncdisc_plugin.data.manifest import read_rows


class RunLog:
    """Appends rows to RUN/log.jsonl; each row has kind, stage, step and seconds."""

    def __init__(self, run: Path, resume_at: tuple[int, int] | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = run / "log.jsonl"
        rows: list[dict[str, Any]] = []
        if resume_at:
            # What came after the saved state is done again: no row twice.
            stage, step = resume_at
            last = (stage, step) if step else (stage - 1, 10**9)
            rows = [r for r in read_rows(self.path) if (r["stage"], r["step"]) <= last]
        write_text(self.path, "".join(json.dumps(r) + "\n" for r in rows))
        self._file = self.path.open("a", encoding="utf-8")
        purge = sum(1 for r in rows if r["kind"] == "step") or None
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=purge)
        self._count = purge or 0

    def write(self, kind: str, stage: int, step: int, **values: Any) -> None:
        """Write one row; numbers also go to TensorBoard."""
        row = {"kind": kind, "stage": stage, "step": step, **values}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._count += kind == "step"
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._board.add_scalar(f"{kind}/{name}", value, self._count)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._board.close()
