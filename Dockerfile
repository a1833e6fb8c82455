# unlikeness in a container. Pictures are read and written in the folder that is mounted at /pictures:
#
#     docker build --tag unlikeness .
#     docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/pictures" unlikeness protect photos --output protected
#
# Everything that opens a model, on the CPU, and on an NVIDIA GPU (pip's own torch; run it with --gpus all):
#
#     docker build --build-arg EXTRAS=models,heif --tag unlikeness:models .
#     docker build --build-arg EXTRAS=models,heif --build-arg TORCH_INDEX=https://pypi.org/simple --tag unlikeness:cuda .
#
# Models from the Hugging Face hub are kept in /models; mount a folder there to keep them between runs.

# The version that constraints.txt is for.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
# Extras of pyproject.toml, with commas between.
ARG EXTRAS=heif
# Where torch is taken from; only the extra models needs it.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /source
RUN python -m venv /opt/unlikeness
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
RUN /opt/unlikeness/bin/python -m pip install --disable-pip-version-check --no-cache-dir \
        -c constraints.txt --extra-index-url "${TORCH_INDEX}" ".[${EXTRAS}]" \
    && /opt/unlikeness/bin/unlikeness --version

FROM python:${PYTHON}-slim
COPY --from=build /opt/unlikeness /opt/unlikeness
RUN useradd --create-home --uid 1000 unlikeness \
    && mkdir /pictures /models \
    && chown unlikeness:unlikeness /pictures /models
ENV PATH="/opt/unlikeness/bin:${PATH}" \
    HF_HOME=/models
USER unlikeness
WORKDIR /pictures
ENTRYPOINT ["unlikeness"]
CMD ["--help"]
