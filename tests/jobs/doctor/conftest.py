"""The fake hub and its settings, as the tests of `hub/` have them."""

from tests.hub.conftest import hub, notices, settings

__all__ = ["hub", "notices", "settings"]
