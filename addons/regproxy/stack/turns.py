"""One worker at a time asks a registry what several of them want to know; the others look first what it has learnt."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from regproxy.store.crew.sharing import Claim


class Turns:
    """The turns of this process among others; a process that works alone is always next."""

    def __init__(self, claim: Callable[[str], Claim] | None = None) -> None:
        self._claim = claim

    @contextlib.asynccontextmanager
    async def turn(self, question: str, limit_s: float) -> AsyncIterator[bool]:
        """Wait for the turn to ask a question, or for the end of another one's, but for no more than so many seconds.

        Yields whether another worker has had an answer meanwhile.
        """
        if self._claim is None:
            yield False
            return
        claim = self._claim(f"ask {question}")
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    while not claim.is_granted and not claim.is_over:
                        await claim.next_word()
            yield claim.is_over
        finally:
            claim.release()
