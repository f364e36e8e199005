"""Commands on clip stores that are there: `syncdisc store merge | copy | verify | ...`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from syncdisc_plugin.cli.parsing import VERBS, WEIGHTS, new_parser
from syncdisc_plugin.data.remote import location
from syncdisc_plugin.errors import StoreError

_MERGE = "put several stores of one spec into one: those of an array job's --shard i/n, say"
_COPY = "bring a store to an object store (s3://...) or from one; a copy that was stopped goes on"
_VERIFY = "is a store whole: rows, shards, tensors; exit status 1 where something is wrong"
_STATS = "inputs, clips, minutes, speakers, refusals, face sizes, rates, loudness"
_JUDGE = "let weights say how far each clip is off and which of several faces speaks: judged.jsonl"

_OVERVIEW = f"""usage: syncdisc store merge STORE... --out STORE
       syncdisc store copy FROM TO
       syncdisc store verify STORE [--clean]
       syncdisc store stats STORE [--json]
       syncdisc store judge STORE [--weights base]

{VERBS["store"].capitalize()}.

  merge   {_MERGE}
  copy    {_COPY}
  verify  {_VERIFY}
  stats   {_STATS}
  judge   {_JUDGE}

syncdisc store merge --help, and so on, lists the settings."""


def store(args: Sequence[str]) -> int:
    """`syncdisc store`."""
    name = args[0] if args else ""
    if name in ("-h", "--help"):
        print(_OVERVIEW)
        raise SystemExit(0)
    if name not in _COMMANDS:
        given = f"got {name!r}" if name else "got nothing"
        known = ", ".join(_COMMANDS)
        raise StoreError(f"expected one of {known}; {given}. See syncdisc store --help.")
    return _COMMANDS[name](args[1:])


def _merge(args: Sequence[str]) -> int:
    parser = new_parser("store merge", _MERGE)
    parser.add_argument("stores", nargs="+", type=Path, help="stores that `prepare` made")
    parser.add_argument("--out", type=Path, required=True, help="the store: new, or to add to")
    parsed = parser.parse_args(args)
    from syncdisc_plugin.data.merge import merge
    from syncdisc_plugin.data.store import ClipStore

    done = merge(parsed.stores, parsed.out)
    print(
        f"merged {done.clips} clips of {done.inputs} inputs from {len(parsed.stores)} stores "
        f"({done.known} were there already; {done.linked} shards linked, {done.copied} copied) "
        f"-> {parsed.out}"
    )
    ClipStore(parsed.out)  # refuses a store without a clip
    return 0


def _copy(args: Sequence[str]) -> int:
    parser = new_parser("store copy", _COPY)
    what = "a folder, or a URL that fsspec can open"
    parser.add_argument("source", metavar="FROM", type=location, help=f"the store: {what}")
    parser.add_argument("target", metavar="TO", type=location, help=f"new, or older copy: {what}")
    parsed = parser.parse_args(args)
    from syncdisc_plugin.data.copy import copy

    done = copy(parsed.source, parsed.target)
    print(
        f"{parsed.target}: {done.clips} clips; {done.copied} shards copied, {done.there} were there"
    )
    return 0


def _verify(args: Sequence[str]) -> int:
    parser = new_parser("store verify", _VERIFY)
    parser.add_argument("store", type=Path, help="a clip store")
    parser.add_argument(
        "--clean", action="store_true", help="delete what a kill left: shards that no row names"
    )
    parsed = parser.parse_args(args)
    from syncdisc_plugin.data.verify import verify

    found = verify(parsed.store, clean=parsed.clean)
    for finding in found.findings:
        print(f"{finding.kind:8}  {finding.text}")
    if found.removed:
        print(f"removed {found.removed} files that a kill had left")
    what = f"{len(found.findings)} to look at" if found.findings else "whole"
    print(f"{what}: {found.clips} clips of {found.inputs} inputs in {found.shards} shards")
    return 1 if found.findings else 0


def _stats(args: Sequence[str]) -> int:
    parser = new_parser("store stats", _STATS)
    parser.add_argument("store", type=Path, help="a clip store, also one in work")
    parser.add_argument("--json", action="store_true", help="one JSON object, all speakers in it")
    parsed = parser.parse_args(args)
    from syncdisc_plugin.data.stats import stats

    found = stats(parsed.store)
    print(found.to_json() if parsed.json else found.to_text())
    return 0


def _judge(args: Sequence[str]) -> int:
    parser = new_parser("store judge", _JUDGE)
    parser.add_argument("store", type=Path, help="a clip store")
    parser.add_argument("--weights", default="base", help=WEIGHTS)
    parsed = parser.parse_args(args)
    from syncdisc_plugin.data.judged import judge_clips, write_judged
    from syncdisc_plugin.data.store import ClipStore
    from syncdisc_plugin.evaluate.run import load_for

    net, store = load_for(ClipStore(parsed.store), parsed.weights)
    judged = judge_clips(net, store, parsed.weights)
    path = write_judged(store, judged)
    several = [one for one in judged if one.beside]
    counts = Counter(one.speaking for one in judged)
    print(
        f"{counts[True]} clips speak, {counts[False]} are beside a face that does, of "
        f"{counts[None]} it cannot be told ({len(several)} have other faces in sight) -> {path}"
    )
    return 0


_COMMANDS = {"merge": _merge, "copy": _copy, "verify": _verify, "stats": _stats, "judge": _judge}
