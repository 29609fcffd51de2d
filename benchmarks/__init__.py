"""Every figure that the documents quote, as a script that anyone can run: ``python -m benchmarks.NAME``."""
