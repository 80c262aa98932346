"""What every section of the configuration is made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator

from cacheflow_ray.errors import InvalidConfig


class Section(BaseModel):
    """Base of the sections: immutable, no unknown keys, no silent conversion ("3" is not 3)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _explained(cls, data: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        try:
            return handler(data)
        except ValidationError as error:
            raise explain(error, cls) from None


def explain(error: ValidationError, section: type[BaseModel], prefix: str = "") -> InvalidConfig:
    """The first thing wrong, as one line: key, value, what is allowed."""
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else section.__name__
    key = (prefix + name).upper() if prefix else name
    if first["type"] == "extra_forbidden":
        known = ", ".join(section.model_fields)
        return InvalidConfig(f"{key}: no such key in {section.__name__}; known: {known}", key=key)
    field = section.model_fields.get(name)
    allowed = field.description if field and field.description else first["msg"].removeprefix("Input should be ")
    return InvalidConfig(f"{key}: {first['input']!r} is not allowed; allowed: {allowed}", key=key)
