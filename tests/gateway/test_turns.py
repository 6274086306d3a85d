from __future__ import annotations

import asyncio

from autoglm_gateway.turns import LIGHT_BYTES, Turns


async def test_between_two_heavy_pieces_everybody_else_has_a_turn() -> None:
    turns, said = Turns(), []

    async def probe() -> None:
        for _ in range(2):
            said.append("probe")
            await asyncio.sleep(0)

    heavy = [turns.run(lambda: said.append("heavy"), LIGHT_BYTES + 1) for _ in range(3)]
    await asyncio.gather(*heavy, probe())

    between = "".join("p" if word == "probe" else "h" for word in said)
    assert "hh" not in between[:4]


async def test_light_work_waits_for_nobody() -> None:
    turns = Turns()
    heavy = asyncio.ensure_future(turns.run(lambda: "heavy", LIGHT_BYTES + 1))
    await asyncio.sleep(0)

    assert await turns.run(lambda: "light", LIGHT_BYTES) == "light"
    assert not heavy.done()
    assert await heavy == "heavy"


async def test_work_that_fails_holds_nobody_up() -> None:
    turns = Turns()
    outcomes = await asyncio.gather(
        turns.run(lambda: 1 // 0, LIGHT_BYTES + 1), turns.run(lambda: 1, LIGHT_BYTES + 1), return_exceptions=True
    )

    assert isinstance(outcomes[0], ZeroDivisionError)
    assert outcomes[1] == 1
