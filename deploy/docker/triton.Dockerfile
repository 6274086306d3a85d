# Triton with the models' code and the default checkpoint. deploy/docker/build.sh builds it.
#
#   TRITON_IMAGE   NGC's tritonserver image whose tag ends in -py3 (its Python must be 3.12: the stub is built for it);
#                  or, with EXTRAS=server, any Debian or Ubuntu with python3 (3.11 or 3.12), pip and libpython: Triton
#                  then comes from the nvidia-pytriton wheel
#   EXTRAS         extras of pyproject.toml; engines adds what `autoglm build-engines` needs, less TensorRT itself
#   TENSORRT       a requirement such as tensorrt==10.13.3.9. An engine runs only in the TensorRT version that built it,
#                  so it must be the one of TRITON_IMAGE
#   PIP_*          as pip reads them: an index, or PIP_NO_INDEX with PIP_FIND_LINKS=/build/docker/offline/wheels
ARG TRITON_IMAGE

FROM ${TRITON_IMAGE} AS build
ARG EXTRAS=backend
ARG TENSORRT
ARG PIP_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY pyproject.toml constraints.txt ./
# the pip of the base installs into the environment, which gets none
RUN --mount=type=bind,source=deploy/docker,target=/build/docker \
    python3 -m venv --without-pip /opt/autoglm/venv \
 && python3 docker/requirements.py "$EXTRAS" > requirements.txt \
 && python3 -m pip --python /opt/autoglm/venv/bin/python install -c constraints.txt -r requirements.txt \
 && if [ -n "$TENSORRT" ]; then python3 -m pip --python /opt/autoglm/venv/bin/python install "$TENSORRT"; fi \
 && chmod -R a+rX /opt/autoglm

FROM ${TRITON_IMAGE}
LABEL org.opencontainers.image.title="autoglm-triton"
WORKDIR /opt/autoglm
# the big layer; a change of the code leaves it alone
COPY --from=build /opt/autoglm/venv/ venv/
COPY pyproject.toml README.md ./
COPY protocol/ protocol/
COPY python_backend/ python_backend/
COPY client/ client/
COPY model_repository/ model_repository/
COPY checkpoints/ checkpoints/
# editable, because the launcher finds checkpoints and model repository beside its packages
RUN python3 -m pip --disable-pip-version-check --no-cache-dir --python venv/bin/python install --root-user-action=ignore \
      --no-deps --no-build-isolation --editable . \
 && find . -path ./venv -prune -o ! -perm -444 -exec chmod a+rX {} +
# a read-only root leaves /tmp to write to: compiled kernels, torch's caches, the run's folder
ENV PATH=/opt/autoglm/venv/bin:$PATH HOME=/tmp XDG_CACHE_HOME=/tmp/.cache NUMBA_CACHE_DIR=/tmp/.cache/numba \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
USER 1000:1000
ENTRYPOINT ["autoglm", "serve"]
CMD ["--only=triton", "--host=0.0.0.0", "--triton-http-port=8000", "--verbose"]
