"""Fix the shapes of a model's inputs: batch, open dimensions, and what the user gave with --input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgemed.base.errors import InputError
from edgemed.base.runner import TensorSpec


def fix_shapes(
    declared: Sequence[TensorSpec], given: Mapping[str, tuple[int, ...]], batch: int | None
) -> tuple[TensorSpec, ...]:
    """Give every declared input one shape, static but for a batch that varies.

    Args:
        declared: inputs as the model declares them; None for open dimensions, the first one being the batch.
        given: full shapes by input name, which win over `batch` where it is a number.
        batch: size of an open first dimension; None leaves it open.

    Raises:
        InputError: unknown name, wrong rank, a size that contradicts the model, an open dimension not given, or a
            batch that shall vary and is fixed by the model.
    """
    names = [spec.name for spec in declared]
    for name in given:
        if name not in names:
            raise InputError(f"The model has no input '{name}'.", f"Its inputs are: {', '.join(names)}.")
    if batch is None:
        fixed = (TensorSpec(s.name, s.dtype, _fix(s, given.get(s.name), 1)) for s in declared)
        return tuple(_opened(s, d) for s, d in zip(fixed, declared, strict=True))
    if batch < 1:
        raise InputError(f"A batch of {batch} is not possible.", "Give a batch of 1 or more.")
    return tuple(TensorSpec(s.name, s.dtype, _fix(s, given.get(s.name), batch)) for s in declared)


def _opened(fixed: TensorSpec, declared: TensorSpec) -> TensorSpec:
    """The input with an open batch."""
    if not declared.shape or declared.shape[0] is not None:
        raise InputError(
            f"The input {declared} has a fixed batch, which --dynamic-batch cannot change.",
            "Build it without --dynamic-batch, or save the model without a batch size.",
        )
    return TensorSpec(fixed.name, fixed.dtype, (None, *fixed.shape[1:]))


def _fix(spec: TensorSpec, given: tuple[int, ...] | None, batch: int) -> tuple[int, ...]:
    shown = str(TensorSpec(spec.name, spec.dtype, spec.shape))
    if given is None:
        dims = (batch if not i and d is None else d for i, d in enumerate(spec.shape))
        fixed = tuple(d for d in dims if d is not None)
        if len(fixed) != len(spec.shape):
            example = "x".join(
                str(batch) if not i else "512" if d is None else str(d) for i, d in enumerate(spec.shape)
            )
            raise InputError(f"The input {shown} has open dimensions.", f"Fix them, e.g. --input {spec.name}={example}")
        return fixed
    if len(given) != len(spec.shape):
        raise InputError(
            f"The input {shown} has {len(spec.shape)} dimensions with the batch, not {len(given)}.",
            "Give all of them to --input, the batch first.",
        )
    if any(g < 1 or (d is not None and d != g) for g, d in zip(given, spec.shape, strict=True)):
        raise InputError(
            f"{'x'.join(map(str, given))} does not fit the input {shown}.",
            "Give sizes of 1 or more that fit the model.",
        )
    return tuple(given)
