"""tools/analyze_rank.py on a user's images, with models of all three libraries."""

import csv
import os
import re
import runpy
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope

from mmravlt.analysis.rank import (
    analyze,
    build_model,
    choose_images,
    read_images,
    table,
)
from mmravlt.custom_data.common import DataError

from ..release_weights import released_file
from ..test_tools import TOOLS
from ..tiny import CONFIGS, write_project

FIGURES = ('ranks.png', 'spectra.png', 'matrices.png')


@pytest.fixture(scope='module', params=CONFIGS)
def project(request, tmp_path_factory):
    """A folder with a config, data, and weights of a seed other than the tool's."""
    library = request.param
    folder = tmp_path_factory.mktemp(library)
    write_project(folder, library)
    model = build_model(Config.fromfile(folder / 'config.py'), None, seed=1)
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'weights.pth')
    (folder / 'photos/inside').mkdir(parents=True)
    for i, name in enumerate(('a.png', 'inside/b.jpg', 'c.PNG')):
        pixels = np.random.default_rng(i).integers(0, 256, (61, 83, 3), np.uint8)
        cv2.imwrite(str(folder / 'photos' / name), pixels)
    return library, folder


@pytest.fixture
def analyze_rank(monkeypatch):
    """Runs the tool in this process and in a folder."""

    def call(folder, *words):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, 'argv', ['analyze_rank.py', *map(str, words)])
        runpy.run_path(str(TOOLS / 'analyze_rank.py'), run_name='__main__')

    return call


def read_rows(folder):
    with (folder / 'ranks.csv').open(newline='') as file:
        return list(csv.DictReader(file))


def test_untrained_and_given_weights_are_analysed_side_by_side(project, analyze_rank):
    library, folder = project
    words = ('config.py', 'config.py', 'weights.pth', '--data', 'photos')
    analyze_rank(folder, *words, '--out-dir', 'out', '--device', 'cpu')
    rows = read_rows(folder / 'out')
    heads = 1 + 2 + 3 + 4
    assert len(rows) == 2 * (heads + 1 + 2 + 4)
    half = len(rows) // 2
    assert {r['weights'] for r in rows[:half]} == {'untrained'}
    assert {r['weights'] for r in rows[half:]} == {'weights.pth'}
    assert {r['images'] for r in rows} == {'3'}
    for name in FIGURES:
        figure = cv2.imread(str(folder / 'out' / name))
        assert figure.std() > 10

    cfg = Config.fromfile(folder / 'config.py')
    model = build_model(cfg, str(folder / 'weights.pth'))
    paths = choose_images(folder / 'photos', 16)
    expected = table([analyze(model, read_images(cfg, model, paths))])
    for row, one in zip(rows[half:], expected, strict=True):
        assert row['module'] == one['module']
        assert row['module'].startswith('backbone.layers.')
        for name in ('tokens', 'full_rank', 'rank_mean', 'entropy_std'):
            assert float(row[name]) == pytest.approx(one[name], rel=1e-3, abs=1e-3)
    means = [[r['entropy_mean'] for r in rows[i : i + half]] for i in (0, half)]
    assert means[0] != means[1]


def test_images_are_prepared_as_for_testing(project, monkeypatch):
    library, folder = project
    monkeypatch.chdir(folder)
    cfg = Config.fromfile('config.py')
    if library == 'mmdet':
        from mmravlt.custom_data import use_custom_data

        use_custom_data(cfg, 'data', training=False)
    model = build_model(cfg, None)
    import_module(f'{library}.datasets')
    with DefaultScope.overwrite_default_scope(library):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        item = dataset[0]
        path = item['data_samples'].img_path
        expected = model.data_preprocessor(pseudo_collate([item]), False)['inputs']
    (found,) = read_images(cfg, model, [path])
    assert torch.equal(found, expected)
    assert found.shape[0] == 1


@pytest.mark.parametrize('project', ['mmpretrain'], indirect=True)
def test_options_reach_the_table(project, analyze_rank, capsys):
    _, folder = project
    kinds = 'model.backbone.attention=(rala,rala,linear,hydra)'
    words = ('config.py', 'none', '--data', 'photos', '--cfg-options', kinds)
    options = ('--num-images', 2, '--threshold', 0, '--seed', 5, '--layer', 4)
    analyze_rank(folder, *words, *options)
    rows = read_rows(folder / 'rank_analysis')
    assert {r['layer'] for r in rows if r['matrix'] == 'kv_buffer'} == set('1234')
    assert {r['images'] for r in rows} == {'2'}
    assert all(r['rank_mean'] == r['full_rank'] for r in rows)
    assert 'config (untrained): 2 images' in capsys.readouterr().out

    cfg = Config.fromfile(folder / 'config.py')
    cfg.model.backbone.attention = ('rala', 'rala', 'linear', 'hydra')
    model = build_model(cfg, None, seed=5)
    paths = choose_images(folder / 'photos', 2)
    expected = table([analyze(model, read_images(cfg, model, paths))])
    for row, one in zip(rows, expected, strict=True):
        found = float(row['effective_rank_mean'])
        assert found == pytest.approx(one['effective_rank_mean'], rel=1e-3)


@pytest.mark.parametrize('project', ['mmdet'], indirect=True)
def test_untrained_means_that_pretrained_weights_are_left_out(project, monkeypatch):
    _, folder = project
    monkeypatch.chdir(folder)
    cfg = Config.fromfile('config.py')
    missing = dict(type='Pretrained', checkpoint='nowhere.pth')
    cfg.model.backbone.init_cfg = missing
    model = build_model(cfg, None, seed=3)
    again = build_model(cfg, None, seed=3)
    other = build_model(cfg, None, seed=4)
    weights = [m.backbone.patch_embed.proj[0].weight for m in (model, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert MODELS.get('RAVLT') is type(model.backbone)


@pytest.mark.parametrize('project', ['mmpretrain'], indirect=True)
@pytest.mark.parametrize(
    'words,message',
    [
        (['config.py', '--data', 'nowhere'], 'must hold a folder nowhere'),
        (['config.py', '--data', 'empty'], 'the folder empty has no images'),
        (['config.py', '--data', 'broken'], 'a.png cannot be read as an image'),
        (['nowhere.py', '--data', 'photos'], 'no config file nowhere.py'),
        (['config.py', 'nowhere.pth', '--data', 'photos'], 'nowhere.pth can not be fo'),
        (['config.py', '--data', 'photos', '--layer', '9'], 'layer is 9, but config'),
        (
            ['config.py', '--data', 'photos', '--out-dir', 'photos/a.png'],
            'photos/a.png',
        ),
        (['bare.py', '--data', 'photos'], 'bare.py must have a test_dataloader'),
    ],
)
def test_wrong_input_ends_with_one_sentence(project, analyze_rank, words, message):
    _, folder = project
    (folder / 'empty').mkdir(exist_ok=True)
    (folder / 'broken').mkdir(exist_ok=True)
    (folder / 'broken/a.png').write_bytes(b'no image')
    (folder / 'bare.py').write_text("default_scope = 'mmpretrain'\n")
    with pytest.raises(SystemExit, match='^error: ') as ended:
        analyze_rank(folder, *words)
    assert message in str(ended.value.code)
    assert '\n' not in str(ended.value.code)


@pytest.mark.parametrize(
    'words,message',
    [
        (['weights.pth', '--data', 'photos'], 'weights.pth: a config file, which ends'),
        (['a.py', 'b.pth', 'c.pth', '--data', 'd'], 'c.pth: a config file, which ends'),
        (['a.py', '--data', 'd', '--threshold', '1'], '1 is no share; give a number'),
        (['a.py', '--data', 'd', '--num-images', '0'], '0 is no count; give 1 or more'),
        (['a.py'], 'the following arguments are required: --data'),
    ],
)
def test_words_that_make_no_sense_are_named(
    analyze_rank, tmp_path, capsys, words, message
):
    with pytest.raises(SystemExit):
        analyze_rank(tmp_path, *words)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    'files,found',
    [
        (['b.png', 'a/c.JPG', 'notes.txt'], ['a/c.JPG', 'b.png']),
        (['val/cat/1.png', 'train/cat/2.png'], ['val/cat/1.png']),
        (['val2017/1.jpg', 'train2017/2.jpg', 'annotations/3.png'], ['val2017/1.jpg']),
        (['images/val/1.png', 'annotations/val/1.png'], ['images/val/1.png']),
        (['images/validation/1.png', 'annotations/1.png'], ['images/validation/1.png']),
        (['images/1.png', 'labels/1.png'], ['images/1.png']),
    ],
)
def test_images_for_validation_are_found(tmp_path, files, found):
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == '.txt':
            path.write_text('no image')
        else:
            cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
    assert choose_images(tmp_path, 5) == [tmp_path / name for name in found]


def test_images_are_spread_evenly(tmp_path):
    for i in range(10):
        cv2.imwrite(str(tmp_path / f'{i}.png'), np.zeros((4, 4, 3), np.uint8))
    chosen = choose_images(tmp_path, 4)
    assert [path.stem for path in chosen] == ['0', '2', '5', '7']
    with pytest.raises(DataError, match='must hold a folder nowhere'):
        choose_images(tmp_path / 'nowhere', 1)


@pytest.mark.slow
def test_the_command_of_the_docs_runs_as_printed(tmp_path):
    page = (TOOLS.parent / 'docs/rank_analysis.md').read_text()
    (command,) = re.findall(r'```bash\n(.*?)\n```', page, re.DOTALL)
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(TOOLS.parent / name)
    torch.save(released_file('classifier', 't'), tmp_path / 'RAVLT_T.pth')
    (tmp_path / 'photos').mkdir()
    cv2.imwrite(str(tmp_path / 'photos/a.png'), np.eye(64, dtype=np.uint8) * 255)
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    done = subprocess.run(
        shlex.split(command),
        cwd=tmp_path,
        env={**os.environ, 'PATH': path, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = read_rows(tmp_path / 'rank_analysis')
    assert {r['weights'] for r in rows} == {'RAVLT_T.pth', 'untrained'}
    assert {r['layer'] for r in rows} == {str(i) for i in range(1, 13)}
    for name in FIGURES:
        assert (tmp_path / 'rank_analysis' / name).is_file()
