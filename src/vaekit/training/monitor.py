"""The clock of training: speed, time left, and a look at the loss."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from vaekit.training.loop import Diverged

REPORT_SHARE = 35
"""Time for a held-out image in the report, in which importance samples are decoded, over the time to train on
an image: 49 with the default convolutions at 64x64, 68 with `classic` on Fashion-MNIST, where the speed of
training is without its pauses (benchmarks/time_left.py, as are the next); with them it is less."""
PRIOR_SHARE = 0.2
"""Time to encode an image, for fitting the prior, over the time to train on it: 0.11 to 0.29."""
PRIOR_IMAGES = 20_000
"""Images that are encoded for the prior, at most."""
PRIOR_SECONDS = 8.0
"""Time to fit its densities: 3.4 to 9.5, and up to 25 with ten large classes."""


class StepMonitor:
    """Counts and times steps, reports progress, and looks at the loss a few times a second.

    On a GPU it looks at a loss that has been sent meanwhile, so that nothing ever waits for the device. A
    loss that it did not look at shows at the end of the epoch. `on_progress` is called at every look with the
    number of images since the last one, `should_stop` after every step.
    """

    PERIOD = 0.25
    """Seconds between two looks."""

    def __init__(
        self, batch_size: int, on_progress: Callable[[int], None], should_stop: Callable[[], bool]
    ) -> None:
        self.batch_size, self.on_progress, self.should_stop = batch_size, on_progress, should_stop
        self._epoch_start = self._last_step = self._last_look = time.perf_counter()
        self._steps = self._unreported_steps = 0
        self._sent: tuple[Tensor, torch.cuda.Event] | None = None

    def on_step(self, loss: Tensor) -> bool:
        """Note a step; whether to stop after it.

        Raises:
            Diverged: the loss is NaN or infinite.
        """
        self._last_step = time.perf_counter()
        self._steps += 1
        self._unreported_steps += 1
        if self._last_step - self._last_look > self.PERIOD:
            value = self._arrived(loss)
            if not math.isfinite(value):
                raise Diverged(f"the loss became {value}")
            self._report()
        return self.should_stop()

    def epoch_stats(self, trained_at: float) -> dict[str, float]:
        """Seconds since the last epoch's end, validation included, and training images per second."""
        self._report()
        now = time.perf_counter()
        speed = self._steps * self.batch_size / max(trained_at - self._epoch_start, 1e-9)
        seconds = now - self._epoch_start
        self._epoch_start, self._steps = now, 0
        return {"seconds": round(seconds, 3), "images_per_second": round(speed, 1)}

    def _arrived(self, loss: Tensor) -> float:
        """This loss; on a GPU the one sent at an earlier look, if it has arrived."""
        if loss.device.type != "cuda":
            return loss.item()
        if self._sent is not None and not self._sent[1].query():
            return 0.0
        value = 0.0 if self._sent is None else self._sent[0].item()
        event, pinned = torch.cuda.Event(), torch.empty((), pin_memory=True)  # other memory is waited for
        self._sent = pinned.copy_(loss.detach(), non_blocking=True), event
        event.record(torch.cuda.current_stream(loss.device))
        return value

    def _report(self) -> None:
        self.on_progress(self._unreported_steps * self.batch_size)
        self._unreported_steps, self._last_look = 0, self._last_step


class TimeLeft:
    """Seconds until a training command returns: the epochs, validation, and what comes after them.

    The command began at `start`, on the clock of `time.perf_counter`; the epoch that runs `limit` seconds
    later is the last one. After the epochs come `work_at_end`, in images that could be trained on in that
    time, and `seconds_at_end`; what comes then fills `planned` seconds since `start`.
    """

    def __init__(
        self,
        start: float,
        limit: float,
        training_images: int,
        work_at_end: float,
        seconds_at_end: float,
        planned: float = 0.0,
    ) -> None:
        self.start, self.limit, self.training_images = start, limit, training_images
        self.work_at_end, self.seconds_at_end, self.planned = work_at_end, seconds_at_end, planned
        self._began, self._seen = math.nan, 0

    def add(self, images: int) -> None:
        """Note images that were trained on; time counts from the first, whose step may be compiled first."""
        if math.isnan(self._began):
            self._began = time.perf_counter()
        else:
            self._seen += images

    def estimate(self, images_left: int) -> float:
        """Seconds left with so many images to train on; nan for the first two seconds."""
        elapsed = time.perf_counter() - self._began
        if not self._seen or elapsed < 2:
            return math.nan
        per_image = elapsed / self._seen  # validation and pictures are in it
        until_limit = max(0.0, self.start + self.limit - time.perf_counter())
        half_an_epoch = 0.5 * self.training_images * per_image
        training = min(images_left * per_image, until_limit + half_an_epoch)
        until_planned = self.start + self.planned - time.perf_counter()
        return max(training + self.work_at_end * per_image + self.seconds_at_end, until_planned)


def work_at_end(training_images: int, report_images: int) -> float:
    """Fitting the prior and writing the report, in images that could be trained on in that time."""
    return PRIOR_SHARE * min(PRIOR_IMAGES, training_images) + REPORT_SHARE * report_images
