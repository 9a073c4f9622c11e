"""Train a model of any of the three libraries; the config decides which.

python tools/train.py configs/mmdet/mask_rcnn_ravlt_t_1x.py
"""

IS_COMMAND_OF_MMRAVLT = True  # it reads the arguments before it imports libraries

from mmravlt.commands import main  # noqa: E402

if __name__ == '__main__':
    main('train')
