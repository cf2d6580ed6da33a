"""Names of Python packages."""

from __future__ import annotations

import re

DISTRIBUTIONS = {
    "attr": "attrs",
    "Bio": "biopython",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "fitz": "pymupdf",
    "git": "gitpython",
    "google.cloud.storage": "google-cloud-storage",
    "google.protobuf": "protobuf",
    "hydra": "hydra-core",
    "igraph": "python-igraph",
    "jose": "python-jose",
    "Levenshtein": "levenshtein",
    "lightning_fabric": "lightning-fabric",
    "magic": "python-magic",
    "mpl_toolkits": "matplotlib",
    "OpenSSL": "pyopenssl",
    "PIL": "pillow",
    "pkg_resources": "setuptools",
    "pptx": "python-pptx",
    "pylab": "matplotlib",
    "pytorch_lightning": "pytorch-lightning",
    "ruamel.yaml": "ruamel-yaml",
    "sentence_transformers": "sentence-transformers",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "tensorflow_datasets": "tensorflow-datasets",
    "tree": "dm-tree",
    "umap": "umap-learn",
    "usb": "pyusb",
    "wx": "wxpython",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}
"""By name of import, where it is another than the package's."""


def distribution_of(name: str) -> str | None:
    """The package that has a module of this name, where it is called otherwise."""
    found = {normalised_name(module): package for module, package in DISTRIBUTIONS.items()}
    return found.get(normalised_name(name))


def normalised_name(name: str) -> str:
    """As indexes and wheels know it. `packaging` does the same, and takes time to import."""
    return re.sub(r"[-_.]+", "-", name).lower()
