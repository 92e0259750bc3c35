"""What every section of the config is, and the numbers that several of them hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Units = Annotated[tuple[Annotated[int, Field(ge=1, le=8192)], ...], Field(strict=False)]


class Section(BaseModel):
    """A frozen part of the tree: unknown keys are errors, numbers are not made from strings."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


class OneOf(Section):
    """A section with exactly one of its branches present."""

    @model_validator(mode="after")
    def _one_branch(self) -> OneOf:
        present = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(present) != 1:
            known = ", ".join(type(self).model_fields)
            got = ", ".join(present) or "none"
            raise ValueError(f"exactly one of {known} must be given, but got {got}")
        return self

    @property
    def branch(self) -> str:
        """Name of the branch that is present."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)
