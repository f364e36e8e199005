from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.errors import MediaError, StoreError
from syncdisc_plugin.evaluate.groups import group_names, read_columns
from syncdisc_plugin.faces.turn import turn_deg


def table(store: ClipStore, folder: Path, columns: dict[str, list[str]]) -> Path:
    path = folder / "about.csv"
    rows = zip(*columns.values(), strict=True)
    lines = [
        ",".join(["path", *columns]),
        *(",".join([c.source, *row]) for c, row in zip(store.clips, rows, strict=True)),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_words_of_a_table_make_groups_and_numbers_do_not(
    tiny_store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the store's sources are relative
    n = len(tiny_store)
    words = ["en" if i % 2 else "fr" for i in range(n)]
    about = table(tiny_store, tmp_path, {"language": words, "fps": ["25.0"] * n})
    first, *rest = about.read_text(encoding="utf-8").splitlines()
    about.write_text("\n".join([first, f"{rest[0]},one too many", *rest[1:]]), encoding="utf-8")
    columns = read_columns(about, tiny_store.clips)
    found = group_names(tiny_store.clips, columns)
    assert found["language"] == words and "fps" not in found
    assert found["speaker"] == [c.speaker for c in tiny_store.clips]
    years = group_names(tiny_store.clips, {"folder": dict.fromkeys(columns["language"], "x")})
    assert years["folder"] == found["folder"] and set(years["folder (--about)"]) == {"x"}
    assert set(found["face_px"]) <= {"0-48 px", "48-96 px", "96-192 px", "192 px and more"}


def test_a_table_of_other_videos_is_refused(tiny_store: ClipStore, tmp_path: Path) -> None:
    path = tmp_path / "about.csv"
    path.write_text("path,language\nelsewhere.mp4,en\n", encoding="utf-8")
    with pytest.raises(StoreError, match=r"names none of the .* relative to the folder"):
        read_columns(path, tiny_store.clips)
    path.write_text("file,language\nx.mp4,en\n", encoding="utf-8")
    with pytest.raises(MediaError, match=r"--about .*columns path, got \['file', 'language'\]"):
        read_columns(path, tiny_store.clips)
    path.write_text("language,path\nen\n", encoding="utf-8")
    with pytest.raises(MediaError, match=r"--about .*no path in line 2"):
        read_columns(path, tiny_store.clips)


def test_a_table_may_name_urls(tiny_store: ClipStore, tmp_path: Path) -> None:
    clips = [replace(c, source=f"s3://talks/{i}.mp4") for i, c in enumerate(tiny_store.clips)]
    path = tmp_path / "about.csv"
    path.write_text("path,language\ns3://talks/1.mp4,fr\n", encoding="utf-8")
    words = read_columns(path, clips)["language"]
    assert [words[c.id] for c in clips] == ["", "fr", *[""] * (len(clips) - 2)]


def test_the_turn_of_a_head_is_the_stores_own(tiny_store: ClipStore) -> None:
    turns = [None, 0.0, 9.9, 10.0, 80.0]
    clips = [replace(c, turn_deg=t) for c, t in zip(tiny_store.clips, turns, strict=False)]
    found = group_names(clips)["head_turn"]
    assert found == ["", "0-10°", "0-10°", "10-20°", "35° and more"]
    assert "head_turn" not in group_names([replace(c, turn_deg=None) for c in clips])


def face(yaw_deg: float, roll_deg: float = 0.0) -> np.ndarray:
    """Five points of a head in which the nose stands out by 0.6 distances of the eyes."""
    yaw, roll = np.radians([yaw_deg, roll_deg])
    points = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0, 0.6, 0.6], [-0.4, 1, 0], [0.4, 1, 0]])
    x = points[:, 0] * np.cos(yaw) + points[:, 2] * np.sin(yaw)
    flat = np.stack([x, points[:, 1]], 1) * 40
    turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
    return flat @ turn + 60


@pytest.mark.parametrize("yaw", [-50, -20, 0, 10, 35])
def test_the_turn_of_a_head(yaw: int) -> None:
    assert turn_deg(face(yaw)) == pytest.approx(yaw, abs=0.1)


def test_one_eye_behind_the_other_is_a_profile() -> None:
    points = face(0)
    points[1] = points[0]
    assert turn_deg(points) == 90.0
