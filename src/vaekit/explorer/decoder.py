"""Decodes for several requests at once, the latest of each stream."""

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt8

from vaekit.explorer.places import Place

Pictures = UInt8[np.ndarray, "N H W C"]


class Decoder:
    """Turns places into pictures on one thread at a time.

    Requests that come meanwhile wait and are decoded together. Of one stream, such as a slider that moves,
    only the latest request is decoded; the others get None at once.

    Args:
        pictures: decodes places; called on a thread.
    """

    def __init__(self, pictures: Callable[[Sequence[Place]], Pictures]) -> None:
        self._pictures = pictures
        self._waiting: dict[str, tuple[list[Place], asyncio.Future[Pictures | None]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def decode(self, stream: str, places: list[Place]) -> Pictures | None:
        """The pictures of `places`; None if a later request of `stream` came before they were decoded.

        Raises:
            UserError: a place does not exist.
        """
        if superseded := self._waiting.pop(stream, None):
            superseded[1].set_result(None)
        future: asyncio.Future[Pictures | None] = asyncio.get_running_loop().create_future()
        self._waiting[stream] = places, future
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            requests = list(self._waiting.values())
            self._waiting.clear()
            try:
                together = await self._on_thread([place for places, _ in requests for place in places])
                ends = np.cumsum([len(places) for places, _ in requests])
                answers: Sequence[Pictures | Exception] = np.split(together, ends[:-1])
            except Exception:  # of one of them: each by itself
                answers = [await self._alone(places) for places, _ in requests]
            for (_, future), answer in zip(requests, answers, strict=True):
                if future.cancelled():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    async def _alone(self, places: list[Place]) -> Pictures | Exception:
        try:
            return await self._on_thread(places)
        except Exception as error:
            return error

    async def _on_thread(self, places: list[Place]) -> Pictures:
        return await asyncio.to_thread(self._pictures, places)
