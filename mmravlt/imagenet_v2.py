"""ImageNet-V2, a second test set for classifiers of ImageNet-1K.

https://github.com/modestyachts/ImageNetV2. Importing this module registers
``type='ImageNetV2'`` in mmpretrain.
"""

from pathlib import Path

from mmpretrain.datasets import ImageNet
from mmpretrain.registry import DATASETS


@DATASETS.register_module()
class ImageNetV2(ImageNet):
    """ImageNet-V2: a folder of images for each class, named '0' to '999'.

    The names are the numbers of the classes. ``ImageNet`` would number the
    folders in the order of their names as text: '0', '1', '10', '100', ….

    Args:
        data_root (str): the folder that holds the 1000 folders.
        **kwargs: as in mmpretrain's ``ImageNet``.

    Raises:
        ValueError: if a folder's name is not the number of a class.
    """

    def load_data_list(self) -> list[dict]:
        """List the images: ``dict(img_path=…, gt_label=…)`` each."""
        data_list = super().load_data_list()
        for image in data_list:
            name = Path(image['img_path']).parent.name
            if not name.isdecimal() or int(name) >= len(self.CLASSES):
                raise ValueError(
                    f'{self.img_prefix} has a folder {name!r}; the folders of '
                    f"ImageNet-V2 are named '0' to '{len(self.CLASSES) - 1}'."
                )
            image['gt_label'] = int(name)
        return data_list
