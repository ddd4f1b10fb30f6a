"""The name that a misspelled or unknown one was meant to be."""

import difflib
from collections.abc import Iterable

USUAL_NAMES = {
    **dict.fromkeys(("lr", "learn_rate", "step_size", "eta"), "learning_rate"),
    **dict.fromkeys(("batch", "bs", "batchsize", "minibatch"), "batch_size"),
    **dict.fromkeys(("epoch", "n_epochs", "num_epochs", "max_epochs", "iterations", "passes"), "epochs"),
    **dict.fromkeys(("latent", "latent_dim", "latent_dims", "latent_size", "n_latents", "z_dim"), "latents"),
    **dict.fromkeys(("image_size", "img_size", "resolution", "res", "width", "height", "resize"), "size"),
    **dict.fromkeys(("dropout", "dropout_rate", "drop_rate", "p_drop"), "encoder.dropout"),
    **dict.fromkeys(("beta", "kl_weight", "kl_beta", "kld_weight"), "objective.beta"),
    **dict.fromkeys(("random_state", "random_seed", "manual_seed"), "seed"),
    **dict.fromkeys(("warmup_steps", "lr_warmup", "warm_up"), "ramp"),
    **dict.fromkeys(("scheduler", "lr_schedule", "lr_scheduler"), "schedule"),
    **dict.fromkeys(("grad_clip", "clip_grad", "gradient_clip", "max_grad_norm", "clip_norm"), "clip"),
    **dict.fromkeys(("early_stopping", "early_stop"), "patience"),
    **dict.fromkeys(("ema_decay", "polyak"), "ema"),
    **dict.fromkeys(("wd", "l2_penalty"), "weight_decay"),
    **dict.fromkeys(("optim", "opt"), "optimizer"),
    **dict.fromkeys(("output", "output_dir", "out_dir", "outdir", "save_dir", "logdir"), "out"),
    **dict.fromkeys(("model", "arch", "architecture"), "preset"),
    **dict.fromkeys(("workers", "num_workers", "num_threads", "n_jobs", "cores"), "threads"),
    **dict.fromkeys(("gpu", "cuda", "use_cuda"), "device"),
    **dict.fromkeys(("amp", "fp16", "bf16", "dtype", "mixed_precision"), "precision"),
    **dict.fromkeys(("hflip", "horizontal_flip", "random_flip", "mirror"), "flip"),
    **dict.fromkeys(("val", "val_split", "validation_split", "val_fraction", "test_size"), "validation"),
    **dict.fromkeys(("max_time", "time_limit", "timeout"), "max_minutes"),
    **dict.fromkeys(("class_conditional", "cond"), "conditional"),
    **dict.fromkeys(("conditions", "attributes", "condition_columns"), "condition"),
    **dict.fromkeys(("continue", "restart"), "resume"),
}
"""Names that other programs have for settings."""


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """`Did you mean 'learning_rate'?` if one of `names` is near to `word`, otherwise an empty text."""
    near = nearest(word, names)
    return f"Did you mean {near!r}?" if near else ""


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The one of `names` that `word` probably means; hyphens and underscores are equal."""
    known = {name.lstrip("-").replace("-", "_"): name for name in names}
    word = word.lstrip("-").replace("-", "_").lower()
    usual = [name for name in known if name == USUAL_NAMES.get(word)]
    fields = [name for name in known if name.rpartition(".")[2] == word]
    matches = usual + fields + difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return known[matches[0]] if matches else None
