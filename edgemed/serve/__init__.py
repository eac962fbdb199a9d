"""The bedside daemon: what it acknowledges is on the disk, what it says is ready has answered rightly."""
