"""The clock of a session: speed, progress, a look at the loss, and how often a file is worth writing again."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vaekit.training.loop import Diverged


class StepMonitor:
    """Counts and times steps, moves the progress bar, and looks at the loss a few times a second: at a loss that a GPU
    has sent meanwhile, so that nothing ever waits for it. One that was looked over shows at the end of the epoch."""

    PERIOD = 0.25

    def __init__(self, batch: int, advance: Callable[..., None], stop: Callable[[], bool]) -> None:
        self.batch, self.advance, self.stop = batch, advance, stop
        self.started = self.last = self.shown = time.perf_counter()
        self.steps = self.unshown = 0
        self.sent: tuple[Tensor, torch.cuda.Event] | None = None

    def step(self, loss: Tensor) -> bool:
        self.last = time.perf_counter()
        self.steps += 1
        self.unshown += 1
        if self.last - self.shown > self.PERIOD:
            arrived = self._arrived(loss)
            if not math.isfinite(arrived):
                raise Diverged(f"the loss became {arrived}")
            self._show()
        return self.stop()

    def _arrived(self, loss: Tensor) -> float:
        """This loss, or on a GPU the one sent at an earlier look, if it has arrived; this one is sent then."""
        if loss.device.type != "cuda":
            return loss.item()
        if self.sent is not None and not self.sent[1].query():
            return 0.0
        found = 0.0 if self.sent is None else self.sent[0].item()
        event, here = torch.cuda.Event(), torch.empty((), pin_memory=True)  # other memory would be waited for
        self.sent = here.copy_(loss.detach(), non_blocking=True), event
        event.record(torch.cuda.current_stream(loss.device))
        return found

    def epoch_stats(self, trained: float) -> dict[str, float]:
        """Seconds since the last lap, validation included, and training images per second up to `trained`."""
        self._show()
        now = time.perf_counter()
        speed = self.steps * self.batch / max(trained - self.started, 1e-9)
        seconds = now - self.started
        self.started, self.steps = now, 0
        return {"seconds": round(seconds, 3), "images_per_second": round(speed, 1)}

    def _show(self) -> None:
        self.advance(self.unshown * self.batch)
        self.unshown, self.shown = 0, self.last


class RateLimiter:
    """Keeps a job that is done again and again to a share of the time."""

    def __init__(self, share: float) -> None:
        self.share, self.next = share, 0.0

    def ready(self) -> bool:
        return time.perf_counter() >= self.next

    @contextmanager
    def timed(self) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        now = time.perf_counter()
        self.next = now + (now - begun) / self.share


def picture_due(epoch: int) -> bool:
    """Every epoch up to 20, then every 2nd to 50, 5th to 100, 10th to 200, and so on: about 15 a decade."""
    decade = 10 ** int(math.log10(max(epoch / 10, 1)))
    step = max(decade * nice for nice in (1, 2, 5) if decade * nice <= max(epoch / 10, 1))
    return bool(epoch % step == 0)
