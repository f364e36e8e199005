"""No network in any test, and the fixtures that several files share."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synth import talk

from syncdisc_plugin.data.manifest import Clip, clip_row
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.data.writer import StoreWriter, write_shard
from syncdisc_plugin.mel import log_mel
from syncdisc_plugin.nn import Architecture, Discriminator
from syncdisc_plugin.spec import ClipSpec

LOOPBACK = ("127.", "localhost", "::1")
SPEAKERS = 5
CLIPS_PER_SPEAKER = 2


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Sockets reach this machine and nothing else."""
    connect, connect_ex, sendto = (
        socket.socket.connect,
        socket.socket.connect_ex,
        socket.socket.sendto,
    )
    getaddrinfo = socket.getaddrinfo

    def refuse(host: Any) -> None:
        text = host.decode() if isinstance(host, bytes) else str(host)
        if host and not text.startswith(LOOPBACK) and text != socket.gethostname():
            raise PermissionError(f"tests run without network; something asked for {text}")

    def check(sock: socket.socket, address: Any) -> None:
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            refuse(address[0])

    def guarded_connect(self: socket.socket, address: Any) -> None:
        check(self, address)
        return connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        check(self, address)
        return connect_ex(self, address)

    def guarded_sendto(self: socket.socket, data: bytes, *rest: Any) -> int:
        check(self, rest[-1])
        return sendto(self, data, *rest)

    def guarded_getaddrinfo(host: Any, *rest: Any, **options: Any) -> Any:
        refuse(host)
        return getaddrinfo(host, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        patch.setattr(socket.socket, "sendto", guarded_sendto)
        patch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
        # For child processes, and so that a proxy on this machine is no way out: a closed port.
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            patch.setenv(name, "http://127.0.0.1:9")
            patch.setenv(name.upper(), "http://127.0.0.1:9")
        for name in ("no_proxy", "NO_PROXY"):
            patch.setenv(name, "localhost,127.0.0.1,::1")
        yield


@pytest.fixture
def tiny_net() -> Discriminator:
    """An untrained net of 0.2 million weights with lived-in batch norms, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = Discriminator(ClipSpec(), Architecture(face_width=8, audio_width=8, embed_dim=32))
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return net.eval()


@pytest.fixture(scope="session")
def _synthetic_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "store"
    spec = ClipSpec()
    writer = StoreWriter(root, spec)
    for speaker in range(SPEAKERS):
        for take in range(CLIPS_PER_SPEAKER):
            key, n_frames = f"s{speaker}t{take}", 60 + 10 * take
            clip = talk(take, speaker=speaker, n_frames=n_frames, side_px=spec.stored_px)
            mel = log_mel(torch.from_numpy(clip.audio), spec.mel).T.contiguous().numpy()
            pcm = np.round(clip.audio * 32767).astype(np.int16)
            write_shard(root, key, {"0.frames": clip.frames, "0.mel": mel, "0.audio": pcm})
            row = Clip(
                id=f"{key}/0",
                speaker=f"speaker{speaker}",
                source=f"{key}.mp4",
                start_s=0.0,
                n_frames=n_frames,
                n_mels=len(mel),
                face_px=96.0,
                loudness_db=float(10 * np.log10(np.mean(clip.audio**2))),
            )
            writer.add([clip_row(key, row)])
    return root


@pytest.fixture
def tiny_store(_synthetic_store: Path, tmp_path: Path) -> ClipStore:
    """5 speakers with 2 clips of 2.5 s each, in sync; the test's own copy."""
    root = tmp_path / "tiny_store"
    # Runs of other tests, on the store itself, leave their split there.
    shutil.copytree(_synthetic_store, root, ignore=shutil.ignore_patterns("split.json"))
    return ClipStore(root)


def _folder_from(name: str) -> Path:
    value = os.environ.get(name)
    if not value:
        pytest.skip(f"{name} is not set: it names a folder that is not part of the project")
    if not Path(value).is_dir():
        pytest.skip(f"{name}={value} is not a folder")
    return Path(value).resolve()  # as stores name what they hold


@pytest.fixture(scope="session")
def clips_dir() -> Path:
    """Folder of real footage."""
    return _folder_from("SYNCDISC_CLIPS")


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Folder of face detector files."""
    return _folder_from("SYNCDISC_MODELS")
