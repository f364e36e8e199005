"""rows.jsonl and judges.jsonl -> table.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from experts import JUDGES

from syncdisc_plugin.atomic import write_text
from syncdisc_plugin.data.manifest import read_rows

ARMS = {
    "none": "no sync loss",
    "field": "Wav2Lip expert and recipe",
    "stage1": "our stage 1",
    "stage3": "our stage 3",
}
NAMES = {"truth": "true footage", **ARMS, "frozen": "a still mouth"}
NETS = {
    "judge": "the judge: our net, other sizes, whole face, other speakers",
    "judge-field": "the second judge: Wav2Lip's expert and recipe, other speakers",
}
KINDS = {"own": "Driven by its own sound", "other": "Driven by another clip's sound"}
BEST = "stage3"
PAIRED = {  # of a row's takes: words -> values
    "PM 15, own sound": lambda takes: takes["own"]["pm_15"],
    "PM 15, other sound": lambda takes: takes["other"]["pm_15"],
    "similarity, other sound": lambda takes: takes["other"]["similarity"],
    "SSIM": lambda takes: takes["ssim"],
}
RESAMPLES, FEWEST = 2000, 3
Row = dict
Value = Callable[[Row], float | None]


def write_table(out: Path) -> None:
    """Mean over the seeds, with the least and the greatest where there are several."""
    rows = list(read_rows(out / "rows.jsonl"))
    text = _judges(list(read_rows(out / "judges.jsonl")))
    for judge in [name for name in JUDGES if all(name in row["own"] for row in rows)]:
        for kind, words in KINDS.items():
            text += [f"\n## {words}\n\nBy {NETS[judge]}.\n", *_sync(rows, judge, kind)]
    text += ["\n## Picture\n\nDriven by its own sound, beside the true frames.\n", *_picture(rows)]
    text += _fooled(rows)
    text += _against(rows)
    write_text(out / "table.md", "\n".join(text).strip() + "\n")


def way(found: Row, row: Row, net: str) -> float:
    """How far a similarity lies on the way from a still mouth's (0) to the true one's (1)."""
    ends = row["ends"]
    low, high = (ends[end]["own"][net]["similarity"] for end in ("frozen", "truth"))
    return (found[net]["similarity"] - low) / (high - low) if high > low else float("nan")


def _judges(rows: list[Row]) -> list[str]:
    values: dict[str, Value] = {
        "minutes": lambda r: round(r["minutes"]),
        "pair": lambda r: r["pair_accuracy"],
        **{f"PM {k}": (lambda r, k=k: r["pm_accuracy"][k]) for k in ("5", "15", "25")},
        "PM 15, lags undone": lambda r: r["pm_accuracy_aligned"]["15"],
        "offset within 1": lambda r: r["offset_within_1"],
        "gap": lambda r: r["gap"],
    }
    lines = ["## Who judges\n\nOn the test speakers' true footage.\n", *_head(["net", *values])]
    for row in rows:
        cells = [_spread([value(row)]) for value in values.values()]
        lines.append(f"| {row['net']} | " + " | ".join(cells) + " |")
    return lines


def _sync(rows: list[Row], judge: str, kind: str) -> list[str]:
    def of(row: Row) -> Row:
        return row[kind][judge]

    values: dict[str, Value] = {"steps": lambda r: r["steps"]}
    values |= {f"PM {k}": (lambda r, k=k: of(r)["pm_accuracy"][k]) for k in ("5", "15", "25")}
    values |= {
        "PM 15, lags undone": lambda r: of(r)["pm_accuracy_aligned"]["15"],
        "offset error, frames": lambda r: of(r)["offset_mae_frames"],
        "within 1": lambda r: of(r)["offset_within_1"],
        "similarity": lambda r: of(r)["similarity"],
    }
    if kind == "other":
        values |= {
            "nearer to it than to the old sound: takes": lambda r: of(r)["prefers"]["takes"],
            "windows": lambda r: of(r)["prefers"]["windows"],
        }
    return _table(_by_arm(rows), values, "arm")


def _picture(rows: list[Row]) -> list[str]:
    words = {
        "psnr_db": "PSNR, dB",
        "ssim": "SSIM",
        "lpips": "LPIPS",
        "sharpness": "mouth's sharpness, of 1",
        "sharpness_driven": "driven by another clip's sound",
    }
    values: dict[str, Value] = {word: (lambda r, k=k: r["picture"][k]) for k, word in words.items()}
    shown = {arm: mine for arm, mine in _by_arm(rows).items() if arm != NAMES["truth"]}
    return _table(shown, values, "arm")


def _fooled(rows: list[Row]) -> list[str]:
    """How far each arm got by its own expert, and by the judge."""
    mine = {arm: found for arm, found in _by_arm(rows).items() if found[0].get("curve")}
    values: dict[str, Value] = {}
    for kind, words in (("own", "own sound"), ("other", "other sound")):
        for net in ("expert", JUDGES[0]):

            def last(r: Row, kind: str = kind, net: str = net) -> float | None:
                found = r["curve"][-1][kind]
                return way(found, r, net) if net in found else None

            def pm(r: Row, kind: str = kind, net: str = net) -> float | None:
                return r["curve"][-1][kind].get(net, {}).get("pm_accuracy_15")

            values |= {f"{words}, by the {net}": last, f"PM 15, {words}, by the {net}": pm}
    head = (
        "\n## Over-optimisation\n\nAt the end, on some takes, by the expert it was trained with "
        "and by the judge: similarity, 0 a still mouth, 1 the true one, and PM accuracy.\n"
    )
    return [head, *_table(mine, values, "arm")] if mine else []


def _against(rows: list[Row]) -> list[str]:
    """The last arm minus the others, take by take on the same seeds; speakers are drawn."""
    by_seed: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        by_seed[row["arm"]][row["seed"]] = row["takes"]
    lines = []
    for arm in ARMS:
        seeds = sorted(set(by_seed[BEST]) & set(by_seed[arm]))
        if arm == BEST or not seeds:
            continue
        cells = []
        for value in PAIRED.values():
            both = [[value(by_seed[a][s]) for s in seeds] for a in (BEST, arm)]
            speakers = by_seed[arm][seeds[0]]["speaker"]
            cells.append(_difference(np.mean(both[0], 0) - np.mean(both[1], 0), speakers))
        lines.append(f"| {ARMS[arm]} | {len(seeds)} | " + " | ".join(cells) + " |")
    if not lines:
        return []
    head = (
        f"\n## {ARMS[BEST].capitalize()} minus the others\n\nMean over takes and seeds; 95% "
        "interval, speakers drawn with replacement (nothing is said of other seeds).\n"
    )
    return [head, *_head(["than", "seeds", *PAIRED]), *lines]


def _difference(values: np.ndarray, speakers: Sequence[str]) -> str:
    """Mean and interval. values: (takes,)."""
    names, who = np.unique(speakers, return_inverse=True)
    if len(names) < FEWEST:
        return f"{values.mean():+.3f}"
    total, count = np.bincount(who, values), np.bincount(who)
    drawn = np.random.default_rng(0).integers(0, len(names), (RESAMPLES, len(names)))
    low, high = np.quantile(total[drawn].sum(1) / count[drawn].sum(1), [0.025, 0.975])
    return f"{values.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def _by_arm(rows: list[Row]) -> dict[str, list[Row]]:
    found = {name: [r for r in rows if r["arm"] == arm] for arm, name in NAMES.items()}
    return {name: mine for name, mine in found.items() if mine}


def _table(groups: dict[str, list[Row]], values: dict[str, Value], first: str) -> list[str]:
    lines = _head([first, "seeds", *values])
    for name, rows in groups.items():
        seeds = len({r["seed"] for r in rows} - {None})
        cells = [_spread([value(r) for r in rows]) for value in values.values()]
        lines.append(f"| {name} | {seeds or ''} | " + " | ".join(cells) + " |")
    return lines


def _head(names: Sequence[str]) -> list[str]:
    return ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]


def _spread(found: Sequence[float | None]) -> str:
    known = [f for f in found if f is not None]
    if not known:
        return ""
    if all(isinstance(f, int) for f in known):
        return f"{np.mean(known):.0f}"
    mean = f"{np.mean(known):.3f}"
    return mean if len(known) == 1 else f"{mean} ({min(known):.3f} to {max(known):.3f})"
