"""Preprocessing on the GPU: raw frames to a model's input in one pass, equal to the recipe's way on the CPU."""
