# edgemed on JetPack 6: Ubuntu 22.04, Python 3.10, CUDA 12.2 to 12.6, TensorRT 8.6 and 10.3, L4T 36.x (Orin).
# Not built here, where there is no container engine: docs/jetson.md says what was checked instead.
#
#   docker build -f docker/jetson/jetpack6.Dockerfile -t edgemed:jetpack6 .
#
# On JetPack 6.0 (TensorRT 8.6.2) add --build-arg TENSORRT=r8.6.2
#
# Base images, by NVIDIA for L4T 36. The newest l4t-jetpack is r36.4.0 (5 GB, with compilers); l4t-tensorrt has CUDA's and
# TensorRT's runtime libraries alone. The kernel driver and its libraries (libcuda, libnvdla_compiler) are not in any of
# them: the NVIDIA runtime mounts the board's own, so an image of 36.4 runs on each 36.x of its TensorRT.
# l4t-cuda:12.2.12-devel has the oldest headers of the generation: build-pycuda.sh says why.
ARG TENSORRT=r10.3.0

FROM nvcr.io/nvidia/l4t-cuda:12.2.12-devel AS wheels
# versions of Ubuntu's own packages are those of its release: exact ones leave its archive with the next security fix
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends g++ python3-dev python3-venv \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY docker/jetson/fetch.sh docker/jetson/build-py310.txt docker/jetson/constraints-py310.txt docker/jetson/
RUN docker/jetson/fetch.sh docker/jetson/build-py310.txt docker/jetson/constraints-py310.txt /tools /wheels
COPY docker/jetson/build-pycuda.sh docker/jetson/pycuda.txt docker/jetson/
RUN docker/jetson/build-pycuda.sh docker/jetson/pycuda.txt /tools /wheels
COPY docker/jetson/build-edgemed.sh docker/jetson/
COPY pyproject.toml README.md LICENSE ./
COPY calibration calibration
COPY profiles profiles
COPY edgemed edgemed
RUN docker/jetson/build-edgemed.sh . /tools /wheels

FROM nvcr.io/nvidia/l4t-tensorrt:${TENSORRT}-runtime AS assembled
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends python3-venv \
  && rm -rf /var/lib/apt/lists/*
COPY --from=wheels /wheels /wheels
COPY docker/jetson/install.sh docker/jetson/constraints-py310.txt /src/
RUN /src/install.sh /wheels /src/constraints-py310.txt /opt/edgemed

FROM nvcr.io/nvidia/l4t-tensorrt:${TENSORRT}-runtime
LABEL org.opencontainers.image.title="edgemed" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.description="Verified INT8 TensorRT bundles at the bedside; JetPack 6"
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
