# vLLM for Qwen-Omni (docs/models.md): its own image, and the libraries that read audio, which that one leaves out.
#   docker build -f deploy/docker/vllm.Dockerfile -t REGISTRY/bandscope-vllm:0.2.0 .

FROM vllm/vllm-openai:v0.32.0
# The same version, so that nothing but the extra is installed.
RUN uv pip install --system "vllm[audio]==0.32.0"
