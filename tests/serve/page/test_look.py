"""Pages that are open at the same time share one look."""

from __future__ import annotations

import asyncio

from anyio import CapacityLimiter

from edgemed.serve.http.page.routes import Look


def test_who_asks_at_the_same_time_shares_one_look() -> None:
    taken: list[int] = []

    def take() -> bytes:
        taken.append(len(taken))
        return b"%d" % taken[-1]

    async def watch() -> list[bytes]:
        look = Look(take, CapacityLimiter(2))
        first = await asyncio.gather(*(look() for _ in range(20)))
        look._taken_ns -= 10**9
        return [*first, await look()]

    seen = asyncio.run(watch())
    assert seen == [b"0"] * 20 + [b"1"]
