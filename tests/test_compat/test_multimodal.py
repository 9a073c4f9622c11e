"""An installed transformers, whatever its version, stops no import of mmpretrain."""

import sys
from types import ModuleType

import pytest

from mmravlt import doctor
from mmravlt.compat import multimodal

from ..processes import run_python

SOURCES = {
    'models/multimodal/blip/model.py': 'try:\n'
    '    from transformers.activations import ACT\n'
    'except:\n'
    '    ACT = None\n',
    'models/multimodal/ofa.py': 'from torch import nn\nfrom ..base import Base\n'
    'def lazily():\n    from transformers import Unneeded\n',
    'models/utils/tokenizer.py': 'from transformers import Tokenizer\n',
    'models/backbones/resnet.py': 'from transformers import NotMultimodal\n',
}


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def transformers(tmp_path, monkeypatch):
    """Writes and offers a transformers, beside an mmpretrain made of ``SOURCES``."""
    write(tmp_path / 'mmpretrain', SOURCES)
    monkeypatch.setattr(multimodal, '_folder', lambda: tmp_path / 'mmpretrain')
    for name in list(sys.modules):
        if name.split('.')[0] == 'transformers':
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)

    def offer(start, activations):
        names = {'__init__.py': start, 'activations.py': activations}
        write(tmp_path / 'transformers', names)

    yield offer
    for name in list(sys.modules):
        if name.split('.')[0] == 'transformers':
            del sys.modules[name]


@pytest.mark.parametrize(
    'start,activations,reason',
    [
        ('Tokenizer = 1', 'ACT = 1', None),
        ('Tokenizer = 1', '', 'transformers has no transformers.activations.ACT'),
        ('', 'ACT = 1', 'transformers has no transformers.Tokenizer'),
        (
            'raise RuntimeError("no hub")',
            'ACT = 1',
            'transformers.activations.ACT (no hub)',
        ),
    ],
)
def test_what_mmpretrain_misses_in_transformers_is_named(
    start, activations, reason, transformers
):
    transformers(start, activations)
    found = multimodal.status()
    assert found is None if reason is None else found.endswith(reason)


def test_every_module_of_mmpretrain_that_imports_transformers_is_looked_at():
    needed = set(multimodal._needed(multimodal._folder()))
    assert {
        ('transformers.modeling_utils', 'PreTrainedModel'),  # in a `try`
        ('transformers.modeling_outputs', 'Seq2SeqLMOutput'),  # OFA
        ('transformers', 'BertTokenizer'),
        ('transformers', 'AutoConfig'),
    } <= needed


def test_the_libraries_import_beside_a_transformers_that_does_not_fit(tmp_path):
    write(
        tmp_path,
        {
            'transformers/__init__.py': '__version__ = "99.0"',
            'transformers-99.0.dist-info/METADATA': 'Name: transformers\nVersion: 99.0',
            'script.py': 'import mmravlt, mmdet.models, mmpretrain.models\n'
            'import mmpretrain.datasets\n'
            'from mmpretrain.registry import MODELS\n'
            "head = dict(type='LinearClsHead', num_classes=2, in_channels=512)\n"
            "backbone = dict(type='RAVLT', arch='t')\n"
            "MODELS.build(dict(type='ImageClassifier', backbone=backbone, head=head))\n"
            "for act in (lambda: MODELS.build(dict(type='BlipCaption')),\n"
            "            lambda: __import__('mmpretrain.models.multimodal.ofa')):\n"
            '    try:\n'
            '        act()\n'
            '    except ImportError as error:\n'
            '        print(error)\n',
        },
    )
    done = run_python(tmp_path / 'script.py', env={'PYTHONPATH': str(tmp_path)})
    said = done.stdout.splitlines()[-2:]
    for line, name in zip(said, ('BlipCaption', 'multimodal.ofa'), strict=True):
        assert line.startswith(f'mmpretrain.models.{name} does not work here: ')
        assert 'the installed transformers' in line


@pytest.mark.parametrize('reason', ['it has no x', None])
def test_mmpretrain_may_be_imported_before_mmravlt(reason, monkeypatch):
    """`import mmpretrain` alone imports none of its models."""
    dependency = ModuleType(multimodal.SWITCH)
    dependency.WITH_MULTIMODAL = True
    monkeypatch.setitem(sys.modules, multimodal.SWITCH, dependency)
    monkeypatch.delitem(sys.modules, multimodal.MODELS, raising=False)
    monkeypatch.setattr(sys, 'meta_path', [])
    monkeypatch.setattr(multimodal, 'status', lambda: reason)
    multimodal.install()
    assert dependency.WITH_MULTIMODAL is (reason is None)


@pytest.mark.parametrize(
    'reason,said',
    [
        ('it has no x', '--  multimodal models of mmpretrain'),
        (None, 'mmpretrain (BLIP'),
    ],
)
def test_the_doctor_says_what_becomes_of_them(reason, said, monkeypatch, capsys):
    monkeypatch.setattr(multimodal, 'status', lambda: reason)
    report = doctor.Report()
    doctor._examine_multimodal(report)
    (line,) = capsys.readouterr().out.splitlines()
    assert said in line and (reason or '') in line
    assert report.healthy
