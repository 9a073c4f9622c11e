# ImageNet-V2, matched frequency (Table 2 of the paper): evaluation only. Download
# imagenetv2-matched-frequency from https://github.com/modestyachts/ImageNetV2 and
# unpack it in data/.
_base_ = 'in1k_300e.py'
custom_imports = dict(
    imports=['mmravlt', 'mmravlt.imagenet_v2'], allow_failed_imports=False
)

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ImageNetV2',
        data_root='data/imagenetv2-matched-frequency-format-val',
        pipeline=_base_.test_pipeline,
    )
)
