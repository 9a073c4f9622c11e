"""Which layouts of folders the tasks take, in words; nothing slow is imported here."""

#: By the name of the task.
ACCEPTED = {
    'detection and instance segmentation': 'COCO-style '
    '(annotations/instances_{train,val}*.json and image folders), an export of '
    'Roboflow, CVAT or Label Studio, YOLO, Pascal VOC or LabelMe',
    'semantic segmentation': 'images/{train,val}, annotations/{train,val} (PNGs of '
    'class indices, 255 is ignored) and classes.txt (a name per line), or as CVAT, '
    'Pascal VOC, Cityscapes or ADE20K have it (docs/data.md)',
    'classification': 'train/<class>/ and val/<class>/, or a CSV of images and '
    'classes (docs/data.md)',
    'panoptic segmentation': "COCO's (annotations/panoptic_{train,val}*.json, a folder "
    'of PNGs with the same name beside each, and image folders)',
}
