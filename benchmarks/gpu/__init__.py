"""What only a GPU shows, section by section; `benchmarks/gpu_check.py` runs them."""
