"""Recipes: how pixels become the model's input and how its output is read."""
