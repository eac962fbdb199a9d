"""Containment: the process that owns the GPU is killed and rebuilt when it fails; no poisoned answer leaves."""
