"""bench/lags.py: two nets' lags side by side."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from syncdisc_plugin import weights
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.nn import Discriminator


@pytest.fixture
def lags(monkeypatch: pytest.MonkeyPatch, tiny_store: ClipStore, tiny_net: Discriminator):
    """Runs the command on a small store, an untrained net beside itself."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))
    import lags

    net = tiny_store.root.parent / "net.safetensors"
    weights.save(tiny_net, net)

    def run(*more: str) -> None:
        command = ["lags", "--data", str(tiny_store.root), "--weights", str(net)]
        monkeypatch.setattr(sys, "argv", [*command, "--other", str(net), *more])
        lags.main()

    return run


def test_a_net_agrees_with_itself(lags, capsys: pytest.CaptureFixture[str]) -> None:
    lags("--speakers", "speaker0,speaker1")
    said = capsys.readouterr().out
    rows = re.findall(r"^s\d\S* +\d+ +([-+.\d]+), +([.\d]+) +([-+.\d]+), +([.\d]+)$", said, re.M)
    assert rows and all(a == c and b == d for a, b, c, d in rows)
    assert {name[:2] for name in re.findall(r"^s\d\S*", said, re.M)} == {"s0", "s1"}
    clear = re.search(r"clear to both nets: (\d+) of (\d+)", said)
    assert clear and int(clear[2]) == len(rows)
    assert re.search(r"^as they are +[.\d]+ ( +[.\d]+){3}", said, re.M)


def test_nothing_to_look_at_is_said(lags) -> None:
    with pytest.raises(SystemExit, match="no clip of --folder or --speakers"):
        lags("--speakers", "nobody")
