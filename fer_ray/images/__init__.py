"""Bytes to grey uint8 images, and uint8 images to network input."""
