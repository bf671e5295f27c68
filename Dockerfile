# syntax=docker/dockerfile:1
# This checkout with the environment of `make env`, for a CUDA GPU or, without torch's CUDA libraries, for CPUs:
#
#     docker build --tag atss .
#     docker build --tag atss:cpu --build-arg DEVICE=cpu .
#     docker run --rm --gpus all --ipc host --volume "$PWD/cells:/data" atss train --config-file atss_R_50_FPN_1x.yaml \
#         DATASETS.FOLDER /data OUTPUT_DIR /data/output
FROM python:3.11-slim-bookworm

# OpenCV needs the libraries, Triton the compiler.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libgl1 libglib2.0-0 libxcb1 make \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 atss && install --directory --owner 1000 /home/atss/project
USER 1000
WORKDIR /home/atss/project
COPY --chown=1000 . .

ARG DEVICE=cuda
# Of two builds of a version pip takes the one of torch's index for CPUs, whose version ends with +cpu.
RUN --mount=type=cache,target=/tmp/pip,uid=1000 \
    export PIP_CACHE_DIR=/tmp/pip \
    && if [ "$DEVICE" = cpu ]; then export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu; fi \
    && make env

ENV PATH=/home/atss/project/.venv/bin:$PATH
ENTRYPOINT ["atss"]
CMD ["--help"]
