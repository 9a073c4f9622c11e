"""Predict on images with a model of any of the three libraries, and draw it.

python tools/inference.py configs/mmdet/mask_rcnn_ravlt_t_1x.py CHECKPOINT photos
"""

IS_COMMAND_OF_MMRAVLT = True  # it reads the arguments before it imports libraries

from mmravlt.commands import main  # noqa: E402

if __name__ == '__main__':
    main('inference')
