"""check_range: a number that lies where it must, or an error that says where that is."""

from __future__ import annotations

from numbers import Real


def check_range(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    fix: str = "",
) -> None:
    """Refuse what is no number, is nan, or lies outside the bounds that are given.

    Args:
        name: of the parameter, or its flag.
        value: what came.
        least, above: the lower bound, itself allowed or not.
        most, below: the upper bound, itself allowed or not.
        fix: a sentence to end with.

    Raises:
        ValueError: it is refused.
    """
    bounds = ((least, "of at least"), (above, "above"), (most, "of at most"), (below, "below"))
    words = " and ".join(f"{word} {bound:g}" for bound, word in bounds if bound is not None)
    if (
        not isinstance(value, Real)
        or (number := float(value)) != number
        or (least is not None and number < least)
        or (above is not None and number <= above)
        or (most is not None and number > most)
        or (below is not None and number >= below)
    ):
        said = f"{name}: expected a number {words}".rstrip()
        raise ValueError(f"{said}, got {value!r}.{' ' * bool(fix)}{fix}")
