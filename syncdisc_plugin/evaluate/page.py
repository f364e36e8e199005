"""The report's page: its frame, style sheet, tables, faces and grids of figures."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import PurePath
from typing import Any

import cv2
import numpy as np

from syncdisc_plugin.data.store import ClipStore

MOST_ROWS = 400
MOST_FACES = 24
CSS = """
:root { color-scheme: light dark; --page: #f6f6f4; --card: #fff; --ink: #1f2328; --soft: #59616b;
  --line: #d5d8dc; --blue: #1f6fae; --orange: #bf5b14; --grey: #7b838c; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --card: #1c2024; --ink: #e4e7ea;
  --soft: #a3abb4; --line: #3b4249; --blue: #6cb2e6; --orange: #ef9a58; --grey: #98a1aa; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 3.2rem 0 .4rem; }
p { margin: .5rem 0; max-width: 44rem; }
.lead { font-size: 1.1rem; }
.later, figcaption, .card p { color: var(--soft); }
.cards { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(13.5rem, 1fr));
  margin: 1.4rem 0; }
.card, figure, .scroll { background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; }
.card { padding: .9rem 1rem; }
.card h3 { font-size: .95rem; font-weight: 600; margin: 0; }
.card .figure { font-size: 1.5rem; font-weight: 650; line-height: 1.4; margin: 0;
  color: var(--ink); white-space: nowrap; }
.card p { font-size: .88rem; line-height: 1.45; margin: .2rem 0 0; }
.grid { display: grid; gap: .8rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(21rem, 100%), 1fr)); }
figure { margin: 0; padding: .8rem .8rem .7rem; max-width: 32rem; }
figure svg { display: block; width: 100%; height: auto; }
figure svg text { font-family: inherit !important; }
figcaption { font-size: .88rem; line-height: 1.45; margin-top: .4rem; }
.faces { display: grid; gap: .35rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fill, minmax(3.9rem, 1fr)); }
.faces img { display: block; width: 100%; height: auto; border-radius: .3rem; }
.mouths { display: grid; gap: .4rem; margin: .4rem 0 .8rem;
  grid-template-columns: repeat(auto-fill, minmax(5.2rem, 1fr)); }
.mouths img { display: block; width: 100%; height: auto; border-radius: .3rem; }
.mouths span { color: var(--soft); font-size: .8rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 0; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .4rem .8rem; border-top: 1px solid var(--line);
  vertical-align: top; }
thead th { white-space: nowrap; font-weight: 600; color: var(--soft); }
tbody th { font-weight: 500; overflow-wrap: anywhere; min-width: 8rem; }
details { margin: .8rem 0; }
summary { cursor: pointer; padding: .3rem 0; }
code, pre { font: .88em/1.5 ui-monospace, "SFMono-Regular", Menlo, Consolas, monospace; }
code { overflow-wrap: anywhere; }
pre { margin: .8rem 0; padding: .8rem 1rem; overflow-x: auto; }
thead th { border-top: 0; }
@media (max-width: 30rem) { main { padding: 1.5rem 1rem 3rem; }
  figure { padding: .6rem .5rem; } }
:focus-visible { outline: 2px solid var(--blue); outline-offset: 2px; }
"""


def document(title: str, lead: str, sections: Mapping[str, str]) -> str:
    """The whole page. `lead` and the sections' texts are HTML; `title` is escaped here."""
    body = "\n".join(
        f"<section>\n<h2>{name}</h2>\n{text}\n</section>" for name, text in sections.items()
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="lead">{lead}</p>\n{body}\n'
        "</main>\n</body>\n</html>\n"
    )


def faces(store: ClipStore) -> str:
    """Face crops: one of each speaker first, then of their second clips, and so on."""
    turns: Counter[str] = Counter()
    ranked = []
    for clip in store.clips:
        ranked.append((turns[clip.speaker], clip))
        turns[clip.speaker] += 1
    images = []
    for _, clip in sorted(ranked, key=lambda pair: pair[0])[:MOST_FACES]:
        middle = clip.n_frames // 2
        frame = store.frames(clip, middle, middle + 1)[0]
        images.append(picture(frame, 96, 96, f"Face crop, speaker {clip.speaker}"))
    return f'<div class="faces">{"".join(images)}</div>'


def picture(image: np.ndarray, width: int, height: int, words: str) -> str:
    """An (H, W, 3) uint8 RGB image as a JPEG inside the page; the words are escaped here."""
    _, jpeg = cv2.imencode(".jpg", cv2.resize(image, (width, height))[..., ::-1])
    return (
        f'<img src="data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}" '
        f'width="{width}" height="{height}" alt="{escape(words)}">'
    )


def table(name: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls inside its own box; all words are plain text and escaped here."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in others)
        + "</tr>"
        for first, *others in rows[:MOST_ROWS]
    )
    rest = f"<p>The first {MOST_ROWS} of {len(rows):,}.</p>" if len(rows) > MOST_ROWS else ""
    return (
        f'{rest}<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def short(path: str) -> str:
    """The end of a path: enough to find the file, and no home folder on a page that travels."""
    return "/".join(PurePath(path).parts[-3:])


def reason(row: Mapping[str, Any]) -> str:
    """Why an input was refused, likewise."""
    return str(row["reason"]).replace(str(row["path"]), short(row["path"]))


def folded(name: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table behind its name; open when it is short, nothing when it is empty."""
    state = " open" if len(rows) <= 6 else ""
    inside = f"<summary>{name} ({len(rows):,})</summary>{table(name, head, rows)}"
    return f"<details{state}>{inside}</details>" if rows else ""


def grid(drawn: Iterable[str]) -> str:
    """Figures beside each other, or below each other where the page is narrow."""
    return f'<div class="grid">{"".join(drawn)}</div>'
