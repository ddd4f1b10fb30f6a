"""What every settings class has in common. Free of torch."""

from pydantic import BaseModel, ConfigDict


class BaseConfig(BaseModel):
    """Immutable, and strict about names: an unknown one is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
