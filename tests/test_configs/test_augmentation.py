"""Training images are augmented and mixed as timm does it in the releases' recipes."""

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from .recipes import built
from .test_mmpretrain import built_steps, leaf_name, read


def test_training_images_are_cropped_flipped_augmented_and_erased_in_this_order():
    dataset = read().train_dataloader.dataset
    place = (dataset.type, dataset.data_root, dataset.split)
    assert place == ('ImageNet', 'data/imagenet', 'train')
    steps = built_steps(dataset.pipeline)
    assert list(steps) == [
        *('LoadImageFromFile', 'RandomResizedCrop', 'RandomFlip', 'RandAugment'),
        *('RandomErasing', 'PackInputs'),
    ]
    crop = steps['RandomResizedCrop']
    assert crop.scale == (224, 224)
    assert crop.crop_ratio_range == (0.08, 1.0)
    assert crop.aspect_ratio_range == (3 / 4, 4 / 3)
    assert (crop.interpolation, crop.backend) == ('bicubic', 'pillow')
    assert steps['RandomFlip'].prob == 0.5
    erase = steps['RandomErasing']
    assert erase.erase_prob == 0.25
    assert (erase.min_area_ratio, erase.max_area_ratio) == (0.02, 1 / 3)
    assert erase.aspect_range == (0.3, pytest.approx(1 / 0.3))


# timm's `rand-m9-mstd0.5-inc1`: each operation's strength at level 0 and level 10,
# and whether its sign is drawn; None for operations without a strength.
TIMM_RANDAUGMENT = {
    'AutoContrast': None,
    'Equalize': None,
    'Invert': None,
    'Rotate': (0, 30, True),  # degrees
    'Posterize': (4, 0, False),  # bits kept
    'Solarize': (256, 0, False),  # threshold
    'SolarizeAdd': (0, 110, False),  # added below 128
    'ColorTransform': (0, 0.9, True),  # distance of the factor from 1
    'Contrast': (0, 0.9, True),
    'Brightness': (0, 0.9, True),
    'Sharpness': (0, 0.9, True),
    'Shear horizontal': (0, 0.3, True),
    'Shear vertical': (0, 0.3, True),
    'Translate horizontal': (0, 0.45, True),  # fraction of the side
    'Translate vertical': (0, 0.45, True),
}


def randaugment():
    augment = built_steps(read().train_dataloader.dataset.pipeline)['RandAugment']
    names = [
        ' '.join([type(op).__name__, *filter(None, [getattr(op, 'direction', '')])])
        for op in augment
    ]
    assert len(set(names)) == len(names)
    return augment, dict(zip(names, augment, strict=True))


def test_randaugment_is_that_of_timm():
    augment, operations = randaugment()
    assert augment.num_policies == 2
    assert set(operations) == set(TIMM_RANDAUGMENT)
    for name, operation in operations.items():
        assert operation.prob == 0.5
        strength = TIMM_RANDAUGMENT[name]
        if strength is None:
            assert operation.magnitude_range is None
            continue
        assert operation.magnitude_range == strength[:2], name
        assert operation.random_negative_prob == (0.5 if strength[2] else 0), name
        assert (operation.magnitude_level, operation.total_level) == (9, 10)
        assert operation.magnitude_std == 0.5
        if name.split()[0] in ('Rotate', 'Shear', 'Translate'):
            assert operation.interpolation == 'bicubic'
            # The mean of ImageNet, in the order of loaded images: B, G, R.
            assert operation.pad_val == (104, 116, 124)


@pytest.mark.parametrize(
    'name,expected',
    [
        ('Posterize', lambda x: x // 128 * 128),  # 4 - int(3.6) bits
        ('Solarize', lambda x: x if x < 26 else 255 - x),  # 256 - int(230.4)
        ('SolarizeAdd', lambda x: min(x + 99, 255) if x < 128 else x),  # int(99.0)
    ],
)
def test_randaugment_rounds_as_timm_at_level_9(name, expected):
    operation = randaugment()[1][name]
    operation.prob, operation.magnitude_std = 1.0, 0
    grey = np.arange(256, dtype=np.uint8)
    image = operation(dict(img=np.repeat(grey[None, :, None], 3, axis=2)))['img']
    assert image[0, :, 0].tolist() == [expected(x) for x in range(256)]


def test_erased_pixels_are_standard_normal_after_normalisation():
    cfg = read()
    erase = built_steps(cfg.train_dataloader.dataset.pipeline)['RandomErasing']
    erase.erase_prob, erase.min_area_ratio = 1.0, 0.3
    erased = erase(dict(img=np.full((512, 512, 3), 7, np.uint8)))['img']
    preprocessor = MODELS.build(
        dict(type='ClsDataPreprocessor', **cfg.data_preprocessor)
    )
    image = torch.from_numpy(erased).permute(2, 0, 1)[None]
    normal = preprocessor(dict(inputs=image))['inputs'][0]
    patch = normal[:, (image[0] != 7).sum(0) > 1]
    assert patch.shape[1] > 0.25 * 512 * 512
    # Up to its tails, which uint8 cuts off, and rounding down.
    black, white = preprocessor(
        dict(inputs=torch.tensor([0, 255])[:, None, None, None].expand(2, 3, 1, 1))
    )['inputs'].flatten(1)[..., None]
    standard_normal = torch.randn(3, 10**6).clamp(black, white)
    torch.testing.assert_close(
        patch.mean(1), standard_normal.mean(1), atol=0.025, rtol=0
    )
    torch.testing.assert_close(patch.std(1), standard_normal.std(1), atol=0.02, rtol=0)


def test_batches_are_mixed_and_labels_smoothed_as_in_timm():
    model = built(leaf_name())
    mixing = model.data_preprocessor.batch_augments
    kinds = [(type(augment).__name__, augment.alpha) for augment in mixing.augments]
    assert kinds == [('Mixup', 0.8), ('CutMix', 1.0)]
    assert mixing.probs is None  # each batch is mixed, by either with probability 1/2

    off = 0.1 / 1000
    first, second = (
        torch.full((1000,), off).index_fill(0, torch.tensor(label), 0.9 + off)
        for label in (3, 8)
    )
    target = 0.3 * first + 0.7 * second
    scores = torch.randn(1, 1000)
    expected = -(target * scores.log_softmax(1)).sum()
    one_hot = nn.functional.one_hot(torch.tensor([3, 8]), 1000).float()
    mixed = (0.3 * one_hot[:1]) + 0.7 * one_hot[1:]
    loss = model.head.loss_module(scores, mixed, avg_factor=1)
    torch.testing.assert_close(loss, expected)
