"""The scenarios of the crash and suspend tests, in one place: a workflow each, and who calls it from outside.

A scenario can be repeated from its beginning, for that is what a caller does that heard nothing: ids are
given, and what it returns does not depend on how long a recovery took.
"""

from tests.crashes import composition, single
from tests.crashes.support import SCENARIOS, Scenario

__all__ = ["SCENARIOS", "Scenario", "composition", "single"]
