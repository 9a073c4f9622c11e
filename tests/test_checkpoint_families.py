"""A further family of backbones is one record: nothing else knows of it."""

import re

import pytest
import torch

from mmravlt.checkpoint import (
    WrongWeightsError,
    convert_file,
    find_backbones,
    load_file,
    read_contents,
    remap,
)
from mmravlt.checkpoint.families import FAMILIES
from mmravlt.checkpoint.families.record import BACKBONE, HEAD, Derived, Family, Partial

OTHER = Family(
    name='Other',
    block=re.compile(r'(.*\.)?steps\.(\d+)\.(\d+)\.scale'),
    channels=lambda shape: shape[0],
    variants={},
    release_names=((re.compile(r'^(?=(?:steps|out\d)\.)'), BACKBONE), HEAD),
    output_norms=re.compile(r'out\d\.'),
    partial=(
        Partial(
            name=re.compile(r'\bq(?=\.weight)'),
            whole='kq',
            take=lambda value, shape: value[-shape[0] :],
            left_out='the k of {count} weights kq',
            refusal='is of a model with k',
        ),
    ),
    derived=(
        Derived(
            re.compile(r'(.*steps\.\d+)\.steps_of'),
            lambda value: 'odd steps' if value.sum() % 2 else None,
        ),
    ),
)
WEIGHTS = {
    'steps.0.0.scale': torch.ones(4),
    'steps.0.0.kq.weight': torch.arange(8.0).view(4, 2),
    'steps.0.steps_of': torch.ones(2),
    'head.weight': torch.ones(3, 4, 1, 1),
}


@pytest.fixture(autouse=True)
def family(monkeypatch):
    monkeypatch.setitem(FAMILIES, 'Other', OTHER)


def test_it_is_recognised_named_and_gives_parts_of_its_weights():
    (size,) = find_backbones({n: tuple(v.shape) for n, v in WEIGHTS.items()}).values()
    assert str(size) == 'Other with embed_dims (4,) and depths (1,)'
    expected = {
        'backbone.steps.0.0.scale': (4,),
        'backbone.steps.0.0.q.weight': (2, 2),
        'backbone.out0.weight': (4,),
        'head.fc.weight': (3, 4),
    }
    weights, report = remap(read_contents({'model': WEIGHTS}), expected)
    assert torch.equal(
        weights['backbone.steps.0.0.q.weight'], torch.tensor([[4.0, 5], [6, 7]])
    )
    assert weights['head.fc.weight'].shape == (3, 4)
    assert report.new == report.output_norms == ['backbone.out0.weight']
    assert '  not used of the file: the k of 1 weights kq' in str(report).splitlines()


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_what_its_models_derive_is_checked_and_left_out_of_clean_files(
    tmp_path, prefix
):
    source, target = str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth')
    weights = {prefix + n: v for n, v in WEIGHTS.items() if n != 'head.weight'}
    torch.save(weights, source)
    convert_file(source, target, 'backbone')
    assert load_file(target)['state_dict'].keys() == {
        'steps.0.0.scale',
        'steps.0.0.kq.weight',
    }
    torch.save({**weights, f'{prefix}steps.0.steps_of': torch.ones(1)}, source)
    with pytest.raises(WrongWeightsError, match="steps_of' in .* holds odd steps, so"):
        convert_file(source, str(tmp_path / 'c.pth'))
