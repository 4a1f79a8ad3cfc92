"""Few at a time, in their order; and who takes long holds nobody up."""

from __future__ import annotations

import asyncio

import pytest

from skerry_server.turnstile import Turnstile

pytestmark = pytest.mark.unit
NEVER = 3600.0


async def settle() -> None:
    """All that can go on has."""
    for _ in range(10):
        await asyncio.sleep(0)


class Guests:
    """Who is in, and who has been."""

    def __init__(self, turnstile: Turnstile) -> None:
        self._turnstile = turnstile
        self.inside: list[str] = []
        self.came = {name: asyncio.Event() for name in "abc"}
        self.leave = {name: asyncio.Event() for name in "abc"}

    async def visit(self, name: str) -> None:
        with await self._turnstile.enter():
            self.inside.append(name)
            self.came[name].set()
            await self.leave[name].wait()
            self.inside.remove(name)


async def come(guests: Guests) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(guests.visit(name)) for name in "abc"]
    await settle()
    return tasks


def test_as_many_as_there_are_places_in_their_order() -> None:
    async def story() -> None:
        guests = Guests(Turnstile(2, NEVER))
        tasks = await come(guests)
        assert guests.inside == ["a", "b"]
        guests.leave["b"].set()
        await settle()
        assert guests.inside == ["a", "c"]
        for event in guests.leave.values():
            event.set()
        await asyncio.gather(*tasks)

    asyncio.run(story())


def test_who_takes_long_no_longer_counts_and_frees_one_place_only() -> None:
    async def story() -> None:
        guests = Guests(Turnstile(1, 0.5))
        tasks = await come(guests)
        assert guests.inside == ["a"]
        await guests.came["b"].wait()
        assert guests.inside == ["a", "b"]
        guests.leave["a"].set()
        await settle()
        assert guests.inside == ["b"], "its place was b's already"
        guests.leave["b"].set()
        guests.leave["c"].set()
        await asyncio.gather(*tasks)

    asyncio.run(story())


def test_a_place_is_free_again_after_an_error_and_after_a_wait_that_was_given_up() -> None:
    async def story() -> None:
        guests = Guests(Turnstile(1, NEVER))
        first, second, third = await come(guests)
        second.cancel()
        first.cancel()
        await settle()
        assert guests.inside[1:] == ["c"]
        guests.leave["c"].set()
        await third

    asyncio.run(story())
