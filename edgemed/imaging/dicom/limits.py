"""What a file may ask of us. Each limit lies above the largest real files and below what hurts a small board."""

MAX_PIXELS = 1 << 28
"""Of one frame: 16384 x 16384."""

MAX_IMAGE_BYTES = 4 << 30
"""Of all frames of an image read at once."""

MAX_HEADER_BYTES = 256 << 20
"""Of everything before the pixels; private elements of ultrasound files can be large."""

MAX_ELEMENTS = 1_000_000
"""Elements of the header, where an item counts as five: up to 400 MB of Python objects, and 5 seconds.

An enhanced object of 10,000 frames, each with seven macros of four elements, has 630,000.
"""

MAX_DEPTH = 32
"""Of nested sequences; structured reports, the deepest real ones, reach about 15."""

MAX_INFLATED_BYTES = 1 << 30
"""Of a deflated data set."""

MAX_FRAGMENTS = 1_000_000
"""Of encapsulated pixel data."""
