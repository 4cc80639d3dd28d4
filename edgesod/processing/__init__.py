"""Pixels to tensor, tensor to map, map to picture: NumPy and OpenCV only."""
