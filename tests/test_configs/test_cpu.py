"""The schedules of the configs for small data and no GPU."""

import pytest

from .recipes import learning_rates, read

LEAVES = (
    'mmdet/cpu/retinanet_ravlt_t_cpu',
    'mmdet/cpu/mask_rcnn_ravlt_t_cpu',
    'mmseg/cpu/semantic_fpn_ravlt_t_cpu',
    'mmpretrain/cpu/ravlt_t_cpu',
)


@pytest.mark.parametrize('leaf', LEAVES)
def test_the_rate_warms_up_and_ends_near_zero(leaf):
    cfg = read(leaf)
    rates = learning_rates(cfg, per_epoch=50)
    highest = cfg.optim_wrapper.optimizer.lr
    assert rates[0] == pytest.approx(0.05 * highest, rel=0.01)
    assert max(rates) == pytest.approx(highest, rel=0.02)
    assert rates.index(max(rates)) <= 0.1 * len(rates)
    assert rates[-1] == pytest.approx(0.01 * highest, rel=0.1)


@pytest.mark.parametrize('leaf', LEAVES)
def test_the_rate_stands_for_the_batch_of_the_config(leaf):
    cfg = read(leaf)
    assert cfg.auto_scale_lr.base_batch_size == cfg.train_dataloader.batch_size
