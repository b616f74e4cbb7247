"""Training harness of the adversarial constrained-CNN loss: raw images and masks in, Table 1 out."""
