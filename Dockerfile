# An image with semsynth and its tested versions. Not built by CI, and by nobody yet: no engine was at
# hand. TORCH_INDEX=https://download.pytorch.org/whl/cpu takes the CPU build (smaller by some GB):
#   docker build -t semsynth .
#   docker run --rm --gpus all --ipc=host -v "$PWD:/work" semsynth demo --output demo_output
FROM python:3.12-slim
ARG TORCH_INDEX=""
WORKDIR /semsynth
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
COPY recipes recipes
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install --no-cache-dir -c constraints.txt --index-url "$TORCH_INDEX" torch; fi && \
    pip install --no-cache-dir -c constraints.txt .
WORKDIR /work
ENTRYPOINT ["semsynth"]
