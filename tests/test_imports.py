"""What importing the package loads and changes, and who imports whom."""

from __future__ import annotations

import ast
import importlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import syncdisc_plugin

PACKAGE = Path(syncdisc_plugin.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
NAME = "syncdisc_plugin"

# Each may import from those before it.
LAYERS = [
    *("spec", "errors", "ranges", "atomic", "digest", "timing", "mel", "nn", "weights"),
    *("frames", "sound", "hosts", "mouth", "looks", "objective", "check", "sync_loss"),
    *("weighting", "compat", "export"),
    *("media", "faces", "region", "data", "evaluate", "train", "demo", "cli"),
]
BEYOND_LAYERS = ("__init__", "__main__")  # the table of contents and `python -m`
# With every public name used: names may come late, but must not bring more.
ALL_NAMES = f"import {NAME} as s; [getattr(s, name) for name in s.__all__]; "
SAY_MODULES = "import sys, json; print(json.dumps(list(sys.modules)))"
LATE = {"media", "faces", "data", "train"}


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_nothing_heavy() -> None:
    loaded = {name.split(".")[0] for name in json.loads(run(ALL_NAMES + SAY_MODULES))}
    heavy = {
        "cv2",
        "librosa",
        "av",
        "face_alignment",
        "scenedetect",
        "matplotlib",
        "skimage",
        "jsonargparse",
        "scipy",
        "sklearn",
        "tensorboard",
        "yaml",
        "PIL",
    }
    assert not loaded & heavy
    assert {"torch", "numpy", "einops", "safetensors"} <= loaded


def test_importing_changes_no_global_setting() -> None:
    text = run(f"""
import os, random, signal, socket, sys, warnings, logging
import numpy as np, torch, einops, safetensors.torch
def state():
    cudnn = torch.backends.cudnn
    return {{
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "filters": list(warnings.filters),
        "seeds": (torch.random.get_rng_state().tolist(), torch.initial_seed(),
                  str(np.random.get_state()), random.getstate()),
        "dtype": torch.get_default_dtype(),
        "cudnn": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
        "matmul": (torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "grad": (torch.is_grad_enabled(), torch.is_anomaly_enabled()),
        "numpy": np.geterr(),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        "timeout": socket.getdefaulttimeout(),
        "logging": (logging.root.level, list(logging.root.handlers)),
        "recursion": sys.getrecursionlimit(),
        "excepthook": sys.excepthook,
    }}
before = state()
{ALL_NAMES}
after = state()
print([key for key in before if before[key] != after[key]])
""")
    assert text.strip() == "[]"


def test_importing_says_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:syncdisc_plugin", "-c", ALL_NAMES],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_table_of_contents_is_true() -> None:
    assert all(hasattr(syncdisc_plugin, name) for name in syncdisc_plugin.__all__)
    assert {"SyncLoss", "Discriminator", "load", "available", "__version__"} <= set(
        syncdisc_plugin.__all__
    )


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_every_module_imports(path: Path) -> None:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts != ("__main__",):
        importlib.import_module(".".join((NAME, *parts)).removesuffix(".__init__"))


# --- who imports whom


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of all that a file imports, inside functions too."""
    package = (NAME, *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def layers_used(path: Path) -> Iterator[tuple[int, str]]:
    for line, name in imported(path):
        parts = name.split(".")
        if parts[0] != NAME:
            continue
        used = parts[1] if len(parts) > 1 else "sync_loss"  # the package itself brings that
        if used != "__version__":
            yield line, used if used in LAYERS else "sync_loss"


def test_every_file_has_a_layer() -> None:
    assert {layer_of(path) for path in FILES} <= {*LAYERS, *BEYOND_LAYERS}
    assert {layer_of(path) for path in FILES} >= {*LAYERS}


def test_arrows_point_one_way() -> None:
    wrong, seen = [], 0
    for path in FILES:
        layer = layer_of(path)
        if layer in BEYOND_LAYERS:
            continue
        for line, used in layers_used(path):
            seen += 1
            if LAYERS.index(used) > LAYERS.index(layer):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {used}")
    assert not wrong
    assert seen > 50  # the walk does find imports


def test_the_sync_loss_never_reaches_footage_or_training() -> None:
    """Nor does anything that it imports."""
    reached, waiting = set(), ["sync_loss"]
    while waiting:
        layer = waiting.pop()
        reached.add(layer)
        for path in FILES:
            if layer_of(path) == layer:
                waiting += [used for _, used in layers_used(path) if used not in reached]
    assert not reached & (LATE | {"evaluate", "demo", "cli"})
    assert {"nn", "weights", "spec"} <= reached


def test_the_host_integrations_are_never_imported() -> None:
    for path in FILES:
        names = [name.split(".")[0] for _, name in imported(path)]
        assert "generator_integration" not in names, path


# --- what must not be used


def calls(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)
            for keyword in node.keywords:
                if keyword.arg in ("allow_pickle", "weights_only"):
                    yield node.lineno, f"{keyword.arg}={ast.unparse(keyword.value)}"


def test_nothing_is_unpickled_or_executed() -> None:
    forbidden_calls = {
        "eval",
        "exec",
        "compile",
        "__import__",
        "torch.save",
        "torch.jit.load",
        "torch.serialization.add_safe_globals",
        "torch.serialization.load",
        "torch.serialization.safe_globals",
        "allow_pickle=True",
        "yaml.load",
        "os.system",
    }
    forbidden_modules = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    wrong = []
    for path in FILES:
        where = path.relative_to(PACKAGE)
        wrong += [f"{where}:{line} {call}" for line, call in calls(path) if call in forbidden_calls]
        wrong += [
            f"{where}:{line} {name}"
            for line, name in imported(path)
            if name.split(".")[0] in forbidden_modules or name in ("torch.load", "torch.save")
        ]
    assert not wrong


def test_one_file_loads_pickles_and_only_their_tensors() -> None:
    reader = PACKAGE / "nn" / "foreign" / "read.py"
    for path in FILES:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        named = [
            n for n in nodes if isinstance(n, ast.Attribute) and ast.unparse(n) == "torch.load"
        ]
        called = [n for n in nodes if isinstance(n, ast.Call) and n.func in named]
        assert len(named) == len(called), path  # under no other name either
        assert bool(called) == (path == reader), path
        for call in called:
            given = [k.value for k in call.keywords if k.arg == "weights_only"]
            assert len(given) == 1 and getattr(given[0], "value", None) is True, path


def test_only_the_commands_print() -> None:
    speakers = {*(PACKAGE / "cli").glob("*.py"), PACKAGE / "demo" / "run.py"}
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in FILES
        if path not in speakers
        for line, call in calls(path)
        if call == "print"
    ]
    assert not wrong
    assert any(call == "print" for _, call in calls(PACKAGE / "cli" / "training.py"))


def test_every_file_has_a_noun_of_its_own() -> None:
    stems = {path.stem for path in FILES}
    assert not stems & {"utils", "util", "common", "helpers", "helper", "misc"}


# --- the tests themselves


def test_no_test_reaches_the_network() -> None:
    with pytest.raises(PermissionError, match="without network"):
        socket.create_connection(("192.0.2.1", 80), timeout=0.1)
    with pytest.raises(PermissionError, match=r"example\.com"):
        socket.getaddrinfo("example.com", 443)
    with socket.socket() as sock, pytest.raises(PermissionError):
        sock.connect_ex(("192.0.2.1", 80))


def test_sockets_on_this_machine_work() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname(), timeout=5) as client:
            client.sendall(b"x")
        peer, _ = server.accept()
        with peer:
            assert peer.recv(1) == b"x"
