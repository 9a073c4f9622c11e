"""Images and maps of a segmentor, from a list of them.

mmseg is imported here, so configs name the class by its path and nothing else does.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from mmseg.datasets import BaseSegDataset


class ListedMaps(BaseSegDataset):
    """mmseg's dataset of images and maps that a file pairs, whatever their names.

    Args:
        ann_file (str): JSON, a list of pairs: the path of an image and that of its map,
            both from ``data_root`` or absolute.
        kwargs: as in mmseg's ``BaseSegDataset``.
    """

    def load_data_list(self) -> list[dict]:
        """What mmseg's loading steps need, for each image in the order of the list."""
        return [
            dict(
                img_path=os.path.join(self.data_root or '', image),
                seg_map_path=os.path.join(self.data_root or '', label_map),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            for image, label_map in json.loads(
                Path(self.ann_file).read_text(encoding='utf-8')
            )
        ]
