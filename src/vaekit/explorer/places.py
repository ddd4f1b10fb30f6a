"""Places in the latent space, as the page names them: where a picture is, and thereby how it is made."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from vaekit.errors import UserError

MAX_COORDINATE = 1e6
MAX_DEPTH = 8
"""Places inside places, at most."""
Number = Annotated[float, Field(ge=-MAX_COORDINATE, le=MAX_COORDINATE)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class _Place(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OnMap(_Place):
    """A point of a map: by PCA the latents of its plane, by t-SNE the mean of those of the nearest images."""

    kind: Literal["map"]
    projection: Literal["pca", "tsne"] = "pca"
    at: tuple[Number, Number]
    label: str | None = None
    """Class of a conditional model; None for that of the nearest image."""


class OfImage(_Place):
    """The mean of q(z | x) of an image of the run."""

    kind: Literal["image"]
    row: int = Field(ge=0)


class NewImage(_Place):
    """The draw `index` of a prior, as `TrainedModel.sample` numbers them."""

    kind: Literal["new"]
    seed: Seed = 0
    index: int = Field(0, ge=0, lt=1_000_000)
    label: str | None = None
    temperature: float = Field(1.0, ge=0, le=100)
    prior: Literal["fitted", "model"] | None = None
    steps: int | None = Field(None, ge=1, le=200)
    guidance: float | None = Field(None, ge=0, le=20)


class OfUpload(_Place):
    """The mean of q(z | x) of a picture that was dropped on the page."""

    kind: Literal["upload"]
    id: str = Field(max_length=40)


class Near(_Place):
    """A random step of `distance` standard deviations of each latent away from another place."""

    kind: Literal["near"]
    of: "Place"
    distance: float = Field(0.5, ge=0, le=10)
    seed: Seed = 0
    index: int = Field(0, ge=0, lt=10_000)


class Moved(_Place):
    """Another place moved along directions, by standard deviations of the images."""

    kind: Literal["moved"]
    of: "Place"
    steps: dict[Annotated[str, Field(max_length=100)], Number] = Field(max_length=600)


class Painted(_Place):
    """Another place with values added to cells of its latent image: (channel, row, column, value)."""

    kind: Literal["painted"]
    of: "Place"
    cells: list[tuple[int, int, int, Number]] = Field(max_length=4096)


class Between(_Place):
    """A place on the path through others, from 0 at the first to 1 at the last, in hundredths of the way
    between two."""

    kind: Literal["between"]
    places: list["Place"] = Field(min_length=2, max_length=16)
    at: float = Field(ge=0, le=1)
    linear: bool = False


Place = Annotated[
    OnMap | OfImage | NewImage | OfUpload | Near | Moved | Painted | Between, Field(discriminator="kind")
]
for model in (Near, Moved, Painted, Between):
    model.model_rebuild()
_PLACES: TypeAdapter[list[Place]] = TypeAdapter(list[Place])


def read_places(given: Any, most: int) -> list[Place]:
    """Places from JSON.

    Raises:
        UserError: there are none, more than `most`, or one that is not a place.
    """
    if not isinstance(given, list) or not 1 <= len(given) <= most:
        raise UserError(f"A request needs a list of 1 to {most} places.")
    if _depth(given) > MAX_DEPTH:
        raise UserError(f"Places may have no more than {MAX_DEPTH} places inside each other.")
    try:
        return _PLACES.validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"The place is not valid: {where}: {first['msg']}.") from None


def _depth(value: Any) -> int:
    """How many places are inside each other."""
    deepest, level = 0, [value]
    while level and deepest <= 2 * MAX_DEPTH + 2:
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        deepest += 1
    return deepest // 2
