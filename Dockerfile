# rayrnn on Ray's own image, for `rayrnn up FILE --kubernetes` and for containers of your own:
#
#   docker build --tag rayrnn:0.1.0 .                                                       CPUs
#   docker build --tag rayrnn:0.1.0 --build-arg BASE=rayproject/ray:2.60.0-py311-gpu .      NVIDIA GPUs
#   docker run --rm rayrnn:0.1.0 rayrnn recipes
#
# The base has the Ray and the Python of those who use the cluster. PyTorch as package indices have it brings CUDA's
# libraries; with PyTorch's own index for CPUs, --build-arg PIP_EXTRA_INDEX_URL=ADDRESS, the image is some GB smaller.
ARG BASE=rayproject/ray:2.60.0-py311
FROM ${BASE}

# of rayrnn[...]: serve, export, tune, spark, audio, images, plot, mlflow, wandb, with commas between
ARG EXTRAS=serve
ARG PIP_EXTRA_INDEX_URL

WORKDIR /home/ray/rayrnn
COPY --chown=ray:users pyproject.toml constraints.txt README.md LICENSE ./
COPY --chown=ray:users rayrnn ./rayrnn
COPY --chown=ray:users plugins ./plugins
RUN python -m pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]" \
    && rayrnn --version

WORKDIR /home/ray
