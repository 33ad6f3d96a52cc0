"""How many inputs a property test draws: all of them, or a tenth where slow tests are left out."""

from hypothesis import settings

settings.register_profile("unit", max_examples=20)


def draw_few() -> None:
    """Draw a tenth from now on; to be said before the test modules are read."""
    settings.load_profile("unit")


def drawn(count: int) -> int:
    """Return how many of `count` inputs are drawn."""
    return max(10, count // 10) if settings.get_current_profile_name() == "unit" else count
