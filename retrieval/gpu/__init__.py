"""Build and search on an array library: NumPy, torch or CuPy."""
