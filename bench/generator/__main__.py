"""What a sync loss does to a generator: four arms that differ in nothing else.

    python bench/generator --clips DIR --out WORK [--minutes 60 | --steps N] [--seeds 0 1 2]

DIR holds folders of videos and, best, clips.csv (path, speaker); or give --store, a prepared one,
which is only read. Speakers are divided in three: one part trains the generators and their
experts, one the judges, and on the third, which nobody trains on, all is measured. Arms:

    none      no sync loss
    field     the Wav2Lip expert's architecture, trained by its own recipe
    stage1    our first discriminator
    stage3    our third one, of the same run; it took as long as the field's

Finished arms are not run again, and one that was stopped goes on where it was. Minutes of the
generators become steps once, so that all arms take as many. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from experts import JUDGES, note_quality, train_expert, train_judge
from figures import Picture
from measure import WATCHED, Drawer, Heldout, drawer, measure, still, truth
from parts import JUDGE, TEST, TRAIN, divide, part_store, said
from pictures import draw_figures, write_frames
from report import ARMS, write_table

from generator_integration.reference.generator import GeneratorSettings
from generator_integration.reference.settings import NONE, GeneratorTrainSettings
from generator_integration.reference.train import train_generator
from syncdisc_plugin import weights
from syncdisc_plugin.atomic import write_text
from syncdisc_plugin.data.manifest import read_rows
from syncdisc_plugin.data.prepare import PrepareSettings, prepare
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.nn.judge import Judge
from syncdisc_plugin.nn.precision import choose_device

SNAPSHOTS = 5  # generators along the training that the experts and the judge are asked about
TIMED = 16  # steps by which minutes become steps, the first ten of them to warm up
FREE = ("clips", "store", "out", "seeds", "arms")  # what may differ from one call to the next


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--clips", type=Path)
    source.add_argument("--store", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0, help="of a generator's training")
    parser.add_argument("--steps", type=int, default=0, help="in place of minutes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--expert-minutes", type=float, default=30.0, help="of each expert")
    parser.add_argument("--judge-minutes", type=float, default=30.0, help="of each judge")
    parser.add_argument(
        "--judges",
        type=int,
        choices=range(1, len(JUDGES) + 1),
        default=len(JUDGES),
        help="1: without the one of the field's recipe",
    )
    parser.add_argument(
        "--expert-seeds", type=int, nargs="+", default=[0], help="taken by the seeds in turn"
    )
    parser.add_argument("--test-speakers", type=int, default=6)
    parser.add_argument("--width", type=int, default=GeneratorSettings().width)
    parser.add_argument("--size", type=int, default=GeneratorSettings().size)
    parser.add_argument("--batch", type=int, default=GeneratorTrainSettings().batch)
    Bench(parser.parse_args(argv)).run()


class Bench:
    """All of it, in one folder."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out = args, args.out
        store = self._store()
        parts = divide(store, args.test_speakers)
        self._agree([clip.id for clips in parts.values() for clip in clips])
        for name, clips in parts.items():
            print(said(name, clips, store.spec.fps))
        self.parts = {
            name: part_store(args.out / "parts" / name, store, clips)
            for name, clips in parts.items()
        }
        self.heldout = Heldout.of(self.parts[TEST], args.size)
        self.watched = self.heldout.some(WATCHED)
        self.picture = Picture()
        print(f"{len(self.heldout.takes)} takes to measure on; LPIPS {self.picture.said}")

    def run(self) -> None:
        """Judges, then every arm of every seed; table and pictures after each."""
        for arm, way in (("truth", truth), ("frozen", self._still)):
            if (arm, None) not in self._done():
                row = measure(self.heldout, way, self.judges, self.picture, arm)
                self._add({"arm": arm, "seed": None, "steps": None, **row})
        for seed in self.args.seeds:
            for arm in self.args.arms:
                if (arm, seed) not in self._done():
                    self._add(self._arm(arm, seed))
        self._report()

    @cached_property
    def judges(self) -> dict[str, Judge]:
        """Those whom no generator has met."""
        out, minutes = self.out / "judges", self.args.judge_minutes
        names = JUDGES[: self.args.judges]
        paths = {name: train_judge(name, self.parts[JUDGE], out, minutes) for name in names}
        for name, path in paths.items():
            note_quality(self.out, name, path, self.parts[TEST], minutes)
        return {name: weights.load_judge(path) for name, path in paths.items()}

    @cached_property
    def settings(self) -> GeneratorTrainSettings:
        """What all arms have in common."""
        args = self.args
        given = GeneratorTrainSettings(
            steps=max(1, args.steps),
            batch=args.batch,
            ear=NONE,  # else it were not the loss alone that knows a discriminator
            generator=GeneratorSettings(width=args.width, size=args.size),
        )
        steps = args.steps or self._steps(given)
        return replace(given, steps=steps, snapshot_steps=max(1, steps // SNAPSHOTS))

    @cached_property
    def _still(self) -> Drawer:
        size = self.args.size
        return still(size // 2)

    def _arm(self, arm: str, seed: int) -> dict[str, Any]:
        """Train and measure one generator: its row."""
        expert = self._expert(arm, seed)
        settings = replace(self.settings, seed=seed, sync=str(expert or NONE))
        run = self._run(arm, seed)
        path = train_generator(self.parts[TRAIN], run, settings, resume=True)
        way = drawer(path, choose_device("auto"))
        steps = [r for r in read_rows(run / "log.jsonl") if r["kind"] == "step"]
        return {
            "arm": arm,
            "seed": seed,
            "steps": settings.steps,
            "expert": expert and str(expert.relative_to(self.out)),
            "seconds": steps[-1]["seconds"],
            **measure(self.heldout, way, self.judges, self.picture, f"{arm} {seed}"),
            **self._along(run, expert),
        }

    def _along(self, run: Path, expert: Path | None) -> dict[str, Any]:
        """What the expert and the judge say of the snapshots, and of true and still mouths."""
        first = JUDGES[0]
        nets = {first: self.judges[first]}
        if expert:
            nets["expert"] = weights.load_judge(expert)

        def asked(way: Drawer, title: str) -> dict[str, Any]:
            found = measure(self.watched, way, nets, None, title)
            return {
                kind: {
                    name: {
                        "similarity": found[kind][name]["similarity"],
                        "probability": found[kind][name]["probability"],
                        "pm_accuracy_15": found[kind][name]["pm_accuracy"]["15"],
                    }
                    for name in nets
                }
                for kind in ("own", "other")
            }

        curve = []
        for path in sorted((run / "snapshots").glob("*.safetensors")):
            step = int(path.stem.removeprefix("step-"))
            curve.append({"step": step, **asked(drawer(path, choose_device("auto")), path.stem)})
        ends = {"truth": asked(truth, "truth"), "frozen": asked(self._still, "frozen")}
        return {"curve": curve, "ends": ends}

    def _expert(self, arm: str, seed: int) -> Path | None:
        seeds, minutes = self.args.expert_seeds, self.args.expert_minutes
        seed = seeds[seed % len(seeds)]
        path = train_expert(arm, self.parts[TRAIN], self.out / "experts", minutes, seed)
        if path:
            note_quality(self.out, f"{arm}-{seed}", path, self.parts[TEST], minutes)
        return path

    def _steps(self, given: GeneratorTrainSettings) -> int:
        """Steps that fit the minutes, with all losses on; found once."""
        path = self.out / "steps.json"
        if not path.exists():
            expert = self._expert("stage3", self.args.seeds[0])
            timed = replace(given, steps=TIMED, sync=str(expert), sync_from=0.0, gan_from=0.0)
            with tempfile.TemporaryDirectory(dir=self.out) as folder:
                train_generator(self.parts[TRAIN], Path(folder), timed, resume=True)
                rows = [r for r in read_rows(Path(folder) / "log.jsonl") if r["kind"] == "step"]
            at = {r["step"]: r["seconds"] for r in rows}
            pace = (at[TIMED] - at[10]) / (TIMED - 10)
            steps = max(1, round(60 * self.args.minutes / pace))
            write_text(path, json.dumps({"steps": steps, "seconds_per_step": round(pace, 3)}))
        return json.loads(path.read_text(encoding="utf-8"))["steps"]

    def _run(self, arm: str, seed: int) -> Path:
        return self.out / "runs" / f"{arm}-{seed}"

    def _done(self) -> set[tuple[str, int | None]]:
        return {(r["arm"], r["seed"]) for r in read_rows(self.out / "rows.jsonl")}

    def _add(self, row: dict[str, Any]) -> None:
        with (self.out / "rows.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self._report()

    def _report(self) -> None:
        """Table and pictures of what is done."""
        write_table(self.out)
        draw_figures(self.out)
        done = sorted((seed, arm) for arm, seed in self._done() if seed is not None)
        shown = {arm: self._run(arm, seed) for seed, arm in reversed(done)}  # the first seed's
        ways = {
            arm: drawer(shown[arm] / "generator.safetensors", choose_device("auto"))
            for arm in ARMS
            if arm in shown
        }
        write_frames(self.out, self.heldout, ways)

    def _store(self) -> ClipStore:
        if self.args.store:
            return ClipStore(self.args.store)
        root, speakers = self.out / "store", self.args.clips / "clips.csv"
        settings = PrepareSettings(speakers=speakers if speakers.exists() else None)
        prepare([self.args.clips], root, settings=settings)
        return ClipStore(root)

    def _agree(self, clips: Sequence[str]) -> None:
        """One folder holds one bench: what decides its figures stays as it was."""
        asked = {k: v for k, v in vars(self.args).items() if k not in FREE}
        asked["clips"] = hashlib.sha256("\n".join(clips).encode()).hexdigest()[:16]
        path = self.out / "plan.json"
        if path.exists() and (plan := json.loads(path.read_text(encoding="utf-8"))) != asked:
            other = sorted(k for k in {*plan, *asked} if plan.get(k) != asked.get(k))
            raise SystemExit(
                f"--out {self.out}: begun with other {', '.join(other)}: "
                f"{ {k: plan.get(k) for k in other} }. Ask for the same, or give a new folder."
            )
        write_text(path, json.dumps(asked, indent=1))


if __name__ == "__main__":
    main()
