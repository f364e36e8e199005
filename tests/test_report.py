from __future__ import annotations

import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from syncdisc_plugin import weights
from syncdisc_plugin.atomic import write_text
from syncdisc_plugin.data.manifest import Clip, clip_row, refused_row
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.data.writer import StoreWriter, write_shard
from syncdisc_plugin.evaluate.report import write_report
from syncdisc_plugin.nn import Architecture, Discriminator
from syncdisc_plugin.spec import ClipSpec
from syncdisc_plugin.train import TrainSettings
from syncdisc_plugin.train.measure import HISTOGRAM_EDGES

NASTY = "a\"b<script>alert(1)</script>&'c"
STEPS = {1: 500, 2: 200, 3: 300}


def fake_heldout(stage: int, rng: np.random.Generator, clips: int = 14) -> dict[str, Any]:
    """RUN/heldout/stageN.json of a net that gets better."""
    skill = (0.01, 0.6, 0.72, 0.78)[stage]
    true, false = rng.normal(skill, 0.18, 4000), rng.normal(0.02, 0.2, 9000)
    x = np.arange(-15, 16)
    curves = []
    for i in range(clips):
        similarity = skill * np.exp(-(x**2) / 6) + rng.normal(0, 0.04, 31)
        curves.append(
            {
                "clip": f"{i}/0",
                "source": f"/data/{i}.mp4",
                "speaker": f"s{i}",
                "offset_frames": int(x[similarity.argmax()]),
                "confidence": float(similarity.max()),
                "similarity": similarity.round(4).tolist(),
            }
        )
    accuracy = (0.512, 0.951, 0.966, 0.9734)[stage]
    return {
        "stage": stage,
        "figures": {
            "pair_accuracy": accuracy,
            "pm_accuracy": {"5": accuracy - 0.31, "15": accuracy - 0.02, "25": accuracy},
            "ece": (0.02, 0.05, 0.041, 0.0123)[stage],
            "similarity_true": skill,
            "similarity_false": 0.02,
            "gap": skill - 0.02,
            "offset_within_1": (0.1, 0.9, 0.93, 0.9643)[stage],
            "n_clips": clips,
            "n_speakers": 5,
            "n_windows": 7300,
        },
        "histogram": {
            "edges": HISTOGRAM_EDGES.round(4).tolist(),
            "true": (np.histogram(true, HISTOGRAM_EDGES)[0] / len(true)).tolist(),
            "false": (np.histogram(false, HISTOGRAM_EDGES)[0] / len(false)).tolist(),
        },
        "curves": curves,
    }


def fake_log(stages: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Rows as the trainer writes them; loss and figures approach their ends."""
    seconds = 0.0
    for stage in range(1, stages + 1):
        n, start = STEPS[stage], (0.0, 0.75, 0.9)[stage - 1]
        for step in range(0, n + 1, 10):
            seconds += 17
            at = {"stage": stage, "step": step, "seconds": seconds}
            good = start + (0.95 - start) * (1 - np.exp(-3 * step / n))
            if step:
                loss = (3.2, 4.6, 3.4)[stage - 1] * (1 - 0.8 * good) + rng.normal(0, 0.08)
                yield {"kind": "step", **at, "loss": loss, "chance": 3.2 + 0.2 * (stage == 3)}
            if step % 50 == 0:
                row = {"kind": "measure", **at, "pair_accuracy": 0.5 + 0.5 * good}
                row |= {"pm_accuracy_5": 0.1 + 0.6 * good, "pm_accuracy_15": 0.1 + 0.88 * good}
                row |= {"similarity_true": 0.8 * good, "similarity_false": 0.02, "gap": 0.8 * good}
                if stage == 2:
                    row["target"] = 0.05 * np.ceil((row["gap"] + 0.03) / 0.05)
                yield row
        if stage == 1:
            yield {"kind": "filter", "stage": 1, "step": n, "kept": 70, "shifted": 6, "dropped": 5}
        if stage == 2:
            words = "stalled: gap 0.752 of target 0.800 after 4 measurements <best kept>"
            yield {"kind": "stage", "stage": 2, "step": n, "verdict": words}


def write_run(run: Path, stages: int = 3) -> Path:
    """A plausible run that has finished `stages` stages."""
    rng = np.random.default_rng(0)
    settings = json.dumps(asdict(TrainSettings(steps=1000, seed=7)))
    write_text(run / "settings.json", settings)
    rows = "".join(json.dumps(row) + "\n" for row in fake_log(stages, rng))
    write_text(run / "log.jsonl", rows)
    for stage in range(stages + 1):
        text = json.dumps(fake_heldout(stage, rng))
        write_text(run / "heldout" / f"stage{stage}.json", text)
    verdicts = []
    for i in range(81):
        verdict = "kept" if i < 70 else "shifted" if i < 76 else "dropped"
        offset = {"kept": i % 3 - 1, "shifted": 4 + i % 4, "dropped": i % 25 - 12}[verdict]
        strength = float(rng.normal(9, 2) if verdict != "dropped" else rng.uniform(0.2, 1.5))
        row = {"clip_id": f"{i}/0", "source": f"/data/set/{NASTY}{i}.mp4", "verdict": verdict}
        row |= {"offset_frames": offset, "strength": strength, "reason": f"because {NASTY}"}
        verdicts.append(json.dumps(row) + "\n")
    found = {"kept": 70, "shifted": 6, "dropped": 5, "keep_threshold": 1.61}
    found |= {"shift_threshold": 2.05, "impostor_strengths": rng.gamma(3, 0.3, 600).tolist()}
    write_text(run / "filter.json", json.dumps(found))
    write_text(run / "filter.jsonl", "".join(verdicts))
    again = {"kept": 71, "shifted": 7, "dropped": 3}
    write_text(run / "filter-again.json", json.dumps(again))
    zero = {"weights": "base", "lag_frames": 2, "clear_clips": 60}
    write_text(run / "reference.json", json.dumps(zero))
    net = Discriminator(ClipSpec(), Architecture(face_width=4, audio_width=4, embed_dim=8))
    about = {"split": "5 of 28 speakers held out", "speakers": 23, "minutes_of_footage": 32.1}
    weights.save(net, run / f"stage{stages}.safetensors", stage=stages, **about)
    return run


def write_store(root: Path) -> ClipStore:
    """Two clips and two refusals, with names that break careless HTML."""
    spec = ClipSpec()
    writer = StoreWriter(root, spec)
    for i in range(2):
        frames = np.full((30, spec.stored_px, spec.stored_px, 3), 90 + 60 * i, np.uint8)
        write_shard(root, f"k{i}", {"0.frames": frames})
        clip = Clip(f"k{i}/0", f"{NASTY}{i}", f"{NASTY}{i}.mp4", 0.0, 30, 96, 80.0, -20.0)
        writer.add([clip_row(f"k{i}", clip)])
    for i in range(2):
        writer.add([refused_row(f"r{i}", f"/data/{NASTY}{i}.avi", f"no face: {NASTY}")])
    return ClipStore(root)


class Links(HTMLParser):
    """Collects tags and everything that a browser would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.targets: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "poster", "data"):
                self.targets.append(value or "")
            if name == "id":
                self.ids.append(value or "")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    path = write_report(
        write_run(folder / "run"),
        write_store(folder / "store"),
        defaults=asdict(TrainSettings()),
    )
    assert path == folder / "run" / "report.html"
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words",
    [
        "97.3%",  # pair accuracy
        "66.3% · 95.3%",  # PM at 5 and 15
        "96.4%",  # clips within one frame
        "0.012",  # calibration error
        "51.2%",  # the untrained net
        "5 of 28 speakers held out",
        "32.1 minutes of 23 speakers",
        "in 1,000 steps",
        "2 inputs refused",
        "Of 81 clips, 70 were kept as they are, 6 kept after shifting the audio, and 5 dropped.",
        "stalled: gap 0.752 of target 0.800",
        "judged them anew: 71 kept, 7 shifted, 3 dropped.",
        "By the reference weights base, the audio of the set is 2 frames early; this was undone",
        "SyncLoss(&quot;run/stage3.safetensors&quot;)",
    ],
)
def test_the_page_says_what_the_run_made(page: str, words: str) -> None:
    assert words in page


def test_without_a_reference_the_page_says_what_it_cannot_see(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "reference.json").unlink()
    assert "cannot be seen from inside" in write_report(run, None).read_text(encoding="utf-8")


def test_only_settings_off_the_defaults_are_in_the_first_table(page: str) -> None:
    first = page[page.index("Other than the defaults:") : page.index("All settings")]
    assert re.findall(r'<th scope="row">([^<]*)</th><td>([^<]*)</td>', first) == [
        ("steps", "1000"),
        ("seed", "7"),
    ]
    assert "stage3.mix.other_speaker" in page[page.index("All settings") :]


def test_nothing_is_loaded_from_outside(page: str) -> None:
    links = Links(page)
    assert links.targets
    assert all(target.startswith(("data:image/jpeg;base64,", "#")) for target in links.targets)
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page


def test_names_and_reasons_are_escaped(page: str) -> None:
    assert "script" not in Links(page).tags
    assert "<best kept>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in page
    assert page.count("<img ") == 2


def test_every_drawing_is_xml_with_a_name_and_no_id_twice(page: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) == 4 + 4 + 1 + 2 + 4
    for drawing in drawings:
        assert ElementTree.fromstring(drawing).get("aria-label")
        assert not re.search(r"#0[1-5]0[1-5]0[1-5]", drawing)  # all colours follow the theme
    ids = Links(page).ids
    assert len(ids) == len(set(ids))


def test_headings_go_down_one_level_at_a_time(page: str) -> None:
    levels = [int(tag[1]) for tag in Links(page).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", stages=1)
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


@pytest.mark.parametrize("stages", [1, 2])
def test_an_unfinished_run_shows_what_exists(tmp_path: Path, stages: int) -> None:
    text = write_report(write_run(tmp_path, stages), title=NASTY).read_text(encoding="utf-8")
    assert "This run is not finished" in text
    assert f"The best weights of stage {stages}" in text
    assert "Not yet: stage 3 makes the weights" in text
    assert "script" not in Links(text).tags


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    row = {"kind": "measure", "stage": 1, "step": 0, "seconds": 20.0, "pair_accuracy": 0.5088}
    row |= {"pm_accuracy_5": 0.091, "pm_accuracy_15": 0.085, "gap": 0.0}
    row |= {"similarity_true": 0.0, "similarity_false": 0.0}
    write_text(tmp_path / "log.jsonl", json.dumps(row) + '\n{"kind": "st')
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "50.9%" in text
    assert text.count("Not yet") >= 5


def test_an_empty_folder_has_a_page(tmp_path: Path) -> None:
    assert "has made no step yet" in write_report(tmp_path).read_text(encoding="utf-8")
