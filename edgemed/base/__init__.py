"""Ground floor: errors, lazy imports, the Runner seam, spans, atomic store, hashing, resources.

Nothing here may import another room of edgemed, nor anything beyond the standard library (numpy for types only).
"""
