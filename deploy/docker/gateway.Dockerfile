# The gateway: HTTP and gRPC in, Triton's gRPC out. deploy/docker/build.sh builds it.
#
#   PYTHON_IMAGE   a Debian or Ubuntu with python3 (3.11 or 3.12) and pip, such as Python's own -slim image
#   PIP_*          as pip reads them: an index, or PIP_NO_INDEX with PIP_FIND_LINKS=/build/docker/offline/wheels
ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS build
ARG PIP_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY pyproject.toml constraints.txt README.md ./
# the pip of the base installs into the environment, which gets none
RUN --mount=type=bind,source=deploy/docker,target=/build/docker \
    python3 -m venv --without-pip /opt/autoglm/venv \
 && python3 docker/requirements.py gateway > requirements.txt \
 && python3 -m pip --python /opt/autoglm/venv/bin/python install -c constraints.txt -r requirements.txt
COPY protocol/ protocol/
COPY gateway/ gateway/
RUN python3 -m pip --python /opt/autoglm/venv/bin/python install --no-deps --no-build-isolation . \
 && python3 -m pip --python /opt/autoglm/venv/bin/python uninstall --yes setuptools \
 && chmod -R a+rX /opt/autoglm

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="autoglm-gateway"
COPY --from=build /opt/autoglm/ /opt/autoglm/
# a read-only root leaves /tmp to write to; Python's default of buffered output would hold back log lines
ENV PATH=/opt/autoglm/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
EXPOSE 8000 9000
STOPSIGNAL SIGTERM
USER 1000:1000
ENTRYPOINT ["python", "-m", "autoglm_gateway"]
CMD ["--host=0.0.0.0"]
