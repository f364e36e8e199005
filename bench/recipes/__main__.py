"""Our three stages beside the field's recipe: same clips, same split, same minutes.

    python bench/recipes --clips DIR --out WORK [--minutes 30] [--spoil 0 0.3] [--seeds 0 1 2]

DIR holds folders of videos and clips.csv (path, speaker). Rows that are in --rows already are not
made again, and a run that was stopped goes on where it was; so the whole table can be made in
pieces. A row's cores are those that the process may use: `OMP_NUM_THREADS=1 taskset -c 0` beside
`-c 1` makes two rows at once, on a core each, that may be compared with each other.
Arms:

    field        the Wav2Lip expert, BCE of the cosine, Adam 1e-4, batch 64 (a)
    field-loss   our net with that objective (b)
    stages       our three stages; stage 1, 2, 3 are rows of their own (c, d, e)
    control      our stage 1 for the whole time

Nothing else should run on those cores meanwhile.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from field import train_field
from split import add_footage, prepared
from spoil import KINDS, Footage
from table import CONTEXTS, write_table

from syncdisc_plugin import weights
from syncdisc_plugin.data.embed import Embedded, embed_clips
from syncdisc_plugin.data.filter import judge_store
from syncdisc_plugin.data.manifest import Clip, read_rows
from syncdisc_plugin.data.pool import cores
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.evaluate import metrics
from syncdisc_plugin.evaluate.summary import summary
from syncdisc_plugin.nn import Discriminator, offset_curve
from syncdisc_plugin.nn.foreign import Wav2LipExpert
from syncdisc_plugin.nn.judge import Judge
from syncdisc_plugin.nn.precision import choose_precision
from syncdisc_plugin.train import StageSettings, TrainSettings, train

ARMS = ("stages", "control", "field", "field-loss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_footage(parser)
    parser.add_argument("--rows", type=Path, help="all rows so far, WORK/rows.jsonl when left out")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--spoil", type=float, nargs="+", default=[0.0, 0.1, 0.3, 0.5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    args = parser.parse_args()
    rows = args.rows or args.out / "rows.jsonl"
    own = cores()
    store, sets = prepared(args)
    budget = {"minutes": args.minutes, "cores": own, "draw": args.draw}
    rows.touch()
    done = {
        (r["arm"], r["spoil"], r["seed"]) for r in read_rows(rows) if budget.items() <= r.items()
    }
    for seed in args.seeds:
        for part in args.spoil:
            for arm in args.arms:
                if (_rows_of(arm)[-1], part, seed) in done:
                    continue
                run = (
                    args.out / "runs" / f"{arm}-{part:g}-{seed}-{args.minutes:g}-{own}-{args.draw}"
                )
                for row in _run(arm, part, seed, run, args.minutes, store, sets):
                    row = {"spoil": part, "seed": seed, **budget, **row}
                    with rows.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(json.dumps({k: v for k, v in row.items() if k != "curve"}))
                write_table(rows)
    write_table(rows)


def _rows_of(arm: str) -> list[str]:
    return ["stage1", "stage2", "stage3"] if arm == "stages" else [arm]


def _run(
    arm: str,
    part: float,
    seed: int,
    run: Path,
    minutes: float,
    store: ClipStore,
    sets: dict[str, list[Clip]],
) -> list[dict]:
    """Train one arm in the folder `run`; its rows of the table."""
    footage = Footage(store, sets["train"] + sets["dev"], sets["train"], part, seed)
    run.parent.mkdir(exist_ok=True, parents=True)
    precision = choose_precision("auto", torch.device("cpu"))
    dev = {c.id for c in sets["dev"]}
    trained_on = [c for c in footage.clips if c.id not in dev]
    if arm in ("field", "field-loss"):
        torch.manual_seed(seed)
        net: Judge = Wav2LipExpert() if arm == "field" else Discriminator(store.spec)
        trained, log = train_field(
            net,
            footage,
            trained_on,
            sets["dev"],
            minutes=minutes,
            seed=seed,
            precision=precision,
            out=run.with_suffix(".safetensors"),
        )
        figures = {
            n: _figures(list(embed_clips(trained, store, sets[n], precision)))
            for n in ("test", "wild")
        }
        return [{"arm": arm, **log, **figures}]
    settings = TrainSettings(
        minutes=minutes,
        seed=seed,
        heldout_speakers=tuple(sorted({c.speaker for c in sets["dev"]})),
    )
    if arm == "control":
        whole = StageSettings(1.0, settings.stage1.learning_rate)
        settings = replace(settings, stage1=whole, last_stage=1)
    train(footage, run, settings, resume=True)
    log = list(read_rows(run / "log.jsonl"))
    last = {r["stage"]: r["step"] for r in log if r["kind"] == "step"}
    windows = settings.chunk_frames - store.spec.window_frames + 1
    rows = []
    for number, name in enumerate(_rows_of(arm), 1):
        net = weights.load(run / f"stage{number}.safetensors")
        scale = float(net.scale.detach()), float(net.bias.detach())
        measures = [r for r in log if r["kind"] == "measure" and r["stage"] <= number]
        row = {
            "arm": name,
            "steps": (steps := sum(last[k] for k in range(1, number + 1))),
            "pairs": steps * settings.batch_clips * windows**2,
            "seconds": measures[-1]["seconds"],
            "curve": [
                {k: r[k] for k in ("seconds", "step", "stage", "pair_accuracy", "pm_accuracy_15")}
                for r in measures
            ],
        }
        for n in ("test", "wild"):
            row[n] = _figures(list(embed_clips(net, store, sets[n], precision)), scale)
        if name == "stage3" and part:
            for k, key, file in ((1, "filter", "filter"), (2, "filter_again", "filter-again")):
                judge = weights.load(run / f"stage{k}.safetensors")
                own = _own_lags(judge, footage, store)
                row[key] = _filter_figures(footage, list(read_rows(run / f"{file}.jsonl")), own)
        if name == "control" and part:
            # How fairly a first discriminator judges that has had three times as long to learn
            # the planted errors by heart.
            judged = judge_store(net, footage, trained_on, precision=precision)
            own = _own_lags(net, footage, store)
            row["filter"] = _filter_figures(footage, [v.row() for v in judged.verdicts], own)
        rows.append(row)
    return rows


def _figures(clips: list[Embedded], scale: tuple[float, float] | None = None) -> dict:
    found = summary(clips, *(scale or metrics.fit_calibration(metrics.far_pairs(clips))))
    pm = found["pm_accuracy"]
    return {
        "pair_accuracy": found["pair_accuracy"],
        "pm_accuracy": {str(k): pm[str(k)] for k in CONTEXTS},  # type: ignore[index]
        "offset_within_1": found["offset_within_1"],
        "ece": found["ece"] if scale else None,
        "gap": found["gap"],
    }


def _own_lags(judge: Discriminator, footage: Footage, store: ClipStore) -> dict[str, int]:
    """What the judge takes for the lag of the shifted clips as they were before.

    The footage was not verified by hand: a clip that was two frames off by itself is off by the
    sum of both afterwards.
    """
    clips = [store[i] for i, p in footage.planted.items() if p.kind == "shifted"]
    return {
        e.clip.id: offset_curve(e.v, e.a).offset_frames for e in embed_clips(judge, store, clips)
    }


def _filter_figures(footage: Footage, verdicts: list[dict], own: dict[str, int]) -> dict:
    """What the filter made of the planted errors, kind by kind, and of the good clips."""
    of = {v["clip_id"]: v for v in verdicts}
    kinds: dict[str, dict] = {}
    for kind in KINDS:
        mine = [i for i, p in footage.planted.items() if p.kind == kind and i in of]
        moved = [i for i in mine if of[i]["verdict"] == "shifted"]
        off = {i: of[i]["offset_frames"] - footage.planted[i].offset_frames for i in moved}
        mended = [i for i in moved if kind == "shifted" and abs(off[i] - own[i]) <= 1]
        kinds[kind] = {
            "clips": len(mine),
            "found": sum(of[i]["verdict"] != "kept" for i in mine),
            "right": len(mended) + sum(of[i]["verdict"] == "dropped" for i in mine),
            "shifted": len(moved),
            "within_1": len(mended),
            "within_1_of_planted": sum(kind == "shifted" and abs(x) <= 1 for x in off.values()),
        }
    good = [v for i, v in of.items() if i not in footage.planted]
    return {
        "kinds": kinds,
        "good": len(good),
        "good_dropped": sum(v["verdict"] == "dropped" for v in good),
        "good_shifted": sum(v["verdict"] == "shifted" for v in good),
    }


if __name__ == "__main__":
    main()
