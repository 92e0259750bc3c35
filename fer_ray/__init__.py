"""fer-ray: from a search space and face images to a deployed facial expression classifier."""

__version__ = "0.1.0"
