"""The `[trust]` of a configuration, read."""

from __future__ import annotations

from edgemed.bundle.trust import Trust
from edgemed.serve.config.daemon import TrustSection


def trust_of(section: TrustSection) -> Trust:
    """Keys and revocations.

    Raises:
        InputError: a file is no key, or a line no digest.
        ResourceError: a file cannot be read.
    """
    return Trust.read(section.keys, section.revoked, allow_unsigned=section.allow_unsigned)
