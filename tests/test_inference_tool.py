"""tools/inference.py on a user's images, and --optimize there and in tools/test.py."""

import json
import pickle
import runpy
import sys
from collections import OrderedDict
from importlib import import_module

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmravlt import optimize_for_inference
from mmravlt.command_line import find_images, name_classes, optimized
from mmravlt.custom_data import use_custom_data

from .test_tools import SCORES, TOOLS, run
from .tiny import CONFIGS, write_project

# As the classification configs do: the averaged weights are what is tested.
AVERAGING = "\ncustom_hooks = [dict(type='EMAHook', momentum=1e-4)]\n"


@pytest.fixture(scope='module', params=CONFIGS)
def project(request, tmp_path_factory):
    """A folder with data, the config that a training leaves, and random weights."""
    library = request.param
    folder = tmp_path_factory.mktemp(library)
    write_project(folder, library)
    config = folder / 'config.py'
    if library == 'mmpretrain':
        config.write_text(config.read_text() + AVERAGING)
    cfg = Config.fromfile(config)
    if library == 'mmdet':
        use_custom_data(cfg, str(folder / 'data'), training=False)
    cfg.dump(config)
    import_module(f'{library}.models')
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(library):
        model = MODELS.build(cfg.model)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if 'running' in name:
                value.uniform_(0.5, 1.5)
            elif name.endswith(('fc_cls.weight', 'conv_seg.weight', 'fc.weight')):
                value.normal_()  # far apart, so that rounding makes no difference
    heads = [cfg.model.get('decode_head'), cfg.model.get('head')]
    box_head = cfg.model.get('roi_head', {}).get('bbox_head')
    count = next(head for head in [*heads, box_head] if head).num_classes
    meta = dict(dataset_meta=dict(classes=[f'thing {i}' for i in range(count)]))
    weights = dict(state_dict=model.state_dict(), meta=meta)
    torch.save(weights, folder / 'weights.pth')
    return library, folder


def isolate_scopes(monkeypatch):
    """Keep the scope that an inferencer sets from the tests that follow."""
    scopes = OrderedDict(DefaultScope._instance_dict)
    monkeypatch.setattr(DefaultScope, '_instance_dict', scopes)


@pytest.fixture
def infer(monkeypatch):
    """Runs the tool in this process, on the config and weights of a folder."""
    isolate_scopes(monkeypatch)

    def call(folder, *arguments):
        words = [folder / 'config.py', folder / 'weights.pth', *arguments]
        monkeypatch.setattr(sys, 'argv', ['inference.py', *map(str, words)])
        runpy.run_path(str(TOOLS / 'inference.py'), run_name='__main__')

    return call


def write_image(path, seed=0, size=(48, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    cv2.imwrite(str(path), pixels)
    return path


def predictions(folder):
    return {p.name: json.loads(p.read_text()) for p in folder.glob('preds/*.json')}


def assert_close(one, other):
    """Nested predictions are equal up to rounding."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_close(one[key], other[key])
    elif isinstance(one, list) and not all(isinstance(x, float) for x in one):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_close(*pair)
    else:
        is_number = isinstance(one, (float, list))
        assert one == (pytest.approx(other, abs=1e-3) if is_number else other)


def test_each_image_gets_a_drawing_and_predictions(project, infer, tmp_path):
    library, folder = project
    first = write_image(tmp_path / 'a/photo.png')
    second = write_image(tmp_path / 'b/photo.jpg', seed=1)
    third = write_image(tmp_path / 'b/Other.JPG', seed=2)
    (tmp_path / 'b/notes.txt').write_text('no image')
    infer(folder, first, tmp_path / 'b', '--out-dir', tmp_path / 'out')
    found = predictions(tmp_path / 'out')
    names = {'photo.json': first, 'photo_2.json': second, 'Other.json': third}
    assert {name: p['image'] for name, p in found.items()} == {
        name: str(path) for name, path in names.items()
    }
    for name, image in names.items():
        drawn = cv2.imread(str(tmp_path / f'out/vis/{name[:-5]}.png'))
        original = cv2.imread(str(image))
        if library == 'mmpretrain':  # enlarged, so that its text can be read
            assert drawn.shape == (224, 298, 3)
        else:
            assert drawn.shape == original.shape
            assert not np.array_equal(drawn, original)
        prediction = found[name]
        if library == 'mmpretrain':
            label = int(np.argmax(prediction['pred_scores']))
            assert prediction['pred_label'] == label
            assert prediction['pred_class'] == f'thing {label}'
            continue
        assert prediction['labels']
        assert prediction['classes'] == [f'thing {i}' for i in prediction['labels']]
        if library == 'mmseg':
            path = tmp_path / f'out/preds/{name[:-5]}.png'
            class_map = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            assert class_map.shape == original.shape[:2]
            shares = [(class_map == i).mean() for i in prediction['labels']]
            assert prediction['shares'] == pytest.approx(shares)
            assert sum(shares) == pytest.approx(1)
        else:
            assert len(prediction['bboxes']) == len(prediction['masks'])
            assert {tuple(m['size']) for m in prediction['masks']} == {(48, 64)}


@pytest.mark.parametrize('project', ['mmdet'], indirect=True)
def test_score_thr_says_what_is_drawn(project, infer, tmp_path):
    _, folder = project
    image = write_image(tmp_path / 'photo.png')
    infer(folder, image, '--out-dir', tmp_path / 'out', '--score-thr', 1)
    assert predictions(tmp_path / 'out')['photo.json']['labels']
    drawn = cv2.imread(str(tmp_path / 'out/vis/photo.png'))
    assert np.array_equal(drawn, cv2.imread(str(image)))


def test_optimize_predicts_the_same(project, infer, tmp_path, monkeypatch):
    models = []
    monkeypatch.setattr(
        'mmravlt.command_line.optimize_for_inference',
        lambda model: models.append(model) or optimize_for_inference(model),
    )
    _, folder = project
    images = [write_image(tmp_path / f'{i}.png', i, (61, 83)) for i in range(2)]
    infer(folder, *images, '--out-dir', tmp_path / 'plain')
    infer(folder, *images, '--out-dir', tmp_path / 'fast', '--optimize')
    plain, fast = (predictions(tmp_path / name) for name in ('plain', 'fast'))
    assert len(plain) == 2
    assert len(models) == 1
    assert_close(plain, fast)


@pytest.mark.slow
def test_optimized_testing_repeats_metrics_and_predictions(project):
    library, folder = project
    results = []
    for options in ([], ['--optimize']):
        out = f'predictions{len(options)}.pkl'
        work = folder / f'work{len(options)}'
        done = run(
            folder,
            'test.py',
            *('weights.pth', '--work-dir', work, '--out', out, *options),
            *('--show-dir', f'drawn{len(options)}', '--amp'),
        )
        said = 'The backbone is optimised for inference' in done.stdout + done.stderr
        assert said == bool(options)
        (metrics,) = work.glob('*/*.json')
        dumped = pickle.loads((folder / out).read_bytes())
        kind = dict(mmdet='pred_instances', mmseg='pred_sem_seg')
        key = kind.get(library, 'pred_score')
        results.append((json.loads(metrics.read_text()), [d[key] for d in dumped]))
    (plain, before), (fast, after) = results
    for score in SCORES[library]:
        assert fast[score] == pytest.approx(plain[score], abs=1e-3)
    assert len(before) == len(after) == (2 if library == 'mmdet' else 4)
    parts = dict(mmdet=('bboxes', 'scores', 'labels'), mmseg=('data',))
    for one, other in zip(before, after, strict=True):
        for part in parts.get(library, ()):
            torch.testing.assert_close(one[part], other[part], atol=1e-3, rtol=1e-3)
        if library == 'mmpretrain':
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_optimize_without_a_ravlt_ends_with_one_sentence():
    with pytest.raises(SystemExit, match='^error: The Conv2d holds no RAVLT'):
        optimized(nn.Conv2d(3, 3, 1))


@pytest.mark.parametrize(
    'library,count,first',
    [('mmdet', 80, 'person'), ('mmseg', 2, 'dark'), ('mmpretrain', 2, '0')],
)
def test_names_come_from_the_dataset_where_the_checkpoint_has_none(
    library, count, first
):
    import_module(f'{library}.datasets')
    cfg = Config.fromstring(CONFIGS[library], '.py')
    names = name_classes({}, cfg)
    assert len(names['classes']) == len(names['palette']) == count
    assert names['classes'][0] == first


@pytest.mark.parametrize('meta', [{'CLASSES': ['a', 'b']}, {'CLASSES': ('a', 'b')}])
def test_names_of_old_checkpoints_are_found(meta):
    names = name_classes(meta, Config.fromstring(CONFIGS['mmseg'], '.py'))
    assert names['classes'] == ['a', 'b']
    assert len(set(names['palette'])) == 2


def test_places_without_a_readable_image_are_named_once_each(tmp_path):
    good = write_image(tmp_path / 'photos/good.png')
    broken = tmp_path / 'photos/broken.png'
    broken.write_bytes(good.read_bytes()[:200])
    (tmp_path / 'empty').mkdir()
    places = [tmp_path / name for name in ('photos', 'empty', 'nowhere')]
    images, problems = find_images([*map(str, places), str(good)])
    assert images == [good]
    assert len(problems) == 3
    assert problems[0].startswith(f'{broken} cannot be read as an image')
    assert problems[1].startswith(f'the folder {places[1]} has no images (.jpg, ')
    assert problems[2] == f'there is no image or folder {places[2]}'


@pytest.mark.parametrize('project', ['mmpretrain'], indirect=True)
def test_readable_images_are_done_and_the_others_named(project, infer, tmp_path):
    _, folder = project
    good = write_image(tmp_path / 'good.png')
    broken = tmp_path / 'broken.jpg'
    broken.write_bytes(b'')
    with pytest.raises(SystemExit, match=f'^error: {broken} cannot be read') as ended:
        infer(folder, broken, good, '--out-dir', tmp_path / 'out')
    assert isinstance(ended.value.code, str)  # which Python prints, and exits with 1
    assert list(predictions(tmp_path / 'out')) == ['good.json']


@pytest.mark.parametrize('project', ['mmpretrain'], indirect=True)
@pytest.mark.parametrize(
    'words,message',
    [
        (['config.py', 'weights.pth', 'nowhere.jpg'], 'no image or folder nowhere.jpg'),
        (['config.py', 'nowhere.pth', 'good.png'], 'nowhere.pth can not be found'),
        (['nowhere.py', 'weights.pth', 'good.png'], 'no config file nowhere.py'),
        (['scopeless.py', 'weights.pth', 'good.png'], 'a default_scope out of mmdet'),
        (['wide.py', 'weights.pth', 'good.png'], 'does not give this model head'),
        (['config.py', 'weights.pth', 'good.png', '--out-dir', 'good.png'], 'good.png'),
    ],
)
def test_wrong_input_ends_with_one_sentence(
    words, message, project, monkeypatch, tmp_path
):
    _, folder = project
    for name in ('config.py', 'weights.pth'):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    write_image(tmp_path / 'good.png')
    (tmp_path / 'scopeless.py').write_text('model = dict()')
    wide = "_base_ = 'config.py'\nmodel = dict(head=dict(num_classes=7))"
    (tmp_path / 'wide.py').write_text(wide)
    isolate_scopes(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['inference.py', *words])
    with pytest.raises(SystemExit, match=message) as ended:
        runpy.run_path(str(TOOLS / 'inference.py'), run_name='__main__')
    assert str(ended.value).startswith('error: ')
    assert len(str(ended.value).splitlines()) == 1


def test_a_device_that_is_not_there_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['inference.py', 'c', 'w', 'i', '--device', 'gpu'])
    with pytest.raises(SystemExit):
        runpy.run_path(str(TOOLS / 'inference.py'), run_name='__main__')
    assert 'gpu is no device of this machine' in capsys.readouterr().err
