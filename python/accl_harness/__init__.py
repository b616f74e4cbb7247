"""Training harness of the adversarial constrained-CNN loss: images and masks in, Table 1 out."""
