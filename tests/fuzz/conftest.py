"""Examples are the same in every run. HYPOTHESIS_EXAMPLES=n tries n examples for each property, new ones each time."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "explore",
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "100")),
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("explore" if "HYPOTHESIS_EXAMPLES" in os.environ else "steady")
