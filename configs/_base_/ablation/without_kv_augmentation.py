# Table 9 of the paper: all tokens weigh the same in the KV buffer.
# Stages 3 and 4 have softmax attention, as in the release; the paper's text has RALA in
# all, which is attention=('rala',) * 4.
ablation = dict(kv_augmentation=False)
