"""That the picture in architecture.md is of the BUILD files as they are."""

import draw_targets
from repository import ROOT


def test_the_picture_is_what_is_drawn_now() -> None:
    # Otherwise: cd docs && ./draw_targets.py >targets.svg
    assert (ROOT / "docs/targets.svg").read_text() == draw_targets.draw()


def test_the_page_shows_it() -> None:
    assert "](targets.svg)" in (ROOT / "docs/architecture.md").read_text()


def test_dependencies_point_one_way() -> None:
    assert len(draw_targets.TARGETS) > 100
    assert draw_targets.upward() == []
