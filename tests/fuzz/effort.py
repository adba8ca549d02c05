"""How hard the fuzz targets try.

In the tests they are bounded and take the same cases each time. `DURAMEN_FUZZ=EXAMPLES` (which `make fuzz`
sets) takes that many fresh ones. What fails is printed, made as small as hypothesis can; it becomes an
`@example` of its target, so that the corpus stands in the repository.
"""

import os

from hypothesis import HealthCheck, settings

__all__ = ["effort"]


def effort(examples: int) -> settings:
    """Settings for a target that tries so many examples in the tests."""
    wanted = os.environ.get("DURAMEN_FUZZ")
    return settings(
        max_examples=int(wanted) if wanted else examples,
        derandomize=not wanted,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        print_blob=bool(wanted),
    )
