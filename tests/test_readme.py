"""Commands and examples of README and docs work as printed; links lead somewhere."""

import json
import re
import runpy
import shlex
from pathlib import Path

import onnxruntime
import pytest
import torch
from mmengine.config import Config

from demo.shapes import write_shapes

from .processes import run_program, run_tool
from .release_weights import released_file
from .test_configs.test_end_to_end import BOX_HEAD, FPN, PROPOSALS, RUNS, write_data

ROOT = Path(__file__).parents[1]
# Pages whose commands and examples are run, in this order.
RUN = [
    *('docs/train.md', 'README.md', 'docs/install.md', 'docs/data.md'),
    *('docs/weights.md', 'docs/backbone.md', 'docs/export.md', 'docs/models.md'),
]
# Pages that tell what was run elsewhere, on data or for a time that tests do not have,
# or whose examples other tests cover: test_create_model.py, test_layer_decay.py and
# test_panoptic.py.
RECORDS = [
    *('docs/ablations.md', 'docs/attention_zoo.md', 'docs/benchmarks.md'),
    *('docs/rank_analysis.md', 'docs/recipes.md', 'docs/results.md'),
    *('docs/layer_decay.md', 'docs/panoptic.md', 'docs/torch_alone.md'),
]
PAGES = [*RUN, *RECORDS, 'CONTRIBUTING.md', 'CHANGELOG.md']
TEXTS = {page: (ROOT / page).read_text(encoding='utf-8') for page in PAGES}
FENCED = re.compile(r'```(\w+)\n(.*?)```', re.DOTALL)
BLOCKS = [block for page in RUN for block in FENCED.findall(TEXTS[page])]
COMMANDS = dict.fromkeys(
    line.split('#')[0].strip()
    for language, block in BLOCKS
    if language == 'bash'
    for line in block.splitlines()
    if line.strip()
)
# Predictions come last, after the training on data/mine.
TOOL_COMMANDS = sorted(
    (c for c in COMMANDS if 'tools/' in c), key=lambda c: 'inference' in c
)
# What makes a full training small; everything else is as printed.
SMALL = [
    '--cfg-options',
    'randomness.seed=0',
    'model.backbone.init_cfg=None',
    *(*FPN, *PROPOSALS, *BOX_HEAD),
    'model.neck.out_channels=16',
    'model.rpn_head.in_channels=16',
    'model.rpn_head.feat_channels=16',
    'model.roi_head.bbox_roi_extractor.out_channels=16',
    'model.roi_head.bbox_head.in_channels=16',
    'model.roi_head.mask_roi_extractor.out_channels=16',
    'model.roi_head.mask_head.in_channels=16',
    'model.test_cfg.rcnn.score_thr=0',  # hardly trained, it is sure of nothing
    'model.test_cfg.rcnn.max_per_img=10',
    'train_dataloader.dataset.pipeline.2.scale=(64,64)',
    'val_dataloader.dataset.pipeline.1.scale=(64,64)',
    'test_dataloader.dataset.pipeline.1.scale=(64,64)',
    'train_cfg.val_interval=12',
    'default_hooks.checkpoint.interval=12',
    'default_hooks.checkpoint.save_optimizer=True',
    'default_hooks.logger.interval=1',
]


def options_that_make_small(words):
    """What to append to a command of ``tools/train.py`` or ``tools/test.py``."""
    if not any('train' in word or 'test' in word for word in words[:2]):
        return []
    config = next(word for word in words if word.endswith('.py') and '/mm' in word)
    leaf = config.removeprefix('configs/').removesuffix('.py')
    if leaf != 'mmdet/mask_rcnn_ravlt_t_1x':
        return ['--cfg-options', *(option.format(1) for option in RUNS[leaf][0])]
    trains = 'train' in ' '.join(words[:2])
    return [option for option in SMALL if trains or 'train' not in option]


def test_each_command_is_run_by_a_test_or_by_ci():
    ci = (ROOT / '.ci/run').read_text()
    assert len(TOOL_COMMANDS) == 13
    for command in COMMANDS:
        if command.startswith('make'):
            assert f'\n{command}\n' in ci, command
        elif command.startswith('pip install'):
            assert '^pip install' in ci
        elif command not in TOOL_COMMANDS:
            # tests/test_doctor.py and tests/test_data/test_check.py
            own = ('python -m mmravlt doctor', 'python -m mmravlt check-data data/mine')
            assert command in own


def anchors(page):
    """The headings of a page as GitHub names them in links."""
    headings = re.findall(r'^#+ (.+)$', FENCED.sub('', page.read_text()), re.M)
    return {re.sub(r'[^\w -]', '', h.lower()).replace(' ', '-') for h in headings}


@pytest.mark.parametrize('page', PAGES)
def test_each_link_into_the_repository_leads_somewhere(page):
    for link in re.findall(r'\]\(([^)]+)\)', FENCED.sub('', TEXTS[page])):
        path, _, anchor = link.partition('#')
        if '://' not in link:
            target = (ROOT / page).parent / path if path else ROOT / page
            assert target.is_file(), link
            assert not anchor or anchor in anchors(target), link


def test_the_readme_leads_to_every_page():
    assert {*PAGES} >= {f'docs/{path.name}' for path in ROOT.glob('docs/*.md')}
    missing = [page for page in PAGES if f']({page})' not in TEXTS['README.md']]
    assert missing == ['README.md']


def test_tables_of_results_are_those_of_the_metafiles():
    tables = runpy.run_path(str(ROOT / 'docs/update_tables.py'))
    for page in tables['PAGES']:
        assert tables['updated'](page) == TEXTS[page], 'python docs/update_tables.py'


@pytest.mark.slow
def test_training_and_test_commands_run_as_printed(tmp_path):
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    write_shapes(tmp_path / 'data/mine', num_train=2, num_val=1, size=64)
    write_data(tmp_path / 'data/streets', 'mmseg')
    write_data(tmp_path / 'data/pets', 'mmpretrain')
    torch.save(released_file('classifier', 't'), tmp_path / 'RAVLT_T.pth')
    write_coco(tmp_path / 'data/coco')
    for command in TOOL_COMMANDS:
        words = shlex.split(command)
        if 'dist_' in words[0]:
            assert words[-1] == '8'
            words[-1] = '2'  # processes instead of GPUs
        words += options_that_make_small(words)
        if starts_from_nothing(command):
            done = run_program(*words, cwd=tmp_path, env={'PORT': '29519'})
        else:
            done = run_tool(words[1].removeprefix('tools/'), *words[2:], cwd=tmp_path)
        if 'dist_' in command:
            work_dir = tmp_path / 'work_dirs/mask_rcnn_ravlt_t_1x'
            assert_two_processes(command, done, work_dir)
        if 'mmdet' in command and 'train.' in command and '--resume' not in command:
            checkpoint = tmp_path / 'work_dirs/mask_rcnn_ravlt_t_1x/epoch_12.pth'
            assert checkpoint.is_file()
        if '--show-dir' in command:
            assert list((tmp_path / 'drawn').rglob('*.jpg')) or list(
                (tmp_path / 'drawn').rglob('*.png')
            )
            assert (tmp_path / 'predictions.pkl').is_file()
    assert (tmp_path / 'work_dirs/semantic_fpn_ravlt_t_1x/iter_1.pth').is_file()
    assert (tmp_path / 'work_dirs/ravlt_t_in1k/epoch_1.pth').is_file()
    assert (tmp_path / 'backbone.safetensors').is_file()
    assert len(list(tmp_path.glob('mine-*.pth'))) == 1
    assert list(tmp_path.glob('predictions/vis/*.png'))
    assert list(tmp_path.glob('predictions/preds/*.json'))


def starts_from_nothing(command):
    """Whether a command finds nothing imported, or what other commands find, too.

    One command or more of each tool, and of each library, imports all by itself; those
    of tools/train.py and tools/test.py with mmdet are dist_train.sh and dist_test.sh.
    """
    tools = ('python tools/train.py', 'python tools/test.py')
    return not (command.startswith(tools) and '/mmdet/' in command)


def assert_two_processes(command, done, work_dir):
    """Each took a part of the data, and the results were put together."""
    last = max(path.parent for path in work_dir.glob('*/*.log'))
    if 'dist_train' in command:
        lines = (last / 'vis_data/scalars.json').read_text().splitlines()
        epochs = [r['epoch'] for r in map(json.loads, lines) if 'loss' in r]
        assert epochs == [*range(1, 13)]  # 4 images, 2 processes with batches of 2
    else:
        (metrics,) = last.glob('*.json')
        assert 'coco/segm_mAP' in json.loads(metrics.read_text())
    if not torch.cuda.is_available():
        assert (done.stdout + done.stderr).count('NCCL is replaced by gloo') == 1


def write_coco(folder):
    """Generated shapes under the file names and with the classes of COCO 2017.

    All 80 classes are listed, since an untrained model predicts any of them.
    """
    from mmdet.datasets import CocoDataset

    names = CocoDataset.METAINFO['classes']
    write_shapes(folder, num_train=4, num_val=2, size=64)
    for split in ('train', 'val'):
        (folder / split).rename(folder / f'{split}2017')
        source = folder / f'annotations/instances_{split}.json'
        content = json.loads(source.read_text())
        content['categories'] = [
            dict(id=i + 1, name=name) for i, name in enumerate(names)
        ]
        target = folder / f'annotations/instances_{split}2017.json'
        target.write_text(json.dumps(content))
        source.unlink()


PYTHON_EXAMPLES = [block for language, block in BLOCKS if language == 'python']
EXPORTS = [example for example in PYTHON_EXAMPLES if 'torch.onnx' in example]
CONFIGS = [example for example in PYTHON_EXAMPLES if 'model = dict(' in example]
SCRIPTS = [e for e in PYTHON_EXAMPLES if e not in EXPORTS and e not in CONFIGS]


@pytest.mark.parametrize('script', SCRIPTS)
def test_scripts_print_what_their_comments_say(script, capsys):
    exec(script, {})
    comments = [line[2:] for line in script.splitlines() if line.startswith('# ')]
    assert capsys.readouterr().out.splitlines() == comments


@pytest.mark.parametrize('example', CONFIGS)
def test_config_examples_build_a_model(example, tmp_path):
    from mmengine.registry import init_default_scope

    if '_base_' not in example:
        example = "_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'\n" + example
    (tmp_path / 'your_config.py').write_text(example)
    cfg = Config.fromfile(tmp_path / 'your_config.py')
    init_default_scope('mmdet')
    from mmdet.registry import MODELS

    model = MODELS.build(cfg.model)
    assert len(model.backbone.layers[2].blocks) == 9  # RAVLT-S


@pytest.mark.parametrize('example', EXPORTS)
def test_export_examples_give_a_file_for_any_size(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    session = onnxruntime.InferenceSession('ravlt_t.onnx')
    maps = session.run(None, {'image': torch.zeros(1, 3, 96, 160).numpy()})
    assert [each.shape[2:] for each in maps] == [(24, 40), (12, 20), (6, 10), (3, 5)]


def test_examples_were_found():
    assert (len(CONFIGS), len(EXPORTS), len(SCRIPTS)) == (2, 1, 2)
    assert len(COMMANDS) >= 12
