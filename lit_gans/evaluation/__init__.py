"""What `lit-gans evaluate` measures: runs of GANs and of translators, and folders of images."""
