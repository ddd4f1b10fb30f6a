"""One training step: from a batch to new weights."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from zuko.lazy import LazyTransform

from vaekit.config.training import TrainingConfig
from vaekit.errors import OutOfMemory, UserError, setting
from vaekit.models.flow_matching import FlowMatching
from vaekit.models.terms import Labels, Objective
from vaekit.models.vae import VAE
from vaekit.runs.checkpoint import Snapshot, copied, optimizer_tensors, restore_optimizer
from vaekit.training.ema import EMA
from vaekit.training.optimizers import learning_rate, make_optimizer, set_learning_rate
from vaekit.utils.cuda_graphs import CudaGraph, is_capturing
from vaekit.utils.device import RANDOM_NUMBERS, out_of_memory
from vaekit.utils.logging import log, status
from vaekit.utils.random import derive_seed

Model = VAE | FlowMatching
Metrics = dict[str, Tensor]
"""Named values to log, nats per image; "loss" is among them. The next step may overwrite them: CUDA graphs
reuse their memory."""
LossFn = Callable[[Tensor, Labels | None, float], tuple[Tensor, Metrics]]
"""Images, labels and the fractional epoch -> the loss, and metrics."""


class TrainStep:
    """Owns the model in training, its EMA, optimizer and schedules, and takes training steps.

    Random numbers and the learning rate depend only on the step's number, so that a resumed run takes the
    same steps as an uninterrupted one. A batch that does not fit in memory goes through in micro-batches. On
    an NVIDIA GPU the step is captured as a CUDA graph once the objective's schedules have ended, together
    with the optimizer's work if that counts its steps on the device.

    The model is trained in place. In `settings` every "auto" is resolved.
    """

    def __init__(
        self, model: Model, objective: Objective, settings: TrainingConfig, steps_per_epoch: int
    ) -> None:
        self.model: Any = model
        self.objective, self.settings = objective, settings
        self.steps_per_epoch = steps_per_epoch
        self.ema = EMA(model, settings.ema)
        self.optimizer = make_optimizer(model.parameters(), settings)
        self.loss_fn = make_loss_fn(model, objective, settings.compile == "on")
        self.micro_batches = 1
        """Parts that a batch goes through the model in, because the whole did not fit in memory."""
        self.eval_micro_batches = 1
        """The same for validation batches, which share the memory with training."""
        self._parameters = list(model.parameters())
        self._captures_optimizer = all(group.get("capturable") for group in self.optimizer.param_groups)
        self._compiles_next = settings.compile == "on"
        self._graph = self._eval_graph = None
        if model.graph_safe:
            self._eval_graph = CudaGraph(self._eval_metrics)
            if self._parameters[0].device.type == "cuda":
                self._graph = CudaGraph(self._step if self._captures_optimizer else self.compute_gradient)

    def __call__(self, x: Tensor, y: Labels | None, step: int) -> Metrics:
        """Take training step number `step` (from 0) on a batch x [B, C, H, W] with labels y [B].

        Raises:
            OutOfMemory: the batch does not fit in memory and cannot be divided.
        """
        total = self.settings.epochs * self.steps_per_epoch
        set_learning_rate(self.optimizer, learning_rate(self.settings, step, total))
        with RANDOM_NUMBERS:
            seed_generators(x.device, self.settings.seed, "noise", step)
            metrics = self.optimize(x, y if self.model.classes else None, step / self.steps_per_epoch)
        self.ema.update(step)
        return metrics

    def optimize(self, x: Tensor, y: Labels | None, epoch: float) -> Metrics:
        """Gradient and optimizer step, by the captured CUDA graph if there is one."""
        if self._compiles_next and (epoch >= self.objective.schedule_end or has_flow(self.model)):
            self._compiles_next = False
            with status("Compiling"):
                return self.optimize(x, y, epoch)
        # A graph keeps its memory, which is short where there are micro-batches
        if self._graph is None or epoch < self.objective.schedule_end or self.micro_batches > 1:
            return self._step(x, y, epoch)
        metrics = self._graph(x) if y is None else self._graph(x, y)
        if not self._captures_optimizer:
            self._update_weights()
        return metrics

    def _step(self, x: Tensor, y: Labels | None = None, epoch: float = math.inf) -> Metrics:
        metrics = self.compute_gradient(x, y, epoch)
        self._update_weights()
        return metrics

    def compute_gradient(self, x: Tensor, y: Labels | None = None, epoch: float = math.inf) -> Metrics:
        """Compute gradients: zero_grad, loss, backward.

        If memory runs out, the batch is divided in two, four, ... micro-batches, and the
        gradient is the mean of theirs.

        Raises:
            OutOfMemory: the batch does not fit in memory and cannot be divided.
            UserError: the step cannot be compiled here.
        """
        while True:
            for parameter in self._parameters:  # what optimizer.zero_grad does, at a fifth of the cost
                parameter.grad = None
            try:
                if self.micro_batches == 1:
                    return self._backward(x, y, epoch)
                return self._accumulate(x, y, epoch)
            except RuntimeError as error:
                if self.settings.compile == "on":
                    _raise_if_compilation_failed(error)
                if not out_of_memory(error) or is_capturing(x.device):
                    raise
            self.micro_batches = divide_further(self.micro_batches, x, self.supports_accumulation)

    def _backward(self, x: Tensor, y: Labels | None, epoch: float) -> Metrics:
        loss, metrics = self.loss_fn(x, y, epoch)
        loss.backward()
        return {name: value.detach() for name, value in metrics.items()}

    def _accumulate(self, x: Tensor, y: Labels | None, epoch: float) -> Metrics:
        sums: Metrics = {}
        parts = x.chunk(self.micro_batches)
        labels_of_parts = [None] * len(parts) if y is None else y.chunk(self.micro_batches)
        for images, labels in zip(parts, labels_of_parts, strict=True):
            loss, metrics = self.loss_fn(images, labels, epoch)
            share = len(images) / len(x)
            (share * loss).backward()
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0) + share * value.detach()
        return sums

    def _update_weights(self) -> None:
        if self.settings.clip:
            nn.utils.clip_grad_norm_(self._parameters, self.settings.clip)
        try:
            self.optimizer.step()
        except RuntimeError as error:
            device = self._parameters[0].device
            if not out_of_memory(error) or is_capturing(device):
                raise
            message = f"Out of memory while allocating the optimizer's state on {device}."
            raise OutOfMemory(message, f"Use a smaller network or {setting('optimizer', 'sgd')}.") from error

    @property
    def supports_accumulation(self) -> bool:
        """Whether a batch may go through in micro-batches.

        A noise level that follows the batches would follow their parts, and those of a failed attempt; so
        would the averages of a batch normalization in a user's own modules.
        """
        if any(isinstance(module, _BatchNorm) and module.training for module in self.model.modules()):
            return False
        return self.objective.supports_accumulation and self.model.supports_accumulation

    # --- Validation ---

    def eval_step(self, x: Tensor, y: Labels | None, micro_batches: int = 1) -> Metrics:
        """The objective's values for a batch under the EMA weights, with schedules at their final values."""
        labels = y if self.model.classes else None
        if self._eval_graph is None or micro_batches > 1:
            return self._eval_metrics(x, labels)
        return self._eval_graph(x) if labels is None else self._eval_graph(x, labels)

    def _eval_metrics(self, x: Tensor, y: Labels | None = None) -> Metrics:
        return self.objective(self.ema.model.terms(x, y, self.objective.samples))[1]

    # --- State ---

    def state_dict(self) -> Snapshot:
        """CPU copies of the state of model, EMA and optimizer."""
        return Snapshot(
            raw=copied(self.model.state_dict()),
            ema=copied(self.ema.model.state_dict()),
            optimizer=copied(optimizer_tensors(self.optimizer)),
            state={"micro_batches": self.micro_batches, "eval_micro_batches": self.eval_micro_batches},
        )

    def load_state_dict(self, snapshot: Snapshot) -> None:
        """Restore what `state_dict` returned."""
        self.model.load_state_dict(snapshot.raw)
        self.ema.model.load_state_dict(snapshot.ema)
        restore_optimizer(self.optimizer, snapshot.optimizer)
        self.micro_batches = snapshot.state["micro_batches"]
        self.eval_micro_batches = snapshot.state["eval_micro_batches"]


def make_loss_fn(model: Any, objective: Objective, compiled: bool = False) -> LossFn:
    """Make the loss function of a batch.

    Compiled, all of it becomes one graph once the objective's schedules have ended, whose final values are
    then constants of it. A flow would break that graph into pieces and gain nothing: of a model with one,
    only encoder and decoder are compiled.
    """

    def loss_fn(x: Tensor, y: Labels | None, epoch: float) -> tuple[Tensor, Metrics]:
        terms = model.terms(x, y, objective.samples)
        return objective(terms, epoch)

    if not compiled:
        return loss_fn
    if has_flow(model):
        for network in (model.encoder, model.decoder):
            network.compile()
        return loss_fn
    # With torch's own random numbers, so that a compiled run draws what another would
    graph: LossFn = torch.compile(loss_fn, options={"fallback_random": True})

    def compiled_loss_fn(x: Tensor, y: Labels | None, epoch: float) -> tuple[Tensor, Metrics]:
        return graph(x, y, math.inf) if epoch >= objective.schedule_end else loss_fn(x, y, epoch)

    return compiled_loss_fn


def _raise_if_compilation_failed(error: Exception) -> None:
    from torch._dynamo.exc import TorchDynamoException  # takes a second, unless something was compiled

    if isinstance(error, TorchDynamoException):
        message = f"compilation failed on this machine ({str(error).partition(':')[0]})."
        hint = f"Use {setting('compile', 'auto')} or {setting('compile', 'off')}."
        raise UserError(message, hint, "compile") from error


def has_flow(model: nn.Module) -> bool:
    return any(isinstance(module, LazyTransform) for module in model.modules())


def divide_further(micro_batches: int, x: Tensor, supports_accumulation: bool) -> int:
    """Twice as many micro-batches; OutOfMemory if the batch cannot be divided further."""
    if x.device.type == "cuda":
        torch.cuda.empty_cache()
    if not supports_accumulation or micro_batches >= len(x):
        reason = "this model's loss needs all of it at once"
        if supports_accumulation:
            reason = "a single image does not either"
        raise OutOfMemory(
            f"A batch of {len(x)} images does not fit in the memory of {x.device}, and {reason}.",
            f"Use a smaller {setting('batch_size')}, a smaller {setting('size')} or a smaller network.",
        )
    log.info(f"A batch does not fit in the memory of {x.device}: using {2 * micro_batches} micro-batches")
    return 2 * micro_batches


def seed_generators(device: torch.device, *parts: int | str) -> None:
    """Seed the generators that noise on `device` and on the CPU is drawn from."""
    seed = derive_seed(*parts)
    if device.type == "mps":
        torch.mps.manual_seed(seed)
    elif device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed asks for every kind of device first
