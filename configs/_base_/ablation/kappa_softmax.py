# Table 9 of the paper: κ is softmax over the channels of a head instead of ELU + 1.
# Stages 3 and 4 have softmax attention, as in the release; the paper's text has RALA in
# all, which is attention=('rala',) * 4.
ablation = dict(kappa='softmax')
