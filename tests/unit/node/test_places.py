"""How many runs a node lets go on, whatever a server orders."""

from __future__ import annotations

from skerry_node.launchers.launcher import Attempt
from skerry_node.places import Places


def attempts(count: int) -> list[Attempt]:
    return [Attempt(run, 1) for run in range(1, count + 1)]


def test_no_more_than_was_offered() -> None:
    places = Places(2, lambda: None)
    places.offer()
    assert [places.accept(one, child=False) for one in attempts(4)] == [True, True, False, False]


def test_a_place_that_is_free_again_is_offered_again() -> None:
    places = Places(1, lambda: None)
    first, second, third = attempts(3)
    places.offer()
    assert places.accept(first, child=False)
    places.leave(first)
    assert not places.accept(second, child=False)
    places.offer()
    assert places.accept(third, child=False)


def test_children_are_lent_places_within_bounds() -> None:
    places = Places(1, lambda: None)
    places.offer()
    taken = [places.accept(one, child=True) for one in attempts(100)]
    assert taken[:2] == [True, True]
    assert not taken[-1]
