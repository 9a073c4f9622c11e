"""With torch, torchvision, numpy and packaging alone, models and weights work.

The tests run in processes that find these packages, what these require, and nothing
else; pytest too where it is needed.
"""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import MODELS, init_default_scope
from packaging.requirements import Requirement

import mmravlt
from mmravlt.models import RAVLT, L2ViT, RAVLTNeck
from mmravlt.zoo import _FAMILIES

ROOT = Path(__file__).parents[1]
INSTALLED = ('torch', 'torchvision', 'numpy', 'packaging')


def requirements(names):
    """Distributions, and all that they require, by their normalised names."""
    found, todo = {}, [Requirement(name) for name in names]
    while todo:
        wanted = todo.pop()
        key = wanted.name.lower().replace('_', '-').replace('.', '-')
        done = found.setdefault(key, set())
        extras = {'', *wanted.extras} - done
        done |= extras
        try:
            lines = metadata.requires(wanted.name) or []
        except metadata.PackageNotFoundError:
            continue
        todo += [
            each
            for each in map(Requirement, lines)
            if any(
                each.marker is None or each.marker.evaluate({'extra': extra})
                for extra in extras
            )
        ]
    return set(found)


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """Makes a folder of links to installed packages and what they require."""

    def link(names):
        folder = tmp_path_factory.mktemp('site')
        wanted = requirements(names)
        modules = {
            module
            for module, owners in metadata.packages_distributions().items()
            if wanted & {owner.lower().replace('_', '-') for owner in owners}
        }
        installed = Path(metadata.distribution('torch').locate_file(''))
        for entry in installed.iterdir():
            name = entry.name.split('.')[0]
            owner = entry.name.split('-')[0].lower().replace('_', '-')
            is_facts = entry.suffix == '.dist-info' and owner in wanted
            is_library = entry.suffix == '.libs' and name in wanted
            if name in modules or is_facts or is_library:
                (folder / entry.name).symlink_to(entry)
        return folder

    return link


def run(folder, *command):
    path = os.pathsep.join([str(ROOT), str(folder)])
    return subprocess.run(
        [sys.executable, '-S', *command],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )


def test_models_weights_and_measures_work_without_openmmlab(site):
    options = ['-q', '--noconftest', '-p', 'no:cacheprovider', '-o', 'addopts=']
    files = ['tests/without_openmmlab.py', 'tests/test_create_model.py']
    folder = site([*INSTALLED, 'pytest'])
    done = run(folder, '-m', 'pytest', *options, *files)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'skipped' not in done.stdout


def test_the_doctor_says_what_works_and_what_is_absent(site):
    done = run(site(INSTALLED), '-m', 'mmravlt', 'doctor')
    assert done.returncode == 0, done.stdout + done.stderr
    assert '--  mmengine is not installed' in done.stdout
    assert 'ok  models: RAVLT runs with PyTorch alone' in done.stdout


def test_a_broken_mmengine_is_not_taken_for_a_missing_one(tmp_path):
    (tmp_path / 'mmengine').mkdir()
    (tmp_path / 'mmengine/__init__.py').write_text("raise ImportError('broken.so')")
    done = subprocess.run(
        [sys.executable, '-c', 'import mmravlt'],
        env={**os.environ, 'PYTHONPATH': str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert 'broken.so' in done.stderr


def test_a_folder_that_an_uninstallation_left_is_no_mmengine(tmp_path):
    (tmp_path / 'mmengine/__pycache__').mkdir(parents=True)
    facts = "runpy.run_path('mmravlt/foundation.py')"
    done = run(tmp_path, '-c', f"import runpy; print({facts}['has_mmengine']())")
    assert done.stdout == 'False\n', done.stdout + done.stderr


# With OpenMMLab


@pytest.mark.parametrize('model', [RAVLT, L2ViT, RAVLTNeck])
def test_models_are_modules_of_mmengine_where_it_is_installed(model):
    assert issubclass(model, BaseModule)
    assert MODELS.get(model.__name__) is model
    assert MODELS.get(f'mmravlt.{model.__name__}') is model


@pytest.mark.parametrize('name', mmravlt.list_models())
def test_classifiers_have_the_weights_of_the_configs(name):
    cfg = Config.fromfile(mmravlt.config_path(f'mmpretrain/{name}_in1k.py'))
    init_default_scope('mmpretrain')
    with torch.device('meta'):
        theirs = MODELS.build(cfg.model).state_dict()
        ours = mmravlt.create_model(name, num_classes=1000).state_dict()
    shapes = {name: value.shape for name, value in ours.items()}
    assert shapes == {name: value.shape for name, value in theirs.items()}


def test_released_weights_are_those_of_the_model_index():
    index = yaml.safe_load((ROOT / 'configs/mmpretrain/metafile.yml').read_text())
    weights = {model['Name']: model.get('Weights') for model in index['Models']}
    for name, family in _FAMILIES.items():
        for arch, address in family.released.items():
            assert address == weights[f'{name}_{arch}_in1k']
