"""Graphs: panels, honest axes, and names that are no markup."""

import io
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from PIL import Image

from vaekit.plots import curves


def metrics(epochs: int, first: float = 70_000) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    loss = first * np.exp(1 - epoch) + 5_000 + 10.0 * (epochs - epoch)
    columns = {"epoch": epoch, "step": 10 * epoch}
    for split in ("train", "val"):
        columns |= {f"{split}_loss": loss, f"{split}_reconstruction": loss - 30, f"{split}_kl": 0 * loss + 30}
    return pd.DataFrame(columns | {"train_mmd": np.nan, "val_mmd": np.nan})


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("}text")]


def test_panels_show_values_units_and_the_best_epoch() -> None:
    assert curves.reported(metrics(3)) == ["loss", "reconstruction", "kl"]
    assert curves.heading("kl") == "KL divergence" and curves.heading("sparse_prior") == "Sparse prior"
    with Image.open(io.BytesIO(curves.loss_graph(metrics(3), "$run$ <b>"))) as graph:
        assert graph.width == 1320
    labels = texts(curves.loss_panel(metrics(4), "loss"))
    assert {"nats per image", "dotted: best epoch (4)", "train", "validation", "epoch"} <= set(labels)
    assert any("," in label for label in labels)
    assert "train, noise on latents" in texts(curves.loss_panel(metrics(4), "loss", latent_noise=0.5))
    assert "nats per image" in texts(curves.loss_panel(metrics(4), "kl"))


def test_first_epochs_and_missing_values_hide_nothing() -> None:
    (note,) = [label for label in texts(curves.loss_panel(metrics(40), "loss")) if "above the scale" in label]
    assert note.startswith("epoch (") and note.endswith(f"up to {75_390:,})")
    small = metrics(40)
    small[["train_loss", "val_loss"]] *= 1.80468372 / 75_390
    (note,) = [label for label in texts(curves.loss_panel(small, "loss")) if "above the scale" in label]
    assert note.endswith("up to 1.8)")
    assert not any("above the scale" in label for label in texts(curves.loss_panel(metrics(40, 0), "loss")))
    assert not any("above the scale" in label for label in texts(curves.loss_panel(metrics(40), "kl")))
    table = metrics(12)
    table.loc[:2, ["val_loss", "train_loss"]] = np.nan
    assert "dotted: best epoch (12)" in texts(curves.loss_panel(table, "loss"))
    table["val_loss"] = np.nan
    assert not any("best" in label for label in texts(curves.loss_panel(table, "loss")))


def test_scatter_shows_names_literally_in_the_colours_of_the_page() -> None:
    points, labels = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 3
    svg = curves.scatter(points, labels, ["$a_$", "_hidden", "<script>"], ("PC 1", "PC 2"))
    assert {"$a_$", "_hidden", "<script>", "PC 1", "PC 2"} <= set(texts(svg))
    assert "<script>" not in svg and "currentColor" in svg and curves.INK not in svg
    many = [f"class {number}" for number in range(curves.LEGEND_CLASSES + 1)]
    assert not any("class" in text for text in texts(curves.scatter(points, labels, many, ("a", "b"))))
    svg = curves.scatter(points, labels, ["x" * 200, "", "c"], ("a", "b"))
    assert "x" * 39 + "\N{HORIZONTAL ELLIPSIS}" in texts(svg)
