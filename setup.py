"""How this program is packed and what it needs. Tool settings lie in pyproject.toml, exact versions in constraints.txt.

Packages are named one by one: `pipeline`, `transforms` and `models` are common words, and a search would
also pick up what merely lies beside them.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
NAME = "facelabel-pipeline"


def version() -> str:
    """Returns the version that `pipeline/__init__.py` states, without importing it."""
    text = (HERE / "pipeline" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"', text, flags=re.MULTILINE)
    if found is None:
        raise RuntimeError("pipeline/__init__.py states no __version__")
    return found[1]


def long_description() -> str:
    """Returns the README where there is one."""
    readme = HERE / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


class WithConfigs(build_py):
    """Also packs `configs/`, which lies beside the packages, where `pipeline/settings/shipped.py` looks for it."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "pipeline" / "configs"
            ignored = shutil.ignore_patterns("*.sh", "*.spec")
            shutil.copytree(HERE / "configs", target, ignore=ignored, dirs_exist_ok=True)


setup(
    name=NAME,
    version=version(),
    description="Labels every face in large image collections: resumable, accounted for, offline",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[
        "pipeline",
        "pipeline.actions",
        "pipeline.api",
        "pipeline.commands",
        "pipeline.live",
        "pipeline.report",
        "pipeline.report.render",
        "pipeline.report.two_runs",
        "pipeline.run",
        "pipeline.settings",
        "transforms",
        "transforms.formats",
        "transforms.formats.cache",
        "transforms.formats.decode",
        "transforms.formats.exports",
        "transforms.formats.shards",
        "transforms.formats.submission",
        "transforms.merge",
        "transforms.storage",
        "models",
        "models.backbones",
        "models.detectors",
        "models.detectors.cascade",
        "models.detectors.one_shot",
        "models.evaluation",
        "models.heads",
        "models.runtimes",
        "models.training",
        "models.training.detection",
        "models.training.detection.cascade",
    ],
    package_data={
        "models": ["py.typed", "weights/*", "weights/*/*"],
        "pipeline": ["py.typed"],
        "pipeline.report": ["templates/*"],
        "transforms": ["py.typed"],
    },
    cmdclass={"build_py": WithConfigs},
    entry_points={"console_scripts": ["facelabel = pipeline.cli:entry_point"]},
    install_requires=[
        "apache-beam>=2.76,<3",  # before 2.76 it leaks failed bundles
        "google-crc32c>=1.5",  # Beam's TFRecord reader wants it and no longer brings it
        "h5py>=3.11,<3.15",  # TensorFlow wants < 3.15
        "jinja2>=3.1",  # pages, with everything escaped
        "keras>=3.12",
        "markupsafe>=3",  # comes with jinja2; charts are built with it
        "numpy>=2,<2.5",  # Beam wants < 2.5
        "onnx>=1.17",  # writes the graphs that features.runtime=onnx and openvino execute, and train-detector exports
        "onnxruntime>=1.20",  # runs the bundled detector, and features.runtime=onnx
        "opencv-python>=4.14,<5",  # OpenCV 5 has neither CascadeClassifier nor the Haar files
        "pillow>=12",  # decodes AVIF, and TIFF's and GIF's LZW
        "pi-heif>=1.1",  # decodes HEIC; pillow-heif would bring an encoder under the GPL
        "pyarrow>=16,<26",  # Beam wants < 26
        "pydantic>=2.7,<3",
        "pyyaml>=6",
        "scikit-learn>=1.5",
        "tensorflow>=2.20",
        "tqdm>=4.66",
    ],
    extras_require={
        "gcp": ["apache-beam[gcp]>=2.76,<3"],  # to start jobs on Dataflow
        "s3": ["obstore>=0.9"],  # object stores; the same package serves both
        "gcs": ["obstore>=0.9"],
        "sample": ["matplotlib>=3.9", "scikit-image>=0.24"],  # their wheels bring the photos
        "gpu": ["tensorflow[and-cuda]>=2.20"],  # the CUDA libraries; the driver is the machine's
        "jax": ["jax>=0.6"],  # features.runtime=jax
        "openvino": ["openvino>=2025.0"],  # features.runtime=openvino
        "pandas": ["pandas>=2.2"],  # data frames of results in a notebook
        "evaluate": ["matplotlib>=3.9"],  # draws plots and picture sheets of `evaluate`, and curves of training
        "tensorboard": ["tensorboard>=2.18"],  # event files of `train-backbone --tensorboard`, and what shows them
        "executable": ["pyinstaller>=6.10"],  # makes the executable: python -m pipeline.executable
        "dev": [
            "build>=1.2",
            "flask>=3",  # of moto's server
            "flask-cors>=5",
            "html5lib>=1.1",  # a strict parser, for tests of pages: newer ones pass over half of the errors
            "hypothesis>=6.100",
            "jax>=0.6",  # a test holds its features against TensorFlow's
            "matplotlib>=3.9",
            "moto[s3]>=5",  # an S3 on this machine, for tests
            "mypy>=1.13",
            "obstore>=0.9",
            "openvino>=2025.0",  # a test holds its features against TensorFlow's
            "pandas>=2.2",
            "pillow-heif>=1.1",  # makes HEIC files for tests
            "pyinstaller>=6.10",  # a slow test makes the executable
            "playwright>=1.49",  # drives a Chromium that is installed already; tests skip without one
            "pytest>=9",
            "pytest-xdist>=3.6",  # two processes: half the minutes; and a crash is one test that failed, not the end
            "ruff>=0.8",
            "tensorboard>=2.18",
            "types-PyYAML",
            "types-tqdm",
        ],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
