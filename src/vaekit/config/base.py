"""The base class of settings. Free of torch."""

from pydantic import BaseModel, ConfigDict


class BaseConfig(BaseModel):
    """Immutable settings; an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
