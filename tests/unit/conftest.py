"""Settings of all unit tests: one thread, and property tests that repeat themselves exactly."""

import os

from hypothesis import HealthCheck, settings

# Tiny tensors: threads cost more than they give. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile(
    "unit",
    deadline=None,  # a busy machine is not a bug
    derandomize=True,  # the same examples in every run
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unit")
