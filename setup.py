"""Packaging of espnet_spire; tested versions stand in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (here / "espnet_spire/__init__.py").read_text())

setup(
    name="espnet_spire",
    version=version.group(1),
    description="SPIRE for ESPnet: discrete speech units in a text translation LLM",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["espnet_spire", "espnet_spire.*"]),
    package_data={"espnet_spire.score.tables": ["*.yaml", "*.css", "*.js"]},
    install_requires=[
        "espnet>=202511",
        "torch>=2.6",
        "torchaudio>=2.6",
        "transformers>=5.23",
        # transformers asks for it before it loads weights under DeepSpeed.
        "accelerate>=1.1",
        "deepspeed>=0.18",
        "sentencepiece>=0.2.0",
        "scikit-learn>=1.5",
        "joblib",
        "datasets>=4.0",
        "safetensors>=0.4",
        # MP3 and Opus came with the library of 0.12.
        "soundfile>=0.12",
        "threadpoolctl>=3.1",
        "jiwer>=4.0",
        # BLEU of Korean is of what its tokenizer finds.
        "sacrebleu[ko]>=2.5",
        "whisper-normalizer>=0.1.10",
        "matplotlib",
        "tensorboard",
        "tqdm",
        "pyyaml",
        # Names of languages beyond Tower's ten.
        "langcodes[data]>=3.5",
        # GigaSpeech's metadata is one JSON file of more than a gigabyte.
        "ijson>=3.2",
        # DeepSpeed builds its CPU optimizer and communication kernels with it at first use.
        "ninja",
    ],
    extras_require={
        # The spoken toy corpus: the library of eSpeak NG and its voices.
        "mini": ["espeakng-loader>=0.2.4"],
        # Training of adapters, and of the loss with a fused kernel on a GPU.
        "lora": ["peft>=0.17"],
        "liger": ["liger-kernel>=0.6"],
        # Translation and decoding by OpenAI-compatible servers.
        "server": ["openai>=2.0"],
        # Data directories from lhotse's recipes and manifests.
        "lhotse": ["lhotse>=1.31"],
        "dev": [
            *("pytest>=8", "ruff>=0.6", "kaldiio>=2.18", "peft>=0.17", "liger-kernel>=0.6"),
            "openai>=2.0",
            # for `transformers serve`
            *("fastapi", "uvicorn"),
            # lhotse's recipes are what our readers are compared with; speechcolab is for its
            # recipe of GigaSpeech
            *("lhotse>=1.31", "speechcolab==0.0.6a0", "pycryptodome"),
            # Europarl-ST's recordings are M4A
            "imageio-ffmpeg",
        ],
    },
)
