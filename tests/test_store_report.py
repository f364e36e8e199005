"""A store's page: its numbers, and that it can be opened anywhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from small_store import add
from test_report import NASTY, Links

from syncdisc_plugin.cli import main
from syncdisc_plugin.data.choice import Choice
from syncdisc_plugin.data.manifest import refused_row
from syncdisc_plugin.data.writer import StoreWriter
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.evaluate.store_report import write_store_report
from syncdisc_plugin.spec import ClipSpec

SEEN = {"seconds": 30.0, "cuts": 1, "detections": 9, "too_small": 0, "too_unsure": 0}
SEEN |= {"tracks": 2, "too_short": 1, "too_short_seconds": 0.6}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips of two videos and more, two refusals, names that break careless HTML."""
    root = tmp_path_factory.mktemp("report") / "store"
    with StoreWriter(root, ClipSpec(face_px=32)) as writer:
        for i in range(5):
            about = {"face_px": 40.0 + 20 * i, "sharpness": 0.1 * i, "turn_deg": 5.0 * i}
            about |= {"face_score": 0.9, "source_fps": 25.0, "language": ("en", "es")[i % 2]}
            path = f"videos/{NASTY}{i}.mp4"
            (row,) = add(writer, f"k{i}", path=path, speaker=NASTY, **about)
            writer.add([row | {"footage": SEEN}])
        for i in range(2):
            writer.add(
                [refused_row(f"r{i}", f"{NASTY}{i}.avi", f"{NASTY}{i}.avi: no audio stream.")]
            )
    rows = [
        {"clip_id": f"k{i}-0/0", "weights": "base", "offset_frames": i - 2, "confidence": 0.1 * i}
        | {"clearness": 9.0, "beside": i % 2, "speaking": (True, False, None)[i % 3], "reason": "x"}
        for i in range(5)
    ]
    (root / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    out = root.parent / "page.html"
    assert write_store_report(root, Choice(min_face_px=64, languages=("en",)), out) == out
    return out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words",
    [
        "7 inputs gave 5 clips, 4 s of faces with sound; 2 of them, 2 s, are chosen.",
        '<th scope="row">inputs</th><td>7</td><td>2.5 min</td>',
        '<th scope="row">face tracks</th><td>10</td><td>7 s</td>',
        '<th scope="row">long enough</th><td>5</td><td>4 s</td>',
        '<th scope="row">chosen</th><td>2</td><td>2 s</td>',
        "<td>no audio stream</td><td>2</td><td>not known</td>",
        "<td>shorter than track.min_frames (there are 5 scene cuts)</td><td>5</td><td>3 s</td>",
        "<td>min_face_px</td><td>2</td><td>2 s</td>",
        "<td>languages</td><td>2</td><td>2 s</td>",
        "3 of 5 clips left out by the choice (min_face_px 2, languages 2).",
        "2 clips show a face that is heard, 2 one beside which another speaks; of 1 they cannot",
        '<th scope="row">es</th><td>2</td><td>2 s</td><td>0 s</td>',
    ],
)
def test_the_page_says_what_the_store_holds(page: str, words: str) -> None:
    assert words in page


def test_it_is_one_file_that_loads_nothing(page: str) -> None:
    links = Links(page)
    assert all(target.startswith(("data:image/jpeg;base64,", "#")) for target in links.targets)
    assert "script" not in links.tags and "<script" not in page
    assert not re.search(r"url\((?!#)", page) and len(links.ids) == len(set(links.ids))
    assert page.count("<img ") == 5 * 5  # five measures; nobody is both worst and best
    assert len(re.findall(r"<svg", page)) == 1 + 9


def test_without_a_choice_all_are_chosen_and_nothing_is_changed(root: Path) -> None:
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    path = write_store_report(root)
    text = path.read_text(encoding="utf-8")
    assert path == root / "report.html" and "5 of them, 4 s, are chosen" in text
    assert "so every clip is chosen" in text and "left out" not in re.sub("<h2>.*?</h2>", "", text)
    assert write_store_report(root).read_text(encoding="utf-8") == text
    assert all(p.read_bytes() == data for p, data in before.items())
    path.unlink()


def test_a_store_of_refusals_only_has_a_page(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", ClipSpec()) as writer:
        name = "/home/me/private/videos/talks/a.mp4"
        writer.add([refused_row("r", name, f"{name}: the audio is silent (-90 dB). Check.")])
    text = write_store_report(tmp_path / "s").read_text(encoding="utf-8")
    assert "1 inputs gave 0 clips" in text
    assert "videos/talks/a.mp4: the audio is silent" in text and "private" not in text


def test_the_verb_tells_a_store_from_a_run(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.html"
    asked = ["--choose.min_face_px", "64", "--choose.languages", '["es"]']
    assert main(["report", str(root), *asked, "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert "1 of them, 1 s, are chosen" in out.read_text(encoding="utf-8")
    (tmp_path / "settings.json").write_text("{}")
    assert main(["report", str(tmp_path), "--choose.min_face_px", "64"]) == 2
    assert "is a run. Name the store" in capsys.readouterr().err
    assert main(["report", str(root), "--data", str(root)]) == 2
    with pytest.raises(StoreError, match=r"needs judged\.jsonl"):
        with StoreWriter(tmp_path / "s", ClipSpec()):
            pass
        write_store_report(tmp_path / "s", Choice(speaking="yes"))
