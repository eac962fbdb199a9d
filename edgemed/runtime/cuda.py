"""The process's one CUDA context and everything that lives in it. The only importer of pycuda.

The device's primary context is retained once and kept for the life of the process: pycuda cannot release it rightly,
TensorRT shares it, and threads only push and pop it. Every buffer, stream and event belongs to one `Arena`, which frees
them together, in the right context, whatever thread the last reference dies in.
"""
