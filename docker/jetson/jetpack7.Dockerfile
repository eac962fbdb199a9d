# edgemed on JetPack 7: Ubuntu 24.04, Python 3.12, CUDA 13.0 and 13.2, TensorRT 10.13 to 11.4, L4T 38.x and 39.x
# (Thor; Orin from 7.2 on). Not built here, where there is no container engine: docs/jetson.md says what was checked.
#
#   docker build -f docker/jetson/jetpack7.Dockerfile -t edgemed:jetpack7 .
#
# JetPack 7.0 and 7.1 as it stands. For 7.2 add
#   --build-arg CUDA=13.2.1 --build-arg TENSORRT=10.16.1.11-1+cuda13.2
# and for TensorRT 11 on 7.2.2 besides --build-arg TENSORRT_MAJOR=11 with a TENSORRT of the 11.4 series
# (`apt-cache madison libnvinfer11` in the image lists them). Engines are keyed by TensorRT's version: those that the
# board's own TensorRT built are built anew in the container.
#
# Base images: there is no l4t-* image for L4T 38 or 39. JetPack 7 follows Arm's server base (SBSA), so NVIDIA's ordinary
# CUDA images for arm64 are the base, and TensorRT comes from the CUDA repository that they have set up.
ARG CUDA=13.0.2

FROM nvcr.io/nvidia/cuda:13.0.2-devel-ubuntu24.04 AS wheels
# versions of Ubuntu's own packages are those of its release: exact ones leave its archive with the next security fix
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends g++ python3-dev python3-venv \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY docker/jetson/fetch.sh docker/jetson/build-py312.txt docker/jetson/constraints-py312.txt docker/jetson/
RUN docker/jetson/fetch.sh docker/jetson/build-py312.txt docker/jetson/constraints-py312.txt /tools /wheels
COPY docker/jetson/build-pycuda.sh docker/jetson/pycuda.txt docker/jetson/
RUN docker/jetson/build-pycuda.sh docker/jetson/pycuda.txt /tools /wheels
COPY docker/jetson/build-edgemed.sh docker/jetson/
COPY pyproject.toml README.md LICENSE ./
COPY calibration calibration
COPY profiles profiles
COPY edgemed edgemed
RUN docker/jetson/build-edgemed.sh . /tools /wheels

FROM nvcr.io/nvidia/cuda:${CUDA}-base-ubuntu24.04 AS runtime
ARG TENSORRT=10.13.3.9-1+cuda13.0
ARG TENSORRT_MAJOR=10
# `compat` holds driver libraries for discrete GPUs; on a Jetson they would hide the ones that the runtime mounts
RUN apt-get update \
  && apt-get install --yes --no-install-recommends \
    "libnvinfer${TENSORRT_MAJOR}=${TENSORRT}" \
    "libnvinfer-plugin${TENSORRT_MAJOR}=${TENSORRT}" \
    "libnvonnxparsers${TENSORRT_MAJOR}=${TENSORRT}" \
    "python3-libnvinfer=${TENSORRT}" \
  && rm -rf /var/lib/apt/lists/* /usr/local/cuda*/compat

FROM runtime AS assembled
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends python3-venv \
  && rm -rf /var/lib/apt/lists/*
COPY --from=wheels /wheels /wheels
COPY docker/jetson/install.sh docker/jetson/constraints-py312.txt /src/
RUN /src/install.sh /wheels /src/constraints-py312.txt /opt/edgemed

FROM runtime
LABEL org.opencontainers.image.title="edgemed" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.description="Verified INT8 TensorRT bundles at the bedside; JetPack 7"
COPY --from=assembled /opt/edgemed /opt/edgemed
COPY docker/jetson/prepare.sh docker/jetson/check.sh docker/jetson/health.sh /opt/edgemed/libexec/
RUN /opt/edgemed/libexec/prepare.sh && /opt/edgemed/libexec/check.sh
ENV PATH=/opt/edgemed/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  EDGEMED_STATE=/var/lib/edgemed \
  CUDA_CACHE_PATH=/var/lib/edgemed/cuda-cache \
  NVIDIA_VISIBLE_DEVICES=all \
  NVIDIA_DRIVER_CAPABILITIES=all \
  ORT_DISABLE_TELEMETRY=1 \
  PYTHONDONTWRITEBYTECODE=1 \
  PYTHONUNBUFFERED=1
WORKDIR /var/lib/edgemed
VOLUME /var/lib/edgemed
USER 10001
HEALTHCHECK --interval=5m --timeout=2m --start-period=1m --retries=2 CMD ["/opt/edgemed/libexec/health.sh"]
ENTRYPOINT ["edgemed"]
CMD ["doctor"]
