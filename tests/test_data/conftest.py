import pytest

from mmravlt.data import image_tables

from .objects import BOXES, make


@pytest.fixture
def small_images_are_used(monkeypatch):
    """Images of 40×20 pixels do for what is read of a layout."""
    monkeypatch.setattr(image_tables, 'SMALLEST', 1)


@pytest.fixture
def tables():
    return make(BOXES)
