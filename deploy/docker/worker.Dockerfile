# The image of everything that loads our code: code server, runs, steps, and the `bandscope` command.
#   docker build -f deploy/docker/worker.Dockerfile -t REGISTRY/bandscope-worker:0.2.0 .
# For machines without a GPU, several gigabytes smaller: --build-arg TORCH_BACKEND=cpu
# Behind a company's proxy or mirror: README.md in the folder above.

FROM python:3.11.14-slim-bookworm AS base
# Debian's certificates, and those of your company.
COPY deploy/docker/certificates /usr/local/share/ca-certificates/company
RUN update-ca-certificates
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt

FROM base AS libraries
# The build of PyTorch: cpu, or one for the CUDA version of the nodes' driver. Its version is in constraints.txt.
ARG TORCH_BACKEND=cu130
# Your own mirrors; without them, PyPI and PyTorch's index. TORCH_BACKEND is empty if your mirror has the build you want.
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
ARG UV_FIND_LINKS
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy VIRTUAL_ENV=/opt/venv
WORKDIR /build
COPY constraints.txt hashes.txt ./
RUN pip install --no-cache-dir -c constraints.txt uv && uv venv "$VIRTUAL_ENV"
RUN uv pip install --no-cache ${TORCH_BACKEND:+--torch-backend=$TORCH_BACKEND} -c constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
RUN uv pip install --no-cache ${TORCH_BACKEND:+--torch-backend=$TORCH_BACKEND} -c constraints.txt -c hashes.txt \
    -r pyproject.toml --extra k8s --extra postgres --extra ray

FROM libraries AS code
ARG HATCHLING=1.33.0
COPY assets ./assets
COPY bandscope_dagster ./bandscope_dagster
# In a folder of its own, with the paths that it has in the environment.
RUN echo "hatchling==$HATCHLING" > build-constraints.txt \
    && uv pip install --no-cache --no-deps --build-constraints build-constraints.txt --prefix /opt/code .

FROM base
# A numeric user, so that Kubernetes can check that it is not root.
RUN groupadd --gid 10001 bandscope \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin bandscope \
    && install -d -o bandscope -g bandscope /opt/dagster/dagster_home /opt/dagster/dagster_home/storage /models
# HOME: libraries cache compiled kernels and fonts there, so it must be writable in a read-only container.
# MALLOC_ARENA_MAX, GLIBC_TUNABLES: less memory for many songs in one process (bandscope_dagster/allocator.py).
ENV PATH=/opt/venv/bin:$PATH DAGSTER_HOME=/opt/dagster/dagster_home HOME=/tmp PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=1 GLIBC_TUNABLES=glibc.malloc.tcache_count=0 BANDSCOPE_MODELS_FOLDER=/models
# Two layers: after a change of our code, only the second is built, pushed and pulled again.
COPY --from=libraries /opt/venv /opt/venv
COPY --from=code /opt/code /opt/venv
USER 10001:10001
WORKDIR /tmp
