# The image of everything that loads our code: code server, runs, steps, and the `bandscope` command.
#   docker build -f deploy/docker/worker.Dockerfile -t REGISTRY/bandscope-worker:0.2.0 .
# For machines without a GPU, several gigabytes smaller: --build-arg TORCH_BACKEND=cpu

FROM python:3.11.14-slim-bookworm AS libraries
# The build of PyTorch: cpu, or one for the CUDA version of the nodes' driver. Its version is in constraints.txt.
ARG TORCH_BACKEND=cu130
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_TORCH_BACKEND=$TORCH_BACKEND VIRTUAL_ENV=/opt/venv
WORKDIR /build
COPY constraints.txt hashes.txt ./
RUN pip install --no-cache-dir -c constraints.txt uv && uv venv "$VIRTUAL_ENV"
# Each layer changes less often than the next: PyTorch, the other libraries.
RUN uv pip install --no-cache -c constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
RUN uv pip install --no-cache -c constraints.txt -c hashes.txt -r pyproject.toml --extra k8s --extra postgres --extra ray
RUN echo /opt/bandscope > "$(echo "$VIRTUAL_ENV"/lib/python*/site-packages)/bandscope.pth"

FROM libraries AS code
ARG HATCHLING=1.33.0
COPY assets ./assets
COPY bandscope_dagster ./bandscope_dagster
RUN echo "hatchling==$HATCHLING" > build-constraints.txt \
    && uv pip install --no-cache --no-deps --build-constraints build-constraints.txt --target /opt/bandscope .

FROM python:3.11.14-slim-bookworm
# A numeric user, so that Kubernetes can check that it is not root.
RUN groupadd --gid 10001 bandscope \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin bandscope \
    && install -d -o bandscope -g bandscope /opt/dagster/dagster_home/storage /models
# Two layers: after a change of our code, only the second one, of about 50 MB, is pushed and pulled.
COPY --from=libraries /opt/venv /opt/venv
COPY --from=code /opt/bandscope /opt/bandscope
# HOME: libraries cache compiled kernels and fonts there, so it must be writable in a read-only container.
# MALLOC_ARENA_MAX, GLIBC_TUNABLES: less memory for many songs in one process (bandscope_dagster/allocator.py).
ENV PATH=/opt/bandscope/bin:/opt/venv/bin:$PATH DAGSTER_HOME=/opt/dagster/dagster_home HOME=/tmp PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=1 GLIBC_TUNABLES=glibc.malloc.tcache_count=0 BANDSCOPE_MODELS_FOLDER=/models
USER 10001:10001
WORKDIR /tmp
