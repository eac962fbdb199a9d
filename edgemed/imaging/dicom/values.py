"""Values of a data set, of the kind they must be: pydicom converts one when it is asked for, and a wrong one raises."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from edgemed.base.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

_HINT = "Correct the element, or leave the file out."


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings of pydicom, which warns of what it puts up with: what matters is judged here, and said once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def value(dataset: Dataset, keyword: str) -> Any:
    """The value of an element, `None` if it is absent or empty.

    Raises:
        InputError: pydicom cannot convert it: a wrong value representation, or a value that this one cannot have.
    """
    tag = _tag(keyword)
    if tag not in dataset:
        return None
    try:
        found = dataset[tag].value
    except Exception as error:  # pydicom raises whatever the conversion raises
        raise _wrong(keyword, f"cannot be read ({error})") from error
    if found is None or (hasattr(found, "__len__") and len(found) == 0):
        return None
    return found


@lru_cache(maxsize=512)
def _tag(keyword: str) -> BaseTag:
    """Of an element of the standard; much faster than pydicom's access by keyword."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.tag import Tag

    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return Tag(tag)


def integer(dataset: Dataset, keyword: str) -> int | None:
    """A single whole number."""
    found = value(dataset, keyword)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int):
        raise _wrong(keyword, f"is no whole number ({found!r:.40})")
    return int(found)


def number(dataset: Dataset, keyword: str) -> float | None:
    """A single finite number."""
    found = numbers(dataset, keyword)
    if not found:
        return None
    if len(found) != 1:
        raise _wrong(keyword, f"holds {len(found)} values instead of one")
    return found[0]


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """Finite numbers; none if the element is absent or empty."""
    found = value(dataset, keyword)
    if found is None:
        return ()
    try:
        several = [float(part) for part in (found if _is_multiple(found) else [found])]
    except (TypeError, ValueError, OverflowError) as error:
        raise _wrong(keyword, f"is no number ({found!r:.40})") from error
    if not all(map(math.isfinite, several)):
        raise _wrong(keyword, "holds NaN or infinity")
    return tuple(several)


def text(dataset: Dataset, keyword: str) -> str | None:
    """A string without the padding; several values are joined as in the file."""
    found = value(dataset, keyword)
    if found is None:
        return None
    if isinstance(found, bytes):
        raise _wrong(keyword, "is no text")
    joined = "\\".join(map(str, found)) if _is_multiple(found) else str(found)
    return joined.strip(" \0\t\r\n") or None


def items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Items of a sequence; none if it is absent or empty."""
    from pydicom.sequence import Sequence

    found = value(dataset, keyword)
    if found is None:
        return ()
    if not isinstance(found, Sequence):
        raise _wrong(keyword, "is no sequence")
    return tuple(found)


def raw_bytes(dataset: Dataset, keyword: str) -> tuple[bytes, bool] | None:
    """The bytes of an element that has not been converted, and whether they are little endian.

    Lookup tables are written as US, SS or OW, rightly and wrongly; their bytes are the same in each.
    """
    from pydicom.dataelem import RawDataElement

    tag = _tag(keyword)
    if tag not in dataset:
        return None
    element: object = dataset.get_item(tag)
    if not isinstance(element, RawDataElement):  # converted by somebody: pydicom would have to write it again
        raise _wrong(keyword, "is no plain value")
    return (element.value, element.is_little_endian) if element.value else None


def _is_multiple(found: Any) -> bool:
    from pydicom.multival import MultiValue

    return isinstance(found, MultiValue | list | tuple)


def _wrong(keyword: str, what: str) -> InputError:
    return InputError(f"its {keyword} {what}.", _HINT)
