# lit_gans with its training command, for CPUs or, with another index of wheels, for CUDA; docs/install.md says how it is run.
FROM python:3.11-slim-bookworm
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# The compiler is for `--model.init_args.compile=true`.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*

# A layer of its own: torch is what takes long, and changes seldom.
COPY constraints.txt /source/
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" --constraint /source/constraints.txt torch torchvision

COPY pyproject.toml setup.py README.md LICENSE /source/
COPY experiments /source/experiments
COPY lit_gans /source/lit_gans
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" --constraint /source/constraints.txt '/source[video,hub]'

# Runs and data lie in /workspace, on the host or in volumes; whoever `docker run --user` names may write there.
RUN useradd --uid 1000 gan && mkdir -p /workspace/runs /workspace/data && chmod -R 1777 /workspace
ENV USER=gan HOME=/workspace LIT_GANS_CACHE=/workspace/data/cache
USER 1000
WORKDIR /workspace
VOLUME ["/workspace/runs", "/workspace/data"]
ENTRYPOINT ["lit-gans"]
CMD ["fit", "--help"]
