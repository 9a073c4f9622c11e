# Table 9 of the paper: φ, the gate, is tanh of its input instead of a projection of it.
# A ratio of 4 instead of 3.5 makes up for the parameters of the projection.
# Stages 3 and 4 have softmax attention, as in the release; the paper's text has RALA in
# all, which is attention=('rala',) * 4.
ablation = dict(phi='tanh', ffn_ratio=4.0)
