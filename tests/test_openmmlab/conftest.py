import logging

import pytest
import torch


@pytest.fixture
def reports(monkeypatch):
    """The reports that were logged: (level, text)."""
    logged = []

    def print_log(text, logger=None, level=logging.INFO):
        if 'weights of this model' in text:
            logged.append((level, text))

    monkeypatch.setattr('mmengine.logging.print_log', print_log)
    return logged


@pytest.fixture
def save(tmp_path):
    """Write a file that lives as long as the test: some are large."""
    path = tmp_path / 'weights.pth'

    def write(checkpoint):
        torch.save(checkpoint, path)
        return str(path)

    yield write
    path.unlink(missing_ok=True)
