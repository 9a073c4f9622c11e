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
from pycocotools.mask import decode
from torch import nn

from mmravlt import optimize_for_inference
from mmravlt.command_line import find_images, name_classes, optimized
from mmravlt.tasks import use_custom_data

from .golden_fill import filled
from .processes import TOOLS
from .test_tools import SCORES, run
from .tiny import CONFIGS, write_project

# Weights of the layers that scores and masks come from.
FINAL = tuple(
    f'{layer}.weight'
    for layer in ('rpn_cls', 'fc_cls', 'mask_head.conv_logits', 'conv_seg', 'head.fc')
)
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
    filled(model.backbone)  # its maps depend on the image, as freshly made ones do not
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if 'running' in name and not name.startswith('backbone.'):
                value.uniform_(0.5, 1.5)
            elif name.endswith(FINAL):
                value.normal_()  # few scores and pixels are near a threshold
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


def assert_same_detections(one, other):
    """Equal up to rounding, in any order.

    Rounding may put a score or an overlap on the other side of a threshold, so one
    detection in ten may have no partner; so may a pixel in a hundred of a mask.
    """

    def distances(key):
        first, second = (np.asarray(d[key], float) for d in (one, other))
        difference = np.abs(first[:, None] - second[None])
        return difference.reshape(*difference.shape[:2], -1).max(-1)

    boxes = distances('bboxes')  # in pixels
    same = (boxes <= 0.1) & (distances('scores') <= 1e-2) & (distances('labels') == 0)
    cost = np.where(same, boxes, np.inf)
    pairs = []
    while np.isfinite(cost.min()):
        i, j = np.unravel_index(cost.argmin(), cost.shape)
        pairs.append((i, j))
        cost[i], cost[:, j] = np.inf, np.inf
    assert len(pairs) >= 0.9 * max(cost.shape) > 0
    for i, j in pairs:
        first, second = (decode(d['masks'][k]) for d, k in ((one, i), (other, j)))
        assert (first != second).mean() <= 0.01


def assert_same_classes(one, other):
    """Equal class maps, but for a pixel in a hundred between two classes."""
    one, other = np.asarray(one), np.asarray(other)
    assert one.shape == other.shape
    assert len(np.unique(one)) > 1
    assert (one != other).mean() <= 0.01


def assert_same_scores(one, other):
    """Equal up to rounding, and the class is that of the other, up to rounding."""
    one, other = np.asarray(one), np.asarray(other)
    np.testing.assert_allclose(one, other, atol=1e-3)
    assert one[other.argmax()] >= one.max() - 2e-3


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
    library, folder = project
    images = [write_image(tmp_path / f'{i}.png', i, (61, 83)) for i in range(2)]
    infer(folder, *images, '--out-dir', tmp_path / 'plain')
    infer(folder, *images, '--out-dir', tmp_path / 'fast', '--optimize')
    plain, fast = (predictions(tmp_path / name) for name in ('plain', 'fast'))
    assert plain.keys() == fast.keys() == {'0.json', '1.json'}
    assert len(models) == 1
    for name, one in plain.items():
        other = fast[name]
        assert one.keys() == other.keys() and one['image'] == other['image']
        if library == 'mmdet':
            assert_same_detections(one, other)
        elif library == 'mmseg':
            maps = (
                cv2.imread(str(tmp_path / f'{run}/preds/{name[:-5]}.png'), -1)
                for run in ('plain', 'fast')
            )
            assert_same_classes(*maps)
        else:
            assert_same_scores(one['pred_scores'], other['pred_scores'])


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
            *('--show-dir', f'drawn{len(options)}'),
        )
        said = 'The backbone is optimised for inference' in done.stdout + done.stderr
        assert said == bool(options)
        (metrics,) = work.glob('*/*.json')
        dumped = pickle.loads((folder / out).read_bytes())
        kind = dict(mmdet='pred_instances', mmseg='pred_sem_seg')
        key = kind.get(library, 'pred_score')
        results.append((json.loads(metrics.read_text()), [d[key] for d in dumped]))
    (plain, before), (fast, after) = results
    # A box, a pixel or an image that changes sides changes the score, too.
    tolerance = dict(mmdet=0.01, mmseg=1, mmpretrain=1e-3)[library]
    for score in SCORES[library]:
        assert fast[score] == pytest.approx(plain[score], abs=tolerance)
    assert len(before) == len(after) == (2 if library == 'mmdet' else 4)
    for one, other in zip(before, after, strict=True):
        if library == 'mmdet':
            assert_same_detections(one, other)
        elif library == 'mmseg':
            assert_same_classes(one['data'], other['data'])
        else:
            assert_same_scores(one, other)


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


def test_a_device_that_is_not_there_is_refused(monkeypatch, tmp_path):
    config = tmp_path / 'config.py'
    config.touch()
    words = ['inference.py', str(config), 'w', 'i', '--device', 'gpu']
    monkeypatch.setattr(sys, 'argv', words)
    with pytest.raises(SystemExit, match='error: gpu is no device of this machine'):
        runpy.run_path(str(TOOLS / 'inference.py'), run_name='__main__')
