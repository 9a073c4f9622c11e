"""The commands read their arguments before they import anything slow."""

import argparse

import pytest
from mmengine.config import Config, DictAction, config

from mmravlt import config_path, tasks
from mmravlt.commands import arguments, quick_configs
from mmravlt.training import LOGGERS, TrainingOptions

from .processes import TOOLS, run_python

COMMANDS = ('train', 'test', 'inference')
# What the tools stand on, and what takes time among it
SLOW = {'torch', 'mmengine', 'mmcv', 'numpy', 'mmravlt.models'}
START = """
import runpy, sys
sys.argv = {words!r}
try:
    runpy.run_path(sys.argv[0], run_name='__main__')
finally:
    print('imported:', sorted({slow!r} & set(sys.modules)), flush=True)
"""


def start(*words):
    """Start a tool from nothing; at its end it prints which slow modules it has."""
    words = [str(TOOLS / f'{words[0]}.py'), *words[1:]]
    return run_python('-c', START.format(words=words, slow=SLOW), check=False)


@pytest.mark.parametrize('command', COMMANDS)
def test_help_is_there_without_any_library(command):
    done = start(command, '--help')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('usage: ')
    assert done.stdout.endswith('imported: []\n')
    assert done.stderr == ''


@pytest.mark.parametrize(
    'words,code,message',
    [
        (['train'], 2, 'the following arguments are required: config'),
        (['train', 'c.py', '--epochs', '0'], 2, '--epochs: 0 is less than 1'),
        (['train', 'nowhere.py'], 1, 'error: there is no config file nowhere.py'),
        (['test', 'nowhere.py', 'x.pth'], 1, 'error: there is no config file nowhere'),
        (['test', 'c.py', 'x', '--out', 'x.json'], 2, 'the file name must end in .pkl'),
        (['inference', 'nowhere.py', 'x', 'y'], 1, 'error: there is no config file'),
    ],
)
def test_wrong_arguments_are_refused_without_any_library(words, code, message):
    done = start(*words)
    assert done.returncode == code
    assert message in done.stderr
    assert done.stdout == 'imported: []\n'
    assert 'Traceback' not in done.stderr


def test_help_of_the_package_is_there_without_any_library():
    done = run_python('-X', 'importtime', '-m', 'mmravlt', '--help')
    imported = {line.rpartition('|')[2].strip() for line in done.stderr.splitlines()}
    assert 'mmravlt' in imported
    assert not SLOW & imported


def test_workers_that_import_a_tool_anew_have_the_models():
    script = (
        'from multiprocessing.spawn import _fixup_main_from_path\n'
        f'_fixup_main_from_path({str(TOOLS / "train.py")!r})\n'
        'import sys\n'
        "assert sys.modules['__main__'].__name__ == '__mp_main__'\n"
        "print('mmravlt.models' in sys.modules, 'mmravlt.compat' in sys.modules)"
    )
    assert run_python('-c', script).stdout.splitlines()[-1] == 'True True'


def options(monkeypatch, command, *words):
    monkeypatch.setattr('sys.argv', [f'{command}.py', *words])
    return arguments.PARSERS[command]()


@pytest.mark.parametrize('command', ['train', 'test'])
def test_the_help_names_the_layouts_of_all_tasks(command, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        options(monkeypatch, command, '--help')
    text = ''.join(capsys.readouterr().out.split())
    for task in tasks.TASKS:
        assert ''.join(f'{task.name}: {task.layout}'.split()) in text


def test_settings_are_read_as_mmengine_reads_them(monkeypatch):
    words = ['a.b=1', 'c=[1,2]', 'd="(x,y),z"', 'e=None', 'f=1e-3', 'g=a=b']
    args = options(monkeypatch, 'train', 'c.py', '--cfg-options', *words)
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    expected = parser.parse_args(['--cfg-options', *words]).cfg_options
    assert args.cfg_options == expected
    assert expected['c'] == [1, 2]


def test_each_option_of_a_training_has_an_argument(monkeypatch):
    args = options(monkeypatch, 'train', 'c.py')
    names = TrainingOptions.__dataclass_fields__
    assert {name: getattr(args, name) for name in names} == dict.fromkeys(names)
    for logger in (*LOGGERS, 'csv'):
        args = options(monkeypatch, 'train', 'c.py', '--logger', logger)
        assert args.logger == logger


@pytest.fixture
def quick(monkeypatch):
    """MMEngine as it is, then as the commands change it: a function that does so."""
    from yapf.yapflib import yapf_api

    calls = []

    def format_code(text, style_config=None, **others):
        calls.append(text)
        return text, bool(style_config)

    find = config._get_external_cfg_path
    monkeypatch.setattr(yapf_api, 'FormatCode', format_code)
    monkeypatch.setattr(config, 'FormatCode', format_code, raising=False)
    monkeypatch.setattr(config, '_get_external_cfg_path', find)
    return quick_configs.install, calls


def test_a_text_is_laid_out_once_and_is_the_same(quick):
    install, calls = quick
    cfg = Config(dict(a=1, b=dict(c=[1, 2], d='x')))
    before = cfg.pretty_text
    install()
    del calls[:]
    assert [cfg.pretty_text for _ in range(3)] == [before] * 3
    assert len(calls) == 1
    cfg.a = 2
    assert cfg.pretty_text == before.replace('a=1', 'a=2') != before


def test_configs_are_read_as_before_and_metafiles_are_not(quick, monkeypatch):
    path = config_path('mmdet/mask_rcnn_ravlt_t_1x.py')
    before = Config.fromfile(path).to_dict()
    quick[0]()

    def read(*_):
        raise AssertionError('a metafile is read')

    monkeypatch.setattr('mmengine.config.utils._get_cfg_metainfo', read)
    assert Config.fromfile(path).to_dict() == before
