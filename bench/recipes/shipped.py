"""The training of `syncdisc-base`: without the test speakers first, then with them.

    OMP_NUM_THREADS=1 taskset -c 0 python bench/recipes/shipped.py --clips DIR --out WORK

WORK/first is weights/recipe.yaml on the speakers of the split's `train`: what there are figures of
strangers of. WORK/more goes on from it by weights/recipe_more.yaml, with the test speakers in
training as well. Both choose among their steps by `dev`; nobody ever trains on the wild clips.
A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import yaml
from split import add_footage, prepared
from spoil import Footage

from syncdisc_plugin.train import TrainSettings, train

RECIPES = Path(__file__).parents[2] / "weights"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_footage(parser)
    args = parser.parse_args()
    store, sets = prepared(args)
    known = sets["train"] + sets["dev"]
    first = train(
        Footage(store, known, [], 0.0, 0), args.out / "first", _recipe("recipe"), resume=True
    )
    more = replace(_recipe("recipe_more"), init_from=str(first))
    print(train(Footage(store, known + sets["test"], [], 0.0, 0), args.out / "more", more, True))


def _recipe(name: str) -> TrainSettings:
    return TrainSettings.from_dict(yaml.safe_load((RECIPES / f"{name}.yaml").read_text()))


if __name__ == "__main__":
    main()
