# An image of facelabel-pipeline for a CPU (default) or for NVIDIA GPUs.
#
#   docker build -t facelabel .
#   docker build -t facelabel:gpu --build-arg FLAVOUR=gpu .
#   docker run --rm -v "$PWD:/data" facelabel --runner=DirectRunner --input photos --output out/photos
#   docker run --rm --gpus all -v "$PWD:/data" facelabel:gpu --runner=DirectRunner --input photos --output out/photos
#
#   docker build -t facelabel/worker --target worker .      # workers of Dataflow, or of Flink: Beam's boot starts them
#
# CPU: TensorFlow without GPU libraries and OpenCV without a screen, as in docs/install.md.
# GPU: TensorFlow with the CUDA libraries it wants; the host needs the NVIDIA driver and the container toolkit.

ARG PYTHON=3.12
ARG BEAM=2.77.0

FROM apache/beam_python${PYTHON}_sdk:${BEAM} AS beam

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir build && python -m build --wheel --outdir /wheel

FROM python:${PYTHON}-slim AS program
ARG FLAVOUR=cpu
COPY constraints.txt /tmp/constraints.txt
COPY --from=wheel /wheel /tmp/wheel
# The list is that of docs/install.md: all that the wheel needs, with two packages replaced by smaller ones.
RUN if [ "$FLAVOUR" = gpu ]; then tensorflow='tensorflow[and-cuda]'; else tensorflow=tensorflow-cpu; fi \
    && pip install --no-cache-dir --constraint /tmp/constraints.txt "$tensorflow" opencv-python-headless \
        apache-beam google-crc32c h5py jinja2 keras markupsafe numpy onnx onnxruntime pillow pi-heif pyarrow pydantic pyyaml \
        scikit-learn tqdm \
    && pip install --no-cache-dir --no-deps /tmp/wheel/*.whl \
    && rm -rf /tmp/wheel

# The driver must have the same minor version of Python and the same Beam. Nothing is fetched when a worker starts.
FROM program AS worker
ARG BEAM
COPY --from=beam /opt/apache/beam /opt/apache/beam
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt "apache-beam[gcp]==$BEAM" obstore
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
ENTRYPOINT ["/opt/apache/beam/boot"]

FROM program
RUN useradd --create-home facelabel
USER facelabel
WORKDIR /data
ENTRYPOINT ["facelabel"]
CMD ["--help"]
