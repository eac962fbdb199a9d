"""Refuse licences that a product at the bedside cannot carry, in everything that edgemed needs at run time.

The closure of edgemed's requirements is walked through the installed metadata (core and the extras below; `dev` is
not shipped, and is not judged). What is not plainly permissive must stand in `REVIEWED` with its reason, and with the
very words that its metadata declares: when a new release declares others, it is looked at again.

Metadata do not tell everything. PyAV declares BSD-3-Clause, and its wheels carry FFmpeg with x264 and x265, which are
under the GPL: no extra asks for it but `dev`, and `edgemed` uses it where a user has installed it. linuxpy declares the
GPL: cameras are read by `edgemed/runtime/sources/v4l2.py` instead.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = ("build", "imaging", "serve", "rtx", "scale")

# SPDX identifiers. MPL-2.0 is copyleft by file: unmodified files, as we use them, ask for nothing but their notice.
PERMISSIVE = frozenset({
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "HPND", "ISC", "MIT", "MIT-0",
    "MIT-CMU", "MPL-2.0", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib", "Apache-2.0 WITH LLVM-exception",
})  # fmt: skip

# what older metadata writes instead of an SPDX identifier: in the License field, or as the end of a classifier
ALIASES = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd 2-clause license": "BSD-2-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}


@dataclass(frozen=True)
class Review:
    """Why a licence that the gate does not know by itself may be shipped."""

    declared: str
    reason: str


_TENSORRT = "Proprietary, in an optional extra: installed by the user under NVIDIA's terms, never bundled by edgemed."
REVIEWED = {
    "namex": Review("", "Its metadata declares nothing; the LICENSE file in its wheel is Apache-2.0."),
    "tensorrt-rtx-cu13": Review("Proprietary", _TENSORRT),
    "tensorrt-rtx-cu13-bindings": Review("Proprietary", _TENSORRT),
    "tensorrt-rtx-cu13-libs": Review("Proprietary", _TENSORRT),
}

NEVER = {
    "av": "Its wheels carry FFmpeg with x264 and x265 (GPL), whatever its metadata declare.",
}

Lookup = Callable[[str], metadata.Distribution]


def closure(
    root: str, extras: Iterable[str], lookup: Lookup = metadata.distribution
) -> dict[str, metadata.Distribution]:
    """Distributions that `root` with `extras` needs on this machine, by canonical name.

    Raises:
        PackageNotFoundError: one of them is not installed, so nothing can be said of its licence.
    """
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(root), extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        found.setdefault(name, lookup(name))
        for text in found[name].requires or []:
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(need.name), more) for more in ("", *need.extras)]
    return found


def declared(dist: metadata.Distribution) -> str:
    """The declared licence: the SPDX expression, else the classifiers, else the first line of the License field."""
    about = dist.metadata
    if "License-Expression" in about:
        return about["License-Expression"]
    classifiers = [c.rpartition(" :: ")[2] for c in about.get_all("Classifier") or [] if c.startswith("License :: ")]
    if classifiers:
        return " AND ".join("Proprietary" if c == "Other/Proprietary License" else c for c in sorted(classifiers))
    return about["License"].strip().partition("\n")[0] if "License" in about else ""


def is_permissive(licence: str) -> bool:
    """Whether an SPDX expression, or one of the old names, asks for no more than a notice.

    With parentheses every licence named must be permissive: stricter than SPDX, and needed by none so far.
    """

    def known(name: str) -> bool:
        return ALIASES.get(name.strip().lower(), name.strip()) in PERMISSIVE

    if known(licence):
        return True
    if "(" in licence:
        return all(known(name) for name in re.split(r" AND | OR |[()]", licence) if name.strip())
    return any(all(known(name) for name in choice.split(" AND ")) for choice in licence.split(" OR "))


def refused(dists: dict[str, metadata.Distribution]) -> list[str]:
    """One sentence for each distribution whose licence is neither permissive nor reviewed."""
    complaints = []
    for name, dist in sorted(dists.items()):
        licence = declared(dist)
        review = REVIEWED.get(name)
        if name in NEVER:
            complaints.append(f"{name} {dist.version} may not be shipped: {NEVER[name]}")
            continue
        if is_permissive(licence) or (review is not None and review.declared == licence):
            continue
        complaints.append(
            f"{name} {dist.version} declares {licence or 'no licence'!r}: not permissive, and not reviewed."
        )
    return complaints


def main() -> int:
    """Print what was judged; exit status 1 when something is refused."""
    dists = closure("edgemed", EXTRAS)
    complaints = refused(dists)
    for line in complaints:
        print(line, file=sys.stderr)
    if complaints:
        print("Replace the package, or read its licence and add it to REVIEWED with the reason.", file=sys.stderr)
        return 1
    reviewed = sorted(set(REVIEWED) & set(dists))
    print(f"Licences: {len(dists) - len(reviewed)} permissive distributions; reviewed: {', '.join(reviewed)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
