"""AttnGAN (Xu et al., 2018), https://arxiv.org/abs/1711.10485: pictures of captions, drawn word by word."""
