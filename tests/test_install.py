"""Installing mmravlt leaves the OpenMMLab packages of the user alone."""

import tarfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from .processes import run_python


@pytest.fixture
def requirements(distribution):
    return [Requirement(line) for line in distribution.requires]


def names(requirements, extra):
    return {
        r.name
        for r in requirements
        if (r.marker.evaluate({'extra': extra}) if r.marker else not extra)
    }


def test_nothing_of_openmmlab_is_required_without_an_extra(requirements):
    assert names(requirements, '') == {'torch', 'torchvision', 'numpy', 'packaging'}


def test_any_torch_from_2_1_on_is_allowed(requirements):
    (torch,) = [r for r in requirements if r.name == 'torch']
    for version in ('2.1.0', '2.4.1', '2.11.0', '3.0'):
        assert torch.specifier.contains(version)


@pytest.mark.parametrize(
    'extra,mmcv',
    [('openmmlab', set()), ('lite', {'mmcv-lite'}), ('onedl', {'onedl-mmcv'})],
)
def test_each_stack_brings_at_most_its_own_mmcv(extra, mmcv, requirements):
    found = names(requirements, extra)
    assert {name for name in found if 'mmcv' in name} == mmcv


def test_the_facts_that_pip_and_package_indexes_show_are_there(distribution):
    facts = distribution.metadata
    assert facts['Author'] == 'mmravlt contributors'
    assert facts['Requires-Python'] == '>=3.10'
    pythons = [c for c in facts.get_all('Classifier') if ':: Python :: 3.' in c]
    assert [p.rpartition(' ')[2] for p in pythons] == ['3.10', '3.11', '3.12']
    assert not facts.get_all('Project-URL')  # there is no page yet


def test_source_distribution_holds_what_a_wheel_is_built_from(tmp_path):
    root = Path(__file__).parents[1]
    command = ('setup.py', '-q', 'egg_info', '-e', tmp_path, 'sdist', '-d', tmp_path)
    run_python(*command, cwd=root)
    (archive,) = tmp_path.glob('*.tar.gz')
    with tarfile.open(archive) as tar:
        members = {name.partition('/')[2] for name in tar.getnames()}
    shipped = [
        *(
            path
            for pattern in ('*.py', '*.yml')
            for path in root.glob(f'configs/**/{pattern}')
        ),
        *root.glob('tools/*'),
        root / 'model-index.yml',
        root / 'mmravlt/py.typed',
    ]
    assert len(shipped) > 10
    for path in shipped:
        if path.is_file():
            assert str(path.relative_to(root)) in members
