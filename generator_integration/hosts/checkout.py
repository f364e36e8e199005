"""A host's checkout: known by its files, imported in its folder, its scripts changed as we say."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from generator_integration.hosts.host import Facts, HostError
from syncdisc_plugin import SyncLoss


@dataclass(frozen=True)
class Change:
    """One edit of a host's script, as its page in generator_integration tells it."""

    what: str
    """The statement: "import NAME", "def NAME", "call NAME", "set NAME" (an assignment) or
    "unpack NAME" (an assignment of it to several names)."""
    lines: str
    """Our lines in its place; "" takes it out, a line "..." stands for the statement itself."""

    def fits(self, node: ast.stmt) -> bool:
        """Whether that statement is meant."""
        kind, name = self.what.split()
        if kind == "import":
            names = node.names if isinstance(node, ast.Import | ast.ImportFrom) else []
            return any(alias.name == name for alias in names)
        if kind == "def":
            return isinstance(node, ast.FunctionDef) and node.name == name
        if not isinstance(node, ast.Assign | ast.AugAssign | ast.Expr):
            return False
        if kind == "set":
            targets = node.targets if isinstance(node, ast.Assign) else []
            names_set = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            return name in names_set
        if kind == "unpack":
            value = node.value
            several = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)
            return several and isinstance(value, ast.Name) and value.id == name
        calls = (n.func for n in ast.walk(node) if isinstance(n, ast.Call))
        return any(
            name == (f.id if isinstance(f, ast.Name) else getattr(f, "attr", "")) for f in calls
        )


def known(folder: Path, facts: Facts) -> Path:
    """The folder, if it is that host and what its code imports is there; nothing is imported.

    Raises:
        HostError: not that host, or packages are missing.
    """
    folder = folder.expanduser().resolve()
    missing = [name for name in facts.files if not (folder / name).exists()]
    if missing:
        raise HostError(
            f"--host-dir {folder}: no {missing[0]} there; expected a checkout of "
            f"https://github.com/{facts.repository}."
        )
    absent = {
        pip for module, pip in facts.needs.items() if importlib.util.find_spec(module) is None
    }
    if absent:
        raise HostError(
            f"{facts.repository} needs packages that are not installed here: "
            f"pip install {' '.join(sorted(absent))}"
        )
    return folder


def enter(folder: Path, facts: Facts) -> Path:
    """Make a host's folder the place to run in and to import from. Raises as `known` does."""
    folder = known(folder, facts)
    sys.dont_write_bytecode = True  # nothing is left in the host's folder
    os.chdir(folder)  # the hosts read configs and file lists from where they are started
    sys.path.insert(0, str(folder))
    return folder


def load(name: str) -> ModuleType:
    """Import a module of the host that was entered.

    Raises:
        HostError: its code does not import here.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:  # a host's code may fail in any way
        raise HostError(f"{name}: does not import here: {type(error).__name__}: {error}") from error


def load_script(
    path: Path, changes: Iterable[Change], argv: Iterable[str] = (), name: str = ""
) -> ModuleType:
    """Run a host's script, with our changes, as a module of its own name (or as `name`).

    Args:
        path: the script.
        changes: each must fit exactly one statement.
        argv: its command line, for scripts that parse it when they are imported.
        name: "__main__" runs what stands below `if __name__ == "__main__"`, too.

    Raises:
        HostError: the script is another version than the changes are for, or fails.
    """
    source = changed(path.read_text(encoding="utf-8"), changes, path.name)
    module = ModuleType(name or path.stem)
    module.__file__ = str(path)
    if not name:
        sys.modules[path.stem] = module
    before, sys.argv = sys.argv, [path.name, *argv]
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except HostError:
        raise
    except SystemExit as error:
        raise HostError(f"{path.name}: stopped with {error.code}: another version?") from error
    except Exception as error:
        raise HostError(f"{path.name}: {type(error).__name__}: {error}") from error
    finally:
        sys.argv = before
    return module


def changed(source: str, changes: Iterable[Change], name: str) -> str:
    """The script's text with our changes. Raises HostError where one does not fit one statement."""
    lines = source.split("\n")
    edits = []
    tree = ast.parse(source)
    statements = [n for n in ast.walk(tree) if isinstance(n, ast.stmt)]
    for change in changes:
        found = [n for n in statements if change.fits(n)]
        if len(found) != 1:
            raise HostError(
                f"{name}: expected one statement that fits {change.what!r}, found {len(found)}. "
                "It is another version than the one that generator_integration was written for."
            )
        edits.append((found[0].lineno, found[0].end_lineno, found[0].col_offset, change.lines))
    for first, last, column, new in sorted(edits, reverse=True):
        was = lines[first - 1 : last]
        indent = " " * column
        lines[first - 1 : last] = [
            old
            for line in (new or "pass").split("\n")
            for old in (was if line == "..." else [indent + line if line else ""])
        ]
    return "\n".join(lines)


def patch(module: ModuleType, names: Mapping[str, Any]) -> None:
    """Set names of a host's module. Raises HostError for one that it does not have."""
    for name, value in names.items():
        if not hasattr(module, name):
            raise HostError(f"{module.__name__}: no {name} in it: another version of the host?")
        setattr(module, name, value)


@contextmanager
def handing_out(sync: SyncLoss | None) -> Iterator[None]:
    """Within, SyncLoss.for_host gives `sync`: check_host must hold what a script builds."""
    if sync is None:
        yield
        return
    kept = SyncLoss.__dict__["for_host"]
    SyncLoss.for_host = staticmethod(lambda *_, **__: sync)  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        SyncLoss.for_host = kept  # type: ignore[method-assign]


@contextmanager
def without_cuda(device: torch.device) -> Iterator[None]:
    """Within, .cuda() leaves things where they are, for scripts that know nothing else."""
    if device.type == "cuda":
        yield
        return
    kept = nn.Module.cuda, torch.Tensor.cuda
    nn.Module.cuda = torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[assignment]
    try:
        yield
    finally:
        nn.Module.cuda, torch.Tensor.cuda = kept  # type: ignore[method-assign]
