"""`--preview` draws what a training would get, and ends."""

import pytest
from PIL import Image

from .processes import run_tool
from .tiny import write_project


@pytest.mark.slow
@pytest.mark.parametrize('library', ['mmdet', 'mmseg', 'mmpretrain'])
def test_a_preview_is_drawn_and_nothing_is_trained(library, tmp_path):
    write_project(tmp_path, library)
    words = ('--preview', '3', '--work-dir', 'seen')
    words += ('--data', 'data') * (library == 'mmdet')
    done = run_tool('train.py', 'config.py', *words, cwd=tmp_path)
    assert 'preview: seen/preview.png' in done.stdout.splitlines()
    assert [path.name for path in (tmp_path / 'seen').iterdir()] == ['preview.png']
    with Image.open(tmp_path / 'seen/preview.png') as picture:
        assert min(picture.size) > 200


def test_a_preview_of_no_image_is_refused(tmp_path):
    done = run_tool('train.py', 'x.py', '--preview', '0', cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert 'argument --preview: 0 is less than 1' in done.stderr
