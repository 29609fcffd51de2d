"""Variants of a model: recipes, the graphs that they make, and what those are worth."""
